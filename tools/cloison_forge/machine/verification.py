# SPDX-License-Identifier: GPL-2.0-or-later
"""One verification: plan, boot the control machine and the main machine, bring their answers together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloison_forge.core.errors import UsageError
from cloison_forge.machine.judge import CheckResult, ControlResult
from cloison_forge.machine.supervisor import Run
from cloison_verify import catalogue
from cloison_verify.catalogue import HOST_IMAGE, Check, KernelWithout


@dataclass(frozen=True)
class Plan:
    """What to run on a lane that boots its `way`: checks in order, and those that the catalogue leaves out there."""

    lane: str
    checks: tuple[Check, ...]
    left_out: tuple[Check, ...]
    way: str = ""
    image: str = HOST_IMAGE

    @property
    def for_control(self) -> tuple[Check, ...]:
        """The checks whose control runs in a machine without the series."""
        return tuple(check for check in self.checks if isinstance(check.control, KernelWithout))


def make_plan(lane: str, suite: str = "", way: str = "") -> Plan:
    """Plan the checks of a lane that boots `way`: all, or the suites and single checks that `suite` names.

    Commas separate the names. The machine has no say in it. All are those that run in the host image; others
    are run when they are named, without those of another image.
    """
    checks = catalogue.load()
    if not suite:
        checks = {name: check for name, check in checks.items() if check.image == HOST_IMAGE}
    suites = sorted({check.suite for check in checks.values()})
    names = set(suite.split(",")) if suite else set(suites)
    if unknown := sorted(names - set(suites) - set(checks)):
        what = "check" if "." in unknown[0] else "suite"
        raise UsageError(
            f"no {what} '{unknown[0]}'", hint=f"suites: {', '.join(suites)}; or checks, as a run lists them"
        )
    chosen = [check for check in checks.values() if names & {check.suite, check.id}]
    images = sorted({check.image for check in chosen})
    if len(images) > 1:
        raise UsageError(f"these checks run in different images: {', '.join(images)}", hint="name them one by one")
    here = tuple(check for check in chosen if not check.why_not_on(lane, way))
    left_out = tuple(check for check in chosen if check.why_not_on(lane, way))
    if not here:
        raise UsageError(f"no check of suite '{suite}' runs on lane '{lane}'", hint=left_out[0].why_not_on(lane, way))
    return Plan(lane, here, left_out, way, images[0])


def patient(plan: Plan, factor: int) -> Plan:
    """Return the plan with the time limits of its checks multiplied, at most to the longest that is allowed."""
    if factor == 1:
        return plan
    checks = tuple(replace(check, seconds=min(3600, check.seconds * factor)) for check in plan.checks)
    return replace(plan, checks=checks)


def bring_together(plan: Plan, mains: Sequence[Run], control: Run | None) -> list[CheckResult]:
    """Return the results of all checks, those left out included, in the order of the catalogue.

    Each check was in the plan of exactly one of the main machines; one that was in none counts as not reported.
    """
    told = {name: result for run in mains for name, result in run.judge.results.items()}
    results = [
        _with_control(check, told.get(check.id) or CheckResult(check.id, "not_reported", detail="in no plan"), control)
        for check in plan.checks
    ]
    results += [
        CheckResult(check.id, "skipped", detail=check.why_not_on(plan.lane, plan.way)) for check in plan.left_out
    ]
    return sorted(results, key=lambda result: result.id)


def _with_control(check: Check, result: CheckResult, control: Run | None) -> CheckResult:
    """Put the control machine's answer into a result whose control runs there."""
    if not isinstance(check.control, KernelWithout):
        return result
    wanted = " or ".join(check.control.expected)
    told = control.judge.results.get(check.id) if control is not None and control.good else None
    if told is None:
        reason = "did not run" if control is None else str(control.ending)
        verdict = ControlResult(check.control.kind, wanted, "", "missing")
        problem = f"its positive control is missing: the machine without the series: {reason}"
    else:
        good = told.status == "passed"
        verdict = ControlResult(check.control.kind, wanted, told.seen, "passed" if good else "failed")
        problem = "" if good else f"its positive control failed: {told.detail}"
    if result.status != "passed" or not problem:
        return replace(result, control=verdict)
    return replace(result, control=verdict, status="failed", detail=problem)


def machine_problems(mains: Sequence[Run], control: Run | None) -> list[str]:
    """Say what went wrong with the machines themselves; empty when they did all they had to."""
    problems = []
    for name, run in (*(("", run) for run in mains), ("machine without the series: ", control)):
        if run is not None and not run.good:
            problems.append(f"{name}{run.ending}" + (f": {run.ending.detail}" if run.ending.detail else ""))
    return problems
