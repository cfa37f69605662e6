# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane ``xen``: Debian's hypervisor in QEMU's emulator, our kernel as its first domain or as a guest of that."""

from __future__ import annotations

from pathlib import Path

from cloison_forge.core.errors import MachineError, UsageError
from cloison_forge.machine import qemu, xen_guest
from cloison_forge.machine.job import Job, Share
from cloison_forge.machine.lane import Launch, MachineSpec, Wires
from cloison_forge.machine.outcome import Limits, Outcome

GUESTS = ("pv",)  # QEMU 7.2 emulates the processor's help for type pvh, but a guest's first program dies under it
_HYPERVISOR_MIB = 192  # for Xen itself, and the tables that it keeps of the rest
# QEMU's own choice (max) is more than Xen bears, and an AMD is asked for a register that QEMU does not have.
_PROCESSOR = "Nehalem"
# One thread for all processors: with one each, QEMU before 8.1 now and then executes an old int3 after a kernel has
# patched itself, and the kernel dies of it (ClangBuiltLinux/boot-utils#111).
_EMULATOR = "tcg,thread=single"
_LINE = "rw rootfstype=ext4 init=/usr/lib/cloison/init console=hvc0 loglevel=6 panic=-1"


class Xen:
    """Xen under QEMU. Ways: ``dom0`` (our kernel as first domain) and ``pv`` (as a guest of that as well).

    The first domain has a PC's virtio devices. A guest gets the same disk image a second time, through Xen's
    own block devices, and the real job; the first domain's job is to start it and to hand on its results.
    """

    name = "xen"
    ways: tuple[str, ...] = ("dom0", *GUESTS)
    patience = 6
    arch = "x86_64"
    profile = "vm"
    channel = qemu.Qemu.channel
    terminal = qemu.Qemu.terminal
    ending = "reboot"

    def limits(self, spec: MachineSpec) -> Limits:
        """Return the limits: a hypervisor boots before the kernel, and for a guest all of a first domain too."""
        kernel = 900 if spec.way in GUESTS else 450
        return Limits(firmware=180, kernel=kernel, runner=420, check_grace=60, ending=180, power_off=180)

    def share(self, folder: Path) -> Share:
        """Share by 9p under a fixed tag."""
        return Share("9p", "share")

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        """Start QEMU with Xen as its kernel, and our kernel with its command line as Xen's first module."""
        if spec.kernel is None or spec.disk is None or spec.hypervisor is None:
            raise MachineError("no kernel, disk or hypervisor to boot", hint="this lane boots the image of profile vm")
        guest = spec.way in GUESTS
        if guest and (spec.job.mode == "shell" or spec.share is not None):
            raise UsageError(f"way '{spec.way}' has neither shell nor shared folder", hint="way dom0 has both")
        if "," in str(spec.kernel.image.resolve()):
            raise UsageError("QEMU takes no kernel for Xen from a path with a comma", hint="move the checkout")
        root = f"root=PARTUUID={spec.disk.root_partuuid} {_LINE}"
        memory = spec.memory_mib + _HYPERVISOR_MIB + (xen_guest.MEMORY_MIB if guest else 0)
        words = [
            *qemu.program("xen"),
            *("-machine", "q35", "-accel", _EMULATOR),
            *("-cpu", _PROCESSOR, "-m", str(memory), "-smp", str(spec.processors)),
            *qemu.disk(spec.disk.path, "root"),
            *qemu.ports(spec, wires),
        ]
        if guest:
            job = self._relay(spec, wires, f"{root} {spec.append}".strip())
            words += [*qemu.disk(spec.disk.path, "guest"), *qemu.disk(job, "inner")]
        line = root if guest else f"{root} {spec.append}".strip()
        options = f"console=com1 com1=115200,8n1 dom0_mem={spec.memory_mib}M dom0_max_vcpus={spec.processors}"
        # A comma would begin another module; doubled it is one.
        module = f"{spec.kernel.image.resolve()} {line}".replace(",", ",,")
        words += ["-kernel", str(spec.hypervisor.resolve()), "-append", options, "-initrd", module]
        return Launch(words, {"TMPDIR": str(wires.folder)})

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        """Know no reason beyond the console."""
        return None

    def _relay(self, spec: MachineSpec, wires: Wires, line: str) -> Path:
        """Put the job on a disk for the guest, and the job to carry it on the first domain's; return the former."""
        inner = wires.folder / "guest-job.tar"
        spec.job.write(inner, channel="/dev/xvdc", terminal="", ending="poweroff")
        script = Path(xen_guest.__file__).read_bytes()
        extra = {"relay.py": script, "relay.arguments": f"{spec.way}\n{line}".encode()}
        outer = Job("relay", extra=extra, nonce=spec.job.nonce)
        outer.write(wires.job_disk, channel=self.channel, terminal="", ending=self.ending)
        return inner
