# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that the kernel opens by number: what is mounted in a context lies on devices that it may open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cloison.devices import DeviceRights, paths
from cloison_verify.catalogue import check, instead
from cloison_verify.mounting import MOUNT, MS_RDONLY, PLACE, folder, grant, guest, mount, node
from cloison_verify.scene import Scene, Seen


def _root() -> tuple[int, int, str, int]:
    """Return the device that / lies on, its file system, and the flags to mount it once more."""
    device = Path("/").stat().st_dev
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        kind = [line.split()[2] for line in stream if line.split()[1] == "/"][-1]
    readonly = os.statvfs("/").f_flag & os.ST_RDONLY
    return os.major(device), os.minor(device), kind, MS_RDONLY if readonly else 0


def _disk(*, mapped: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        major, minor, kind, flags = _root()
        context = grant(scene, MOUNT)
        if mapped:
            with paths(f"b:{major}:{minor}") as (device, target):
                context.map_device(device, target, DeviceRights.OPEN)

        def before() -> None:
            node("b", major, minor)
            folder("b")

        return guest(
            scene, lambda: mount(f"{PLACE}/b-{major}-{minor}", f"{PLACE}/b", kind, flags), MOUNT, before=before
        )

    return probe


check(
    "device.mount-unmapped",
    title="a context that may mount does not mount the disk of the host",
    attack="mount of a node of the disk with SECURE_MOUNT",
    expected="EACCES",
    control=instead(_disk(mapped=True), "ok", "a context to which the disk is mapped"),
    vectors=["F16", "F26"],
)(_disk(mapped=False))
