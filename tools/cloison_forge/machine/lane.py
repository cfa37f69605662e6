# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lane is: a kind of machine, how to start it, and the names of its devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloison_forge.machine.job import Job, Share
from cloison_forge.machine.outcome import Limits, Outcome


class KernelLike(Protocol):
    """What a machine needs to know of a built kernel (see kernel.api.Kernel)."""

    @property
    def image(self) -> Path:
        """The file to boot: a bzImage, or UML's executable."""

    @property
    def arch(self) -> str:
        """``x86_64`` or ``um``."""

    @property
    def release(self) -> str:
        """What ``uname -r`` says."""

    @property
    def config(self) -> Path:
        """The configuration that it was built from."""

    @property
    def variant(self) -> str:
        """``on``, ``off`` or ``absent``."""


class DiskLike(Protocol):
    """What a machine needs to know of a disk image (see image.api.Disk)."""

    @property
    def path(self) -> Path:
        """The raw image."""

    @property
    def root_partuuid(self) -> str:
        """PARTUUID of its root partition."""


@dataclass(frozen=True)
class MachineSpec:
    """One machine to start.

    `root` is a file with the root file system alone, `disk` a whole disk; a lane takes the one it
    likes better. Neither is ever written to. `processors` are threads of one core (UML has one).
    `way` is one of the lane's ways to boot, '' for its first; where the disk's own boot loader has the kernel
    (``bios`` and ``uefi``), `kernel` may be None. `append` is added to the command line of a kernel handed over.
    `hypervisor` is the program that runs before the kernel, where the lane has one.
    """

    kernel: KernelLike | None
    job: Job
    root: Path | None = None
    disk: DiskLike | None = None
    memory_mib: int = 512
    processors: int = 2
    share: Path | None = None
    way: str = ""
    append: str = ""
    accelerator: str = ""
    hypervisor: Path | None = None


@dataclass(frozen=True)
class Wires:
    """Where a starting machine finds its surroundings: its own folder, the job disk, inherited descriptors."""

    folder: Path
    job_disk: Path
    channel: int
    terminal: int | None = None


@dataclass(frozen=True)
class Launch:
    """The command that starts a machine, in the machine's folder. Its standard output is the console."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Lane(Protocol):
    """A kind of machine. Lanes hold no state; each start gets a folder of its own.

    `ways` are the ways to boot it, the usual one first. `patience` multiplies the time limits of checks, which
    are meant for QEMU's emulator.
    """

    name: str
    ways: tuple[str, ...]
    patience: int
    arch: str
    profile: str
    channel: str
    terminal: str
    ending: str

    def limits(self, spec: MachineSpec) -> Limits:
        """Return the time limits of the stages."""

    def share(self, folder: Path) -> Share:
        """Return how the guest mounts a shared folder."""

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        """Return the command that starts the machine; may write helper files into its folder."""

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        """Look into what the machine's program left for a reason of its own to have failed."""
