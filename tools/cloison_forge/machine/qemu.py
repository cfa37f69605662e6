# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane ``qemu``: an x86-64 machine, by direct kernel boot (PC or microvm) or by its disk through BIOS or UEFI."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloison_forge.core.errors import MachineError, UsageError
from cloison_forge.core.run import require
from cloison_forge.machine import kvm
from cloison_forge.machine.job import Share
from cloison_forge.machine.lane import Launch, MachineSpec, Wires
from cloison_forge.machine.outcome import Limits, Outcome

_CHANNEL, _SHELL = "cloison.channel", "cloison.shell"  # names of virtio ports
_OVMF = Path("/usr/share/OVMF")
BY_DISK = ("bios", "uefi")


class Qemu:
    """A machine under QEMU, with KVM where that works (`spec.accelerator` says), else emulated (TCG).

    Ways: ``direct`` (a PC that is handed the kernel), ``bios`` and ``uefi`` (a PC that boots its disk), ``microvm``
    (no PCI: virtio over MMIO, and the kernel handed over; no ACPI either, for a kernel whose clock a busy host
    calibrated wrong has no other timer then, and never boots; so it knows of one processor only).

    Disks are virtio and never written to: QEMU keeps what the guest writes in a temporary file.
    The first serial port is the console. The result channel and the shell have virtio ports: the
    emulated 16550 loses an interrupt now and then under load, and then stays silent for ever.
    """

    name = "qemu"
    ways: tuple[str, ...] = ("direct", *BY_DISK, "microvm")
    patience = 1
    arch = "x86_64"
    profile = "vm"
    channel = f"virtio-port:{_CHANNEL}"
    terminal = f"virtio-port:{_SHELL}"
    ending = "reboot"  # -no-reboot makes that the end, with or without ACPI

    def limits(self, spec: MachineSpec) -> Limits:
        """Return the limits: an emulated machine on a busy host needs minutes, a real one seconds."""
        if spec.accelerator == "kvm":
            return Limits(firmware=30, kernel=60, runner=60, ending=60, power_off=30)
        return Limits(firmware=180 if spec.way in BY_DISK else 90, kernel=300, runner=180, ending=120, power_off=60)

    def share(self, folder: Path) -> Share:
        """Share by 9p under a fixed tag."""
        return Share("9p", "share")

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        """Start QEMU without anything that is not named here."""
        path, root = _root_disk(spec)
        micro = spec.way == "microvm"
        bus = "device" if micro else "pci"
        kvm_works = spec.accelerator == "kvm"
        accelerator = ["-accel", "kvm", "-cpu", "host"] if kvm_works else ["-accel", "tcg", "-cpu", "max"]
        words = [
            *program("qemu"),
            *("-machine", "microvm,acpi=off" if micro else "q35", *accelerator),
            *("-m", str(spec.memory_mib), "-smp", "1" if micro else _processors(spec.processors)),
            *disk(path, "root", bus, first=spec.way in BY_DISK),
            *ports(spec, wires, bus),
        ]
        words += _by_disk(spec, wires.folder) if spec.way in BY_DISK else _kernel(spec, root)
        return Launch(words, {"TMPDIR": str(wires.folder)})

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        """Tell a KVM that does not work from a kernel that does not."""
        if spec.accelerator != "kvm":
            return None
        try:
            messages = (folder / "machine.log").read_text(encoding="utf-8", errors="replace")
            spoke = (folder / "console.log").stat().st_size > 0
        except OSError:
            return None
        return Outcome.KVM_BROKEN if kvm.broken_lines(messages) or not spoke else None


def program(lane: str) -> list[str]:
    """Return QEMU's name and the options that leave out everything that is not named."""
    found = require(kvm.PROGRAM, package="qemu-system-x86", why=f"for lane {lane}")
    return [found, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]


