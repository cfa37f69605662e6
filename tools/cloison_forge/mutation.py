# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke mutate`: turn off each hook of the series in turn, and name the check that notices.

The kernel of profile `mutate` takes the boot parameter `vserver.mutate=HOOK`. The checks do not know
of it. A hook whose absence no check notices is a survivor, and fails the run; so does a first run
with all hooks on that is not clean.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloison_forge.core import output, ui
from cloison_forge.core.errors import CheckError, ExitStatus, UsageError
from cloison_forge.core.paths import project
from cloison_forge.pipeline import Request

if TYPE_CHECKING:
    from cloison_forge.machine.inputs import Inputs

PROFILE = "mutate"
NEEDS = {"PERF_EVENT": "CONFIG_PERF_EVENTS"}
"""Hooks that stand behind an option of the kernel, which not every architecture has."""
_HOOK = re.compile(r"\bvx_hook\(([A-Z][A-Z0-9_]*)\)")


@dataclass(frozen=True)
class Mutant:
    """A hook that was off, the checks that failed without it, and how the machine ended."""

    hook: str
    caught_by: tuple[str, ...]
    outcome: str

    @property
    def survived(self) -> bool:
        """True if nothing noticed."""
        return not self.caught_by and self.outcome == "ready"


def hooks(series: Path) -> list[str]:
    """List the names of the hooks that a series adds to C files, in the order of its patches."""
    names: dict[str, None] = {}
    for entry in (series / "series").read_text(encoding="utf-8").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        code = True
        for line in (series / entry.strip()).read_text(encoding="utf-8").splitlines():
            if line.startswith("+++ "):
                code = line.split("\t")[0].endswith((".c", ".h"))  # documentation names hooks too
            if not code:
                continue
            if line.startswith("-"):
                for name in _HOOK.findall(line):
                    names.pop(name, None)
            if line.startswith("+"):
                names.update(dict.fromkeys(_HOOK.findall(line)))
    return list(names)


def mutate(request: Request, *, lane: str = "uml", only: str = "", json: str = "", jobs: int = 2) -> ExitStatus:
    """Run the checks of `lane` with each hook off (or those in `only`, separated by commas); report survivors."""
    from cloison_forge.machine import inputs
    from cloison_forge.machine.inputs import lane_named

    known = hooks(project().patches / request.kernel_line.series)
    chosen = only.split(",") if only else known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise UsageError(f"no hook '{unknown[0]}'", hint=f"hooks: {', '.join(known)}")
    wanted = Request(line=request.line, profile=PROFILE, offline=request.offline)
    machine = inputs.make(wanted, lane_named(lane))
    control = inputs.make(Request(line=request.line, variant="off"), lane_named(lane))
    assert machine.kernel is not None  # lanes that verify get a kernel of their own
    absent = _not_compiled(chosen, machine.kernel.config.read_text(encoding="utf-8"))
    for hook in absent:
        ui.note("mutate", f"{hook} is not compiled into the kernel of lane {lane}: another lane must try it")
    chosen = [hook for hook in chosen if hook not in absent]
    whole = _run(wanted, lane, "", machine=machine, control=control)
    if whole.caught_by or whole.outcome != "ready":
        raise CheckError(
            f"with all hooks on: {', '.join(whole.caught_by) or whole.outcome}",
            hint=f"./invoke verify --lane {lane} --profile {PROFILE} must pass before mutants mean anything",
        )
    progress = ui.Progress("mutate", "hooks", len(chosen))
    mutants = []
    # Processes, because each machine's supervisor answers signals, which only a main thread can.
    with ProcessPoolExecutor(jobs, initializer=_silence) as pool:
        trial = functools.partial(_run, wanted, lane, machine=machine, control=control)
        for mutant in pool.map(trial, chosen):
            mutants.append(mutant)
            progress.advance(detail=mutant.hook)
    progress.finish()
    return _report(mutants, lane, json)


def _not_compiled(names: Iterable[str], config: str) -> list[str]:
    """Return the hooks that a kernel of this configuration does not have."""
    return [name for name in names if name in NEEDS and f"\n{NEEDS[name]}=y\n" not in f"\n{config}\n"]


def _silence() -> None:
    """Keep the news of many machines at once off the terminal."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the life of the process)


def _run(request: Request, lane: str, hook: str, *, machine: Inputs, control: Inputs) -> Mutant:
    from cloison_forge.machine import api

    append = f"vserver.mutate={hook}" if hook else ""
    options = api.VerifyOptions(request=request, lane=lane, append=append, inputs=machine, control=control)
    report = api.verify_report(options)
    failed = tuple(row.check.id for row in report.rows if row.result.status not in ("passed", "skipped"))
    return Mutant(hook, failed, report.outcome)


def _report(mutants: Iterable[Mutant], lane: str, json: str) -> ExitStatus:
    listed = list(mutants)
    survivors = [mutant.hook for mutant in listed if mutant.survived]
    if json:
        answer = {
            "schema": "cloison-mutate-1",
            "lane": lane,
            "mutants": [{**asdict(mutant), "survived": mutant.survived} for mutant in listed],
            "survivors": survivors,
        }
        output.write(json, answer)
    if json != "-":
        rows = [[m.hook, _caught(m), str(len(m.caught_by))] for m in listed]
        ui.table(f"hooks turned off, lane {lane}", ["hook", "noticed by", "checks"], rows)
    if survivors:
        ui.report_error(
            CheckError(
                f"{len(survivors)} of {len(listed)} hooks can be turned off unnoticed: {', '.join(survivors)}",
                hint="write a check that fails without the hook, or remove the hook",
            )
        )
        return ExitStatus.CHECK
    ui.note("mutate", f"all {len(listed)} mutants were noticed")
    return ExitStatus.GOOD


def _caught(mutant: Mutant) -> str:
    if mutant.survived:
        return "NOTHING"
    if mutant.outcome != "ready" and not mutant.caught_by:
        return f"the machine: {mutant.outcome}"
    more = f" and {len(mutant.caught_by) - 3} more" if len(mutant.caught_by) > 3 else ""
    return ", ".join(mutant.caught_by[:3]) + more
