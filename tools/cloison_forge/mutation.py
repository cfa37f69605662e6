# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke mutate`: turn off each hook of the series in turn, and name the check that notices.

The kernel of profile `mutate` takes the boot parameter `vserver.mutate=HOOK`. The checks do not know
of it. A hook whose absence no check notices is a survivor, and fails the run; so does a first run
with all hooks on that is not clean. `mutants.csv` remembers who noticed, so that a run need not try
every check on every mutant: what it says is proven again each time, or else all checks are tried.
"""

from __future__ import annotations

import csv
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

PROFILES = {"uml": "mutate", "qemu": "mutate-vm"}
JOBS = 2
MEMORY = project().root / "tools" / "cloison_verify" / "mutants.csv"
NEEDS = {"PERF_EVENT": "CONFIG_PERF_EVENTS", "PERF_KERNEL": "CONFIG_PERF_EVENTS", "KEXEC": "CONFIG_KEXEC_CORE"}
"""Hooks that stand behind an option of the kernel, which not every architecture has."""
_HOOK = re.compile(r"\bvx_hook\(([A-Z][A-Z0-9_]*)\)")


@dataclass(frozen=True)
class Mutant:
    """A hook that was off, the lane, the checks that failed without it, and how the machine ended."""

    hook: str
    lane: str
    caught_by: tuple[str, ...]
    outcome: str

    @property
    def survived(self) -> bool:
        """True if nothing noticed."""
        return not self.caught_by and self.outcome == "ready"


def hooks(series: Path) -> list[str]:
    """List the names of the hooks that a series adds to C files, in the order of its patches."""
    names: dict[str, int] = {}  # places; one that moves to another file is there twice for a while
    for entry in (series / "series").read_text(encoding="utf-8").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        code = True
        for line in (series / entry.strip()).read_text(encoding="utf-8").splitlines():
            if line.startswith("+++ "):
                code = line.split("\t")[0].endswith((".c", ".h"))  # documentation names hooks too
            if not code:
                continue
            if line.startswith(("+", "-")):
                for name in _HOOK.findall(line):
                    names[name] = names.get(name, 0) + (1 if line.startswith("+") else -1)
    return [name for name, places in names.items() if places > 0]


def remembered() -> dict[str, str]:
    """Return which check noticed each hook's absence before: it is asked first, and alone if it still does."""
    with MEMORY.open(encoding="utf-8", newline="") as lines:
        return {row["hook"]: row["check"] for row in csv.DictReader(lines)}


def mutate(request: Request, *, lane: str = "", only: str = "", json: str = "", record: bool = False) -> ExitStatus:
    """Run the checks with each hook off (or those in `only`, separated by commas); report survivors.

    Without a `lane`, lane uml tries all hooks that its kernel has, and lane qemu the others. `record` writes
    the checks that noticed to the memory of the next run.
    """
    known = hooks(project().patches / request.kernel_line.series)
    chosen = only.split(",") if only else known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise UsageError(f"no hook '{unknown[0]}'", hint=f"hooks: {', '.join(known)}")
    mutants: list[Mutant] = []
    for name in [lane] if lane else list(PROFILES):
        tried = _try_lane(request, name, [hook for hook in chosen if hook not in {m.hook for m in mutants}])
        mutants += tried
    left = sorted(set(chosen) - {mutant.hook for mutant in mutants})
    for hook in left:
        ui.note("mutate", f"{hook} is not compiled into the kernel of lane {lane}: another lane must try it")
    if record:
        _record(mutants, known)
    return _report(mutants, json)


