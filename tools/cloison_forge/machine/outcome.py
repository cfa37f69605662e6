# SPDX-License-Identifier: GPL-2.0-or-later
"""How a machine can end, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a machine. Only READY is good: it spoke, did its job, and ended by itself."""

    READY = "ready"
    PANIC = "panic"
    OOPS = "oops"
    FIRMWARE_STUCK = "firmware-stuck"
    KVM_BROKEN = "kvm-broken"
    TIMEOUT = "timeout"
    NO_RESULT = "power-off-without-result"
    EXITED = "exited"
    WRONG_KERNEL = "wrong-kernel"
    BAD_STREAM = "bad-stream"
    FAULT = "job-fault"


class Stage(Enum):
    """How far a machine has come; each stage has a time limit."""

    FIRMWARE = "firmware"
    KERNEL = "kernel"
    RUNNER = "runner"
    CHECKS = "checks"
    ENDING = "ending"
    POWER_OFF = "power-off"


@dataclass(frozen=True)
class Ending:
    """An outcome with what a person wants to know about it."""

    outcome: Outcome
    detail: str = ""
    stage: Stage | None = None

    def __str__(self) -> str:
        if self.outcome is Outcome.TIMEOUT and self.stage is not None:
            return f"timeout at stage {self.stage.value}"
        return self.outcome.value


@dataclass(frozen=True)
class Limits:
    """Seconds that each stage may take. `check_grace` is added to a check's own limit."""

    firmware: float = 60
    kernel: float = 120
    runner: float = 150
    check_grace: float = 30
    ending: float = 60
    power_off: float = 30

    def of(self, stage: Stage, check_seconds: float = 0) -> float:
        """Return the limit of a stage, in seconds."""
        if stage is Stage.CHECKS:
            return check_seconds + self.check_grace
        value: float = getattr(self, stage.name.lower())
        return value
