# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke compare`: the same work everywhere, in one go; a machine that fails is a named row, never a gap."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloison_forge.compare import plan, render, table
from cloison_forge.compare.measuring import Result, measured
from cloison_forge.compare.plan import Machine, Sizes
from cloison_forge.core import hostpackages, output, ui
from cloison_forge.core.errors import ExitStatus, UsageError
from cloison_forge.core.paths import project
from cloison_forge.core.stage import atomic_file
from cloison_forge.pipeline import Request

QUIET = 0.25  # load for each processor above which figures are not to be published


@dataclass(frozen=True)
class Options:
    """What to compare: machines and rows by name (all if empty), rounds, milliseconds for each measurement.

    `full` measures slow machines as long as the others.
    """

    request: Request = field(default_factory=Request)
    machines: str = ""
    rows: str = ""
    rounds: int = 3
    milliseconds: int = 300
    full: bool = False
    out: str = ""
    json: str = ""


def processor(cpuinfo: str) -> str:
    """Return the processor's name as /proc/cpuinfo tells it."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def about(options: Options) -> dict[str, object]:
    """Return where and how was measured, and whether the machine was quiet when it began."""
    processors = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    quiet = "yes" if load <= QUIET * processors else f"NOT MEASURED UNDER QUIET: load {load:.1f} at the beginning"
    name = processor(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return {
        "machine": f"{processors} × {name}",
        "host kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "measured": f"{options.rounds} rounds of {options.milliseconds} ms for each figure"
        + ("" if options.full else "; in Xen and Bochs one round of a third of that"),
        "quiet": quiet,
    }


def collect(
    machines: tuple[Machine, ...], measure: Callable[[Machine], Result], results: dict[str, Result]
) -> BaseException | None:
    """Measure on one machine after the other into `results`; return what interrupted that, if something did."""
    for number, machine in enumerate(machines, 1):
        ui.note("compare", f"{number} of {len(machines)}: {machine.title}")
        begun = time.monotonic()
        try:
            result = measure(machine)
        except (KeyboardInterrupt, SystemExit) as interruption:
            results[machine.name] = Result(failure="interrupted")
            return interruption
        results[machine.name] = result
        verdict = "not here" if result.unavailable else "FAILED"
        state = f"{verdict}: {result.failure}" if result.failure else f"{len(result.told)} measurements"
        ui.note("compare", f"{machine.title}: {state}, {ui.seconds(time.monotonic() - begun)}")
    return None


def compare(options: Options) -> int:
    """Compare; write the files, print the table, and return the status: a machine that failed is status 3."""
    if options.rounds < 1 or options.milliseconds < 1:
        raise UsageError("rounds and milliseconds are at least 1", hint="./invoke --help compare")
    machines, rows = plan.chosen_machines(options.machines), plan.chosen_rows(options.rows)
    sizes = Sizes(rows, options.rounds, options.milliseconds, full=options.full)
    if "native" in {machine.name for machine in machines} and (names := " ".join(hostpackages.lacking("compare"))):
        ui.warn(f"columns of the build host will be missing: apt-get install {names}")
    said = about(options)
    results: dict[str, Result] = {}
    interruption = collect(machines, lambda machine: measured(machine, options.request, sizes), results)
    made = table.make(list(plan.columns(machines)), rows, results, options.rounds)
    folder = Path(options.out) if options.out else project().build / "reports" / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    answer = render.as_json(made, said)
    output.write(str(folder / "compare.json"), answer)
    for name, text in (
        ("compare.csv", render.as_csv(made)),
        ("compare.md", render.as_markdown(made, said)),
        ("compare.svg", render.as_svg(made, said)),
    ):
        with atomic_file(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    if options.json:
        output.write(options.json, answer)
    if options.json != "-":
        show(made)
        ui.note("compare", f"quiet: {said['quiet']}")
        ui.note("compare", f"table, picture and figures are in {folder}")
    if interruption is not None:
        raise interruption
    failed = any(result.failure and not result.unavailable for result in results.values())
    return ExitStatus.MACHINE if failed else ExitStatus.GOOD


def show(made: list[table.Line]) -> None:
    """Print the means of all columns, and why one has none."""
    lines = []
    for line in made:
        ratio, native = line.mean("ratio"), line.mean("native")
        texts = ["–" if mean is None else f"{mean:.3f}" for mean in (ratio, native)]
        count = sum(cell.median is not None for cell in line.cells.values())
        reason = line.failure or next((cell.reason for cell in line.cells.values() if cell.reason), "")
        lines.append([line.column.title, *texts, f"{count} of {len(line.cells)}", reason])
    ui.table("what separation costs", ["where", "× plain kernel", "× build host", "rows", "missing because"], lines)
