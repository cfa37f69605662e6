# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of one verification: what every rendering is made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloison_forge.core.errors import ExitStatus
from cloison_forge.machine import verification
from cloison_forge.machine.judge import CheckResult
from cloison_forge.machine.lane import KernelLike
from cloison_forge.machine.supervisor import Run
from cloison_forge.machine.verification import Plan
from cloison_verify.catalogue import Check

SCHEMA = "cloison-verify-1"


@dataclass(frozen=True)
class Row:
    """One check with what came of it."""

    check: Check
    result: CheckResult

    @property
    def control(self) -> str:
        """The positive control in one word."""
        return self.result.control.status if self.result.control else "-"

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the report for programs."""
        result = self.result
        return {
            "id": self.check.id,
            "suite": self.check.suite,
            "vectors": list(self.check.vectors),
            "status": result.status,
            "control": asdict(result.control) if result.control else None,
            "detail": {
                "title": self.check.title,
                "attack": self.check.attack,
                "expected": " or ".join(self.check.expected),
                "seen": result.seen,
                "errno": result.errno,
                "reason": result.detail,
                "milliseconds": result.milliseconds,
                "note": result.note,
            },
        }


@dataclass(frozen=True)
class Report:
    """A whole verification.

    `way` is how the lane's machines were booted, `outcome` names how they ended ('ready' is the only good one),
    `problems` tells people.
    """

    lane: str
    way: str
    kernel: str
    outcome: str
    problems: list[str]
    rows: list[Row]
    folder: Path
    ready_seconds: float | None
    took_seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def count(self, status: str) -> int:
        """Return how many checks have this status."""
        return Counter(row.result.status for row in self.rows)[status]

    @property
    def planned(self) -> int:
        """Return how many checks were to run on this lane."""
        return len(self.rows) - self.count("skipped")

    @property
    def status(self) -> ExitStatus:
        """The exit status: a failed machine outweighs a failed check; nothing run is no success."""
        if self.problems or self.outcome != "ready":
            return ExitStatus.MACHINE
        return ExitStatus.GOOD if 0 < self.planned == self.count("passed") else ExitStatus.CHECK

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "schema": SCHEMA,
            "lane": self.lane,
            "way": self.way,
            "kernel": self.kernel,
            "outcome": self.outcome,
            "planned": self.planned,
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "skipped": self.count("skipped"),
            "not_reported": self.count("not_reported"),
            "checks": [row.as_json() for row in self.rows],
            "provenance": self.provenance,
        }


def build(
    plan: Plan, mains: Sequence[Run], control: Run | None, kernel: KernelLike | None, way: str = "direct"
) -> Report:
    """Bring the answers of the machines together."""
    problems = verification.machine_problems(mains, control)
    failed = next((run for run in mains if not run.good), None)
    outcome = str((failed or mains[0]).ending)
    if failed is None and control is not None and not control.good:
        outcome = f"machine without the series: {control.ending}"
    checks = {check.id: check for check in (*plan.checks, *plan.left_out)}
    results = verification.bring_together(plan, mains, control)
    times = [run.ready for run in mains if run.ready is not None]
    return Report(
        lane=plan.lane,
        way=way,
        kernel=_release(mains, kernel),
        outcome=outcome,
        problems=problems,
        rows=[Row(checks[result.id], result) for result in results],
        folder=(failed or mains[0]).folder,
        ready_seconds=min(times, default=None),
        took_seconds=max(run.took for run in mains),
        provenance=_provenance(mains, control, kernel, problems),
    )


def _release(mains: Sequence[Run], kernel: KernelLike | None) -> str:
    """Return the release that a machine itself told, else that of the kernel it was to run."""
    for run in mains:
        uname = (run.judge.hello or {}).get("uname")
        told = uname.get("release") if isinstance(uname, dict) else None
        if isinstance(told, str):
            return told
    return kernel.release if kernel else ""


def _provenance(
    mains: Sequence[Run], control: Run | None, kernel: KernelLike | None, problems: list[str]
) -> dict[str, Any]:
    def machine(run: Run) -> dict[str, Any]:
        return {
            "ending": str(run.ending),
            "detail": run.ending.detail,
            "accelerator": run.accelerator,
            "ready_seconds": round(run.ready, 3) if run.ready is not None else None,
            "seconds": round(run.took, 3),
            "checks": len(run.judge.results),
            "hello": run.judge.hello,
            "complaints": run.console.complaints,
        }

    return {
        "kernel": getattr(kernel, "provenance", {}),
        "machines": [machine(run) for run in mains],
        "control_machine": machine(control) if control else None,
        "problems": problems,
    }
