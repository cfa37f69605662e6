# SPDX-License-Identifier: GPL-2.0-or-later
"""The series' own unit tests: a kernel of profile ``kunit`` runs them while it boots, in lane ``uml``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cloison_forge.core import output, ui
from cloison_forge.core.errors import ExitStatus
from cloison_forge.machine import api
from cloison_forge.machine import inputs as machine_inputs
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.job import Job
from cloison_forge.machine.lane import MachineSpec
from cloison_forge.machine.supervisor import Run
from cloison_forge.pipeline import Request
from cloison_forge.report import ktap

LANE = "uml"
SCHEMA = "cloison-kunit-1"


def read(run: Run) -> ktap.Test:
    """Read the results off the console of a machine that has ended."""
    text = (run.folder / "console.log").read_text(encoding="utf-8", errors="replace")
    return ktap.parse(text, "kunit")


def run_kunit(request: Request, inputs: Inputs | None = None) -> tuple[Run, ktap.Test]:
    """Boot the kernel with its tests; return the machine and what its tests said.

    The machine must come up and end as any other: an oops in a test fails the run whatever the test says.
    A kernel whose configuration says nothing of `KUNIT_DEFAULT_ENABLED` runs its tests only when told to.
    """
    lane = machine_inputs.lane_named(LANE)
    what = inputs or machine_inputs.make(replace(request, profile="kunit"), lane)
    job = Job("boot")
    spec = MachineSpec(what.kernel, job, root=what.root, memory_mib=what.memory_mib, append="loglevel=7 kunit.enable=1")
    run = api.run_machine(lane, spec, api.expected(what, job), request.line)
    return run, read(run)


def kunit(request: Request, json: str = "", inputs: Inputs | None = None) -> int:
    """Run the tests, print a table, write JSON if asked for, and return the status."""
    run, result = run_kunit(request, inputs)
    leaves = result.leaves()
    rows = [[suite.name, leaf.name, leaf.status] for suite in result.children for leaf in suite.leaves()]
    if json:
        output.write(json, {"schema": SCHEMA, "outcome": str(run.ending), "tests": rows, "status": result.status})
    if json != "-":
        ui.table("KUnit", ["suite", "test", "status"], rows)
    for problem in result.all_problems():
        ui.say(f"kunit: {problem}")
    if not run.good:
        raise api.failure(run, "lane uml, profile kunit")
    counts = ", ".join(
        f"{sum(leaf.status == status for leaf in leaves)} {status}" for status in ("passed", "failed", "skipped")
    )
    ui.note("kunit", f"{counts}; console in {_short(run.folder)}")
    return ExitStatus.GOOD if ktap.passed([result]) else ExitStatus.CHECK


def _short(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