def _try_lane(request: Request, lane: str, chosen: list[str]) -> list[Mutant]:
    """Try those of the chosen hooks that the kernel of this lane has."""
    from cloison_forge.machine import inputs
    from cloison_forge.machine.inputs import lane_named

    if not chosen:
        return []
    where = lane_named(lane)
    if lane not in PROFILES:
        raise UsageError(f"lane '{lane}' has no kernel for mutants", hint=f"lanes: {', '.join(PROFILES)}")
    wanted = Request(line=request.line, profile=PROFILES[lane], offline=request.offline)
    machine = inputs.make(wanted, where)
    assert machine.kernel is not None  # lanes that verify get a kernel of their own
    config = machine.kernel.config.read_text(encoding="utf-8")
    absent = _not_compiled(chosen, config)
    chosen = [hook for hook in chosen if hook not in absent]
    if not chosen:
        return []
    # Any other lane's controls run in uml too; then verify makes that kernel ready itself.
    control = inputs.make(Request(line=request.line, variant="off"), where) if lane == "uml" else None
    trial = Trial(wanted, lane, machine, control)
    memory = remembered()
    first = memory.get(chosen[0], "") if len(chosen) == 1 else ""
    whole = trial.run("", first)
    if whole.caught_by or whole.outcome != "ready":
        raise CheckError(
            f"lane {lane}, with all hooks on: {', '.join(whole.caught_by) or whole.outcome}",
            hint=f"./invoke verify --lane {lane} --profile {PROFILES[lane]} must pass before mutants mean anything",
        )
    progress = ui.Progress("mutate", f"hooks, lane {lane}", len(chosen))
    mutants = []
    # Processes, because each machine's supervisor answers signals, which only a main thread can.
    with ProcessPoolExecutor(JOBS, initializer=_silence) as pool:
        for mutant in pool.map(functools.partial(trial.mutant, memory), chosen):
            mutants.append(mutant)
            progress.advance(detail=mutant.hook)
            if mutant.survived:
                ui.note("mutate", f"nothing noticed that {mutant.hook} was off")
    progress.finish()
    return mutants


@dataclass(frozen=True)
class Trial:
    """A lane with its kernel of mutants, and the kernel of the controls (None: verify's own choice)."""

    request: Request
    lane: str
    machine: Inputs
    control: Inputs | None

    def run(self, hook: str, suite: str = "") -> Mutant:
        """Run the checks of `suite` ('' for all) with `hook` off ('' for none)."""
        from cloison_forge.machine import api

        options = api.VerifyOptions(
            request=self.request,
            lane=self.lane,
            suite=suite,
            append=f"vserver.mutate={hook}" if hook else "",
            jobs=None if hook else JOBS,
            inputs=self.machine,
            control=self.control,
        )
        report = api.verify_report(options)
        failed = tuple(row.check.id for row in report.rows if row.result.status not in ("passed", "skipped"))
        return Mutant(hook, self.lane, failed, report.outcome)

    def mutant(self, memory: dict[str, str], hook: str) -> Mutant:
        """Turn `hook` off; ask the check that noticed before, and all of them if it does no more."""
        from cloison_verify import catalogue

        check = catalogue.load().get(memory.get(hook, ""))
        if check and self.lane not in check.not_on:
            found = self.run(hook, check.id)
            if not found.survived:
                return found
        return self.run(hook)


def _record(mutants: Iterable[Mutant], known: Iterable[str]) -> None:
    """Write who noticed; what noticed before and still does, stays, and so does what was not tried."""
    before = remembered()
    memory = {hook: check for hook, check in before.items() if hook in set(known)}
    for mutant in mutants:
        if mutant.caught_by:
            old = before.get(mutant.hook, "")
            memory[mutant.hook] = old if old in mutant.caught_by else mutant.caught_by[0]
        elif mutant.survived:
            memory.pop(mutant.hook, None)
    with MEMORY.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["hook", "check"])
        writer.writerows(sorted(memory.items()))


def _not_compiled(names: Iterable[str], config: str) -> list[str]:
    """Return the hooks that a kernel of this configuration does not have."""
    return [name for name in names if name in NEEDS and f"\n{NEEDS[name]}=y\n" not in f"\n{config}\n"]


def _silence() -> None:
    """Keep the news of many machines at once off the terminal."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the life of the process)


def _report(mutants: Iterable[Mutant], json: str) -> ExitStatus:
    listed = list(mutants)
    survivors = [mutant.hook for mutant in listed if mutant.survived]
    if json:
        answer = {
            "schema": "cloison-mutate-1",
            "mutants": [{**asdict(mutant), "survived": mutant.survived} for mutant in listed],
            "survivors": survivors,
        }
        output.write(json, answer)
    if json != "-":
        rows = [[mutant.hook, mutant.lane, _caught(mutant)] for mutant in listed]
        ui.table("hooks turned off", ["hook", "lane", "noticed by"], rows)
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