def disk(path: Path, name: str, bus: str = "pci", *, first: bool = False) -> list[str]:
    """Return the options of a disk that is never written to; `first` boots from it."""
    # Nobody writes to the image, and UML's lock on it (a shared one on all bytes) is more than QEMU bears.
    drive = f"file={_quoted(path.resolve())},file.locking=off,format=raw,if=none,id={name},snapshot=on"
    return ["-drive", drive, "-device", f"virtio-blk-{bus},drive={name}" + (",bootindex=0" if first else "")]


def ports(spec: MachineSpec, wires: Wires, bus: str = "pci") -> list[str]:
    """Return the options of console, result channel, job disk, random numbers, and of shell and share if asked for."""
    words = [
        *("-add-fd", f"fd={wires.channel},set=1"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", "file,id=channel,path=/dev/fdset/1,append=on"),
        *("-device", f"virtio-serial-{bus}", "-device", f"virtserialport,chardev=channel,name={_CHANNEL}"),
        *("-drive", f"file={_quoted(wires.job_disk)},format=raw,if=none,id=job,readonly=on"),
        *("-device", f"virtio-blk-{bus},drive=job"),
        *("-object", "rng-random,filename=/dev/urandom,id=rng", "-device", f"virtio-rng-{bus},rng=rng"),
    ]
    if wires.terminal is not None:
        words += ["-chardev", f"socket,id=terminal,fd={wires.terminal}"]
        words += ["-device", f"virtserialport,chardev=terminal,name={_SHELL}"]
    if spec.share is not None:
        folder = _quoted(spec.share.resolve())
        words += ["-fsdev", f"local,id=share,path={folder},security_model=none"]
        words += ["-device", f"virtio-9p-{bus},fsdev=share,mount_tag=share"]
    return words


def _processors(number: int) -> str:
    """Return the topology: pairs are two threads of one core, for only those have core scheduling (vector P38)."""
    return str(number) if number % 2 else f"{number},sockets=1,cores={number // 2},threads=2"


def _root_disk(spec: MachineSpec) -> tuple[Path, str]:
    """Return the file of the first disk and the kernel's name of the root file system on it."""
    if spec.disk is not None:
        return spec.disk.path.resolve(), f"PARTUUID={spec.disk.root_partuuid}"
    if spec.root is not None and spec.way not in BY_DISK:
        return spec.root.resolve(), "/dev/vda"
    raise MachineError("no disk to boot", hint="make one with ./invoke image")


def _kernel(spec: MachineSpec, root: str) -> list[str]:
    if spec.kernel is None:
        raise MachineError("no kernel to boot", hint="make one with ./invoke kernel")
    line = f"root={root} rw rootfstype=ext4 init=/usr/lib/cloison/init console=ttyS0 loglevel=6 panic=-1"
    if spec.way == "microvm":
        line += " reboot=t"  # with neither ACPI nor keyboard controller a kernel would jump to the firmware's entry
    line = f"{line} {spec.append}"
    return ["-kernel", str(spec.kernel.image.resolve()), "-append", line.strip()]


def _by_disk(spec: MachineSpec, folder: Path) -> list[str]:
    """Return the options of a boot through the disk's own boot loader."""
    if spec.append:
        raise UsageError(
            f"way '{spec.way}' takes no words for the kernel: its command line is the boot menu's",
            hint="way direct takes them",
        )
    if spec.way == "bios":
        return []  # QEMU's own
    code, variables = _OVMF / "OVMF_CODE_4M.fd", _OVMF / "OVMF_VARS_4M.fd"
    if not code.exists():
        raise MachineError("no UEFI firmware for QEMU", hint="apt-get install ovmf, or run ./invoke doctor")
    shutil.copyfile(variables, folder / "uefi-variables.fd")
    return [
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *("-drive", "if=pflash,format=raw,unit=1,file=uefi-variables.fd"),
    ]


def _quoted(path: Path) -> str:
    """Write a path as a value of a QEMU option, where a comma is doubled."""
    return str(path).replace(",", ",,")
