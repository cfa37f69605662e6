# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane ``bochs``: the disk image in the Bochs emulator, from its BIOS up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cloison_forge.core.errors import MachineError, UsageError
from cloison_forge.core.run import require
from cloison_forge.machine import bochs_terminals
from cloison_forge.machine.job import Share
from cloison_forge.machine.lane import Launch, MachineSpec, Wires
from cloison_forge.machine.outcome import Limits, Outcome

_BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
_VGA_BIOS = Path("/usr/share/vgabios/vgabios.bin")
_CYLINDER = 16 * 63 * 512  # the least disk that Bochs has a geometry for, in bytes
_INSTRUCTIONS = 50_000_000  # in a second of the guest's clock; about what an ordinary processor emulates in a second
_POWER_OFF = "soft power off"  # the words of the panic by which Bochs ends when its guest powers off

# By powering off a guest makes Bochs end with a panic and status 1.
_SCRIPT = f"""\
"$@"
status=$?
[ $status = 1 ] && grep -aqs '{_POWER_OFF}' bochs.log && exit 0
grep -as PANIC bochs.log >&2
[ $status != 0 ] || status=1
exit $status
"""

# Athlon 64: of the processors that Bochs knows, one whose CPUID tells a topology that Linux believes.
# Volatile disks: what the guest writes goes to a file that ends with the machine.
_CONFIGURATION = """\
plugin_ctrl: speaker=0, gameport=0, parallel=0
config_interface: textconfig
display_library: term
cpu: model=athlon64_venice, count=1, ips={instructions}, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={bios}, options=fastboot
vgaromimage: file={vga_bios}
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path="{root}", mode=volatile, journal="root.redolog", cylinders=0
ata0-slave: type=disk, path="{job}", mode=volatile, journal="job.redolog", cylinders=0
boot: disk
clock: sync=none, time0=utc
com1: enabled=1, mode=file, dev=$CLOISON_CONSOLE
com2: enabled=1, mode=file, dev=$CLOISON_RESULTS
log: bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
mouse: enabled=0
sound: driver=dummy
"""


class Bochs:
    """A PC that is emulated instruction by instruction: an i440FX, one Athlon 64, ATA disks, serial ports.

    Its clock counts instructions, so the guest's time limits mean the same work on any host. The
    results leave by the second serial port; there is no way in, so neither shell nor shared folder.
    """

    name = "bochs"
    ways: tuple[str, ...] = ("bios",)
    patience = 6
    arch = "x86_64"
    profile = "vm"
    channel = "/dev/ttyS1"
    terminal = ""
    ending = "poweroff"

    def limits(self, spec: MachineSpec) -> Limits:
        """Return the limits: the loader reads the kernel in real mode, and all is twenty times slower than TCG."""
        return Limits(firmware=300, kernel=600, runner=600, check_grace=300, ending=300, power_off=120)

    def share(self, folder: Path) -> Share:
        """Refuse: there is no device for it."""
        raise UsageError("lane 'bochs' shares no folder", hint="lanes uml and qemu do")

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        """Write Bochs' configuration, and start it on a terminal of its own."""
        if spec.append:
            raise UsageError("lane 'bochs' takes no words for the kernel: its command line is the boot menu's")
        if spec.disk is None:
            raise MachineError("no disk to boot", hint="make one with ./invoke image; this lane boots nothing else")
        program = require("bochs-bin", package="bochs", why="for lane bochs")
        for path, package in ((_BIOS, "bochsbios"), (_VGA_BIOS, "vgabios")):
            if not path.exists():
                raise MachineError(
                    f"no {path.name} for Bochs", hint=f"apt-get install {package}, or run ./invoke doctor"
                )
        size = wires.job_disk.stat().st_size
        os.truncate(wires.job_disk, -(-size // _CYLINDER) * _CYLINDER)
        values = {
            "instructions": _INSTRUCTIONS,
            "memory": spec.memory_mib,
            "bios": _BIOS,
            "vga_bios": _VGA_BIOS,
            "root": _path(spec.disk.path),
            "job": _path(wires.job_disk),
        }
        (wires.folder / "bochsrc").write_text(_CONFIGURATION.format(**values), encoding="utf-8")
        (wires.folder / "commands").write_text("c\n", encoding="ascii")  # Debian's Bochs has the debugger: continue
        terminals = [sys.executable, "-I", str(Path(bochs_terminals.__file__)), str(wires.channel)]
        words = [*terminals, program, "-q", "-f", "bochsrc", "-rc", "commands"]
        env = {"TERM": "vt100", "TMPDIR": str(wires.folder)}
        return Launch(["/bin/sh", "-c", _SCRIPT, "bochs", *words], env)

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        """Know no reason beyond the console."""
        return None


def _path(path: Path) -> str:
    """Return a path for Bochs' configuration, which has no way to write a quotation mark in one."""
    text = str(path.resolve())
    if '"' in text or "\n" in text:
        raise UsageError(f"lane 'bochs' cannot open {text}", hint="a path without quotation marks will do")
    return text
