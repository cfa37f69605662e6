# SPDX-License-Identifier: GPL-2.0-or-later
"""Does KVM work? A device that opens says nothing: a guest has to run, within a time limit.

The verdict is remembered in the user's cache for this boot of the host and this QEMU. A real
machine that breaks under KVM later overrules a probe that went well.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from cloison_forge.core.errors import ToolMissingError
from cloison_forge.core.paths import project
from cloison_forge.core.run import require
from cloison_forge.core.stage import write_json

DEVICE = Path("/dev/kvm")
PROGRAM = "qemu-system-x86_64"
SECONDS = 10
_EXIT_PORT = 0xF4
_GOOD = 0x10
# mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp back to hlt: a boot sector that ends QEMU with a status of its own.
_SECTOR = bytes([0xBA, _EXIT_PORT, 0x00, 0xB0, _GOOD, 0xEE, 0xF4, 0xEB, 0xFD])
_BROKEN = re.compile(
    r"KVM internal error|emulation failure|failed to set MSR|kvm_buf_set_msrs|Assertion|kvm run failed"
    r"|failed to initialize kvm|Could not access KVM|KVM_(?:CREATE|RUN|SET|GET)\w* failed",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """Whether KVM can be used here, and why (one line for people)."""

    usable: bool
    reason: str


def broken_lines(text: str) -> str:
    """Return the first line of QEMU's messages that means a KVM that does not work, or nothing."""
    return next((line.strip()[:200] for line in text.splitlines() if _BROKEN.search(line)), "")


def probe() -> Verdict:
    """Return the remembered verdict, or run the probe guest (at most 10 seconds) and remember."""
    if not DEVICE.exists():
        return Verdict(False, f"{DEVICE} does not exist")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Verdict(False, f"{DEVICE} may not be opened by this user; the group kvm may")
    try:
        program = require(PROGRAM, package="qemu-system-x86", why="to probe KVM")
    except ToolMissingError as error:
        return Verdict(False, error.message)
    known = _remembered(program)
    if known is None:
        known = _run_guest(program)
        remember(known, program)
    return known


def remember(verdict: Verdict, program: str = PROGRAM) -> None:
    """Keep a verdict for this boot of the host and this QEMU."""
    write_json(_file(), {"for": _identity(program), **asdict(verdict)})


def _file() -> Path:
    return project().cache / "verdicts" / "kvm.json"


def _remembered(program: str) -> Verdict | None:
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
        if data.pop("for") == _identity(program):
            return Verdict(bool(data["usable"]), str(data["reason"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _identity(program: str) -> str:
    """Name this boot of the host and this QEMU."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    status = Path(require(program)).stat()
    return f"{boot} {status.st_size} {status.st_mtime_ns}"


def _run_guest(program: str) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="cloison-kvm-") as folder:
        sector = Path(folder) / "sector"
        sector.write_bytes(_SECTOR.ljust(510, b"\0") + b"\x55\xaa")
        command = [
            *(program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "64"),
            *("-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=4"),
            *("-drive", f"file={sector},format=raw,if=none,id=disk,readonly=on", "-device", "virtio-blk,drive=disk"),
        ]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, f"KVM is present but unusable: a guest did nothing within {SECONDS} s")
    if result.returncode == _GOOD << 1 | 1:
        return Verdict(True, "a probe guest ran under KVM")
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    reason = broken_lines(result.stderr) or (lines[-1].strip()[:200] if lines else f"status {result.returncode}")
    return Verdict(False, f"KVM is present but unusable: {reason}")
