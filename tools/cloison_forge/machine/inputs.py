# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to the machines it needs: lanes by name, their kernels, their disks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cloison_forge.core import hostpackages
from cloison_forge.core.errors import UsageError
from cloison_forge.machine import kvm
from cloison_forge.machine.bochs import Bochs
from cloison_forge.machine.lane import DiskLike, KernelLike, Lane
from cloison_forge.machine.qemu import Qemu
from cloison_forge.machine.uml import Uml
from cloison_forge.machine.xen import Xen
from cloison_forge.pipeline import Request
from cloison_verify.catalogue import HOST_IMAGE

LANES: dict[str, Lane] = {"uml": Uml(), "qemu": Qemu(), "xen": Xen(), "bochs": Bochs()}
_DEBUG_MIB, _PLAIN_MIB = 1536, 512
_MORE_MIB = 1024  # on top, for servers with their data in memory
_DEBUG_PATIENCE = 8  # a kernel that watches itself, emulated on a busy host


@dataclass(frozen=True)
class Inputs:
    """What a machine of a lane boots: one of `root` (the file system alone) and `disk` (all of it).

    `patience` multiplies the time limits of checks.
    """

    kernel: KernelLike | None
    root: Path | None = None
    disk: DiskLike | None = None
    memory_mib: int = _PLAIN_MIB
    patience: int = 1
    hypervisor: Path | None = None


def lane_named(name: str) -> Lane:
    """Return a lane, or fail and list those that exist."""
    if name not in LANES:
        raise UsageError(f"no lane '{name}'", hint=f"lanes: {', '.join(LANES)}")
    return LANES[name]


def way_named(lane: Lane, name: str) -> str:
    """Return a way to boot a lane ('' is its usual one), or fail and list those that exist."""
    if name and name not in lane.ways:
        raise UsageError(f"no way '{name}' on lane '{lane.name}'", hint=f"ways: {', '.join(lane.ways)}")
    return name or lane.ways[0]


def make(request: Request, lane: Lane, image: str = HOST_IMAGE) -> Inputs:
    """Build what is not up to date: the lane's kernel (or that of the profile asked for) and the root of an image."""
    from cloison_forge import pipeline

    hostpackages.demand(f"lane {lane.name}")  # before minutes of building, not after
    own = replace(request, profile=request.profile or lane.profile)
    debug = own.profile == "debug"
    kernel = pipeline.kernel(own)
    if kernel.arch != lane.arch:
        raise UsageError(
            f"profile '{own.profile}' builds a kernel for {kernel.arch}, lane '{lane.name}' needs {lane.arch}",
            hint=f"the lane's own profile is {lane.profile}",
        )
    by_disk = lane.name in ("xen", "bochs")
    usual = image == HOST_IMAGE and own.profile == lane.profile
    if usual and lane.arch == "x86_64" and (own.variant == "on" or by_disk):
        hypervisor = pipeline.hypervisor(own) if lane.name == "xen" else None
        return Inputs(kernel, disk=pipeline.image(own), patience=lane.patience, hypervisor=hypervisor)
    if by_disk:
        raise UsageError(
            f"lane '{lane.name}' boots the image '{HOST_IMAGE}' with profile '{lane.profile}' only",
            hint="lanes uml and qemu boot others",
        )
    return Inputs(
        kernel,
        root=pipeline.root(own, image).path,
        memory_mib=(_DEBUG_MIB if debug else _PLAIN_MIB) + (0 if image == HOST_IMAGE else _MORE_MIB),
        patience=max(lane.patience, _DEBUG_PATIENCE if debug else 1),
    )


def accelerator(lane: Lane) -> tuple[str, str]:
    """Return the accelerator of a lane ('' where it has none), and a line to say why it is not KVM."""
    if lane.name != "qemu":
        return "", ""
    verdict = kvm.probe()
    if verdict.usable:
        return "kvm", ""
    return "tcg", f"{verdict.reason}; using QEMU's emulator (TCG)"
