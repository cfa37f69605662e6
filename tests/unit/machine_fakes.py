# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for tests: shell scripts that play one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloison_forge.machine import protocol
from cloison_forge.machine.job import Job, Share
from cloison_forge.machine.judge import Expected
from cloison_forge.machine.lane import Launch, MachineSpec, Wires
from cloison_forge.machine.outcome import Limits, Outcome
from cloison_forge.machine.supervisor import Run, Supervisor
from cloison_verify.catalogue import Check, instead, kernel_without
from cloison_verify.scene import Scene, Seen

NONCE = "00112233445566778899aabbccddeeff"
STREAMS = Path(__file__).parent / "streams"
KERNEL = "6.12.117-cloison"


def _never(_: Scene) -> Seen:
    raise AssertionError("probes of these checks do not run on the host")


# The checks that were run when the streams were captured, as the catalogue declared them then.
PLAN = (
    Check(
        "abi.ordinary-user",
        "an ordinary user sees no vserver kernel",
        "vserver(get_version) as user nobody",
        ("ENOSYS",),
        instead(_never, "0x00020308", "the same call as root"),
        _never,
    ),
    Check(
        "abi.unknown-command",
        "a word with a stray bit is no command",
        "vserver(get_version with bit 12 set)",
        ("ENOSYS",),
        instead(_never, "0x00020308", "the word without the stray bit"),
        _never,
    ),
    Check(
        "abi.version",
        "root reads the interface version",
        "vserver(get_version) as root",
        ("0x00020308",),
        kernel_without("ENOSYS"),
        _never,
    ),
)


@dataclass
class ScriptLane:
    """A lane whose machine is a shell script; ``$CHANNEL`` and ``$TERMINAL`` are its descriptors."""

    script: str
    lengths: Limits
    name: str = "uml"
    ways: tuple[str, ...] = ("direct",)
    patience: int = 1
    arch: str = "um"
    profile: str = "uml"
    channel: str = "/dev/ttyS0"
    terminal: str = "/dev/ttyS1"
    ending: str = "poweroff"
    reason: Outcome | None = None

    def limits(self, spec: MachineSpec) -> Limits:
        return self.lengths

    def share(self, folder: Path) -> Share:
        return Share("hostfs", str(folder))

    def launch(self, spec: MachineSpec, wires: Wires) -> Launch:
        env = {"CHANNEL": str(wires.channel), "TERMINAL": str(wires.terminal or ""), "STREAMS": str(STREAMS)}
        return Launch(["/bin/sh", "-c", self.script], env)

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        return self.reason


SHORT = Limits(firmware=0.4, kernel=0.4, runner=0.4, check_grace=-19.6, ending=0.4, power_off=0.4)


def play(
    folder: Path,
    script: str,
    *,
    plan: tuple[Check, ...] = PLAN,
    limits: Limits = SHORT,
    mode: str = "verify",
    release: str = "",
    reason: Outcome | None = None,
) -> Run:
    """Let a script play a machine that was given `plan`."""
    job = Job(mode, plan if mode == "verify" else (), nonce=NONCE)
    expected = Expected(NONCE, job.plan, release=release)
    return Supervisor(ScriptLane(script, limits, reason=reason), MachineSpec(None, job), expected, folder).run()


def hello(plan: tuple[Check, ...] = PLAN, **more: Any) -> dict[str, Any]:
    """Return the fields of a hello."""
    ids = "".join(f"{check.id}\n" for check in plan).encode()
    return {
        "t": "hello",
        "proto": 1,
        "nonce": NONCE,
        "uname": {"release": KERNEL, "version": "#1", "machine": "x86_64"},
        "series": "0x00020308",
        "config": None,
        "build_id": None,
        "plan": {"count": len(plan), "sha256": hashlib.sha256(ids).hexdigest()},
        **more,
    }


def end(check: Check, **more: Any) -> dict[str, Any]:
    """Return the fields of a good end."""
    control = check.control
    told: dict[str, Any] = {"kind": control.kind, "expected": control.expected[0], "seen": control.expected[0]}
    told["status"] = "passed"
    if control.kind == "kernel-without":
        told.update(seen=None, status="elsewhere")
    good = {"expected": check.expected[0], "seen": check.expected[0], "errno": None, "status": "passed"}
    return {"t": "end", "id": check.id, "ms": 5, "control": told, **good, **more}


def stream(*records: dict[str, Any], bye: bool = True, tainted: int = 0) -> bytes:
    """Return records as a machine sends them, bye included."""
    data = b"".join(protocol.encode(number, record) for number, record in enumerate(records))
    if bye:
        sha = hashlib.sha256(data).hexdigest()
        data += protocol.encode(len(records), {"t": "bye", "count": len(records), "sha256": sha, "tainted": tainted})
    return data


def good_records(plan: tuple[Check, ...] = PLAN) -> list[dict[str, Any]]:
    """Return the records of a good run without its bye."""
    return [hello(plan), *(record for check in plan for record in ({"t": "begin", "id": check.id}, end(check)))]
