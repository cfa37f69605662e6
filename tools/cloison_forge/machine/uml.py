# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane ``uml``: the patched kernel built for ``ARCH=um``, run as a process of the host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cloison_forge.core.errors import MachineError
from cloison_forge.machine.job import Share
from cloison_forge.machine.lane import Launch, MachineSpec, Wires
from cloison_forge.machine.outcome import Limits, Outcome

_MIB = 1024 * 1024


class Uml:
    """User Mode Linux: boots in a fraction of a second, one processor, no x86 entry code.

    The root file system is copy-on-write: what the guest writes goes to a file in the machine's
    folder. UML of 6.12 restarts its own program on reboot, so the guest always powers off.
    """

    name = "uml"
    ways: tuple[str, ...] = ("direct",)
    patience = 1
    arch = "um"
    profile = "uml"
    channel = "/dev/ttyS0"
    terminal = "/dev/ttyS1"
    ending = "poweroff"

    def limits(self, spec: MachineSpec) -> Limits:
        """Return the limits: everything but the checks takes seconds."""
        return Limits(firmware=20, kernel=40, runner=60, ending=30, power_off=20)

    def share(self, folder: Path) -> Share:
        """Share by hostfs, which takes a path of the host."""
        return Share("hostfs", str(folder))

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        """Start the kernel's executable with its disks, console and serial ports."""
        root, device = self._root(spec)
        if spec.kernel is None:
            raise MachineError("no kernel to run", hint="make one with ./invoke kernel --profile uml")
        words = [
            str(spec.kernel.image.resolve()),
            f"mem={spec.memory_mib}M",
            f"ubd0=root.cow,{root.resolve()}",
            f"ubd1r={wires.job_disk.resolve()}",
            f"root={device}",
            "rw",
            "init=/usr/lib/cloison/init",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            f"ssl0=null,fd:{wires.channel}",
            "uml_dir=./",  # relative: the path of the management socket must stay short
            "umid=uml",
            "loglevel=6",
        ]
        if wires.terminal is not None:
            words.append(f"ssl1=fd:{wires.terminal}")
        return Launch([*words, *spec.append.split()], {"TMPDIR": str(_memory_folder(spec, wires.folder))})

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        """Know no reason beyond the console."""
        return None

    def _root(self, spec: MachineSpec) -> tuple[Path, str]:
        if spec.root is not None:
            return spec.root, "/dev/ubda"
        if spec.disk is not None:
            return spec.disk.path, f"PARTUUID={spec.disk.root_partuuid}"
        raise MachineError("no root file system to boot", hint="make one with ./invoke image")


def _memory_folder(spec: MachineSpec, folder: Path) -> Path:
    """Return where UML keeps its memory: in the host's memory where that has room and may hold programs."""
    shared = Path("/dev/shm")
    try:
        room = shutil.disk_usage(shared).free
        noexec = os.statvfs(shared).f_flag & os.ST_NOEXEC
    except OSError:
        return folder
    if noexec or room < (spec.memory_mib + 64) * _MIB or not os.access(shared, os.W_OK):
        return folder
    return shared
