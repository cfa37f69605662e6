# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark tasks: operations column by column, and the life of contexts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from cloison_forge.bench import campaign, columns, icount
from cloison_forge.bench.columns import COLUMNS, PLACEMENTS, Cell, Samples
from cloison_forge.bench.icount import Setting
from cloison_forge.core import output, ui
from cloison_forge.core.errors import CheckError, ExitStatus, UsageError
from cloison_forge.core.run import run
from cloison_forge.pipeline import Request

if TYPE_CHECKING:
    pass

LIFE_MEMORY = 2048  # MiB
PRESENT = (1, 100, 1000, 10000)
SHARE_DISK = 3 << 30  # bytes; holds a file of 1 GiB


def sample(request: Request, rows: str = "") -> tuple[Samples, dict[str, str]]:
    """Run every column in every placement; return the medians and the kernels' releases."""
    built = campaign.kernels(request, (column.variant for column in COLUMNS))
    options = f"bench.rows={rows}" if rows else ""
    samples = campaign.medians(
        [
            (column.name, Setting(built[column.variant].image, f"{column.options} {options}".strip(), memory))
            for memory in PLACEMENTS
            for column in COLUMNS
        ]
    )
    if not samples[columns.REFERENCE]:
        raise UsageError(f"no row '{rows}'", hint="see the table in tools/cloison_bench/micro.c")
    return samples, {variant: kernel.release for variant, kernel in built.items()}


def bench(request: Request, *, json_path: str = "", gate: bool = False, rows: str = "") -> ExitStatus:
    """Measure the columns, print the table, and with `gate` fail when a goal is missed beyond the placebo."""
    samples, releases = sample(request, rows)
    table = columns.cells(samples)
    missed = columns.misses(table)
    if json_path:
        output.write(json_path, _answer(table, releases, missed))
    if json_path != "-":
        _show(table)
    for text in missed:
        ui.warn(f"goal missed: {text}")
    if gate and missed:
        raise CheckError(f"{len(missed)} goals missed", hint="docs/bench.md says what stands behind each row")
    return ExitStatus.GOOD


def _answer(table: dict[str, dict[str, Cell]], releases: dict[str, str], missed: list[str]) -> dict[str, object]:
    qemu = run([icount.QEMU, "--version"]).output.splitlines()[0]
    return {
        "schema": "cloison-bench-1",
        "unit": "instructions an operation",
        "method": {
            "qemu": qemu,
            "command_line": icount.COMMAND_LINE,
            "clock": icount.CLOCK,
            "placements_mib": PLACEMENTS,
            "statistic": "median over placements of the difference of medians of batches",
        },
        "kernels": releases,
        "columns": {name: {row: asdict(cell) for row, cell in column.items()} for name, column in table.items()},
        "geometric_mean_percent": {name: columns.geometric_mean(column) for name, column in table.items()},
        "missed": missed,
    }


def _show(table: dict[str, dict[str, Cell]]) -> None:
    heads = ["operation", columns.REFERENCE, *(f"{column.name}: added" for column in COLUMNS[1:])]
    rows = []
    for row, cell in table[columns.REFERENCE].items():
        others = [table[column.name][row] for column in COLUMNS[1:]]
        rows.append([row, f"{cell.instructions:.1f}", *(f"{c.added:+.1f} ({c.percent:+.3f} %)" for c in others)])
    means = [columns.geometric_mean(table[column.name]) for column in COLUMNS[1:]]
    rows.append(["geometric mean", "", *(f"{mean:+.3f} %" for mean in means)])
    ui.table("instructions an operation, medians", heads, rows)


def life(request: Request, *, json_path: str = "") -> None:
    """Measure create, enter and destroy with 1 to 10,000 contexts present, namespaces beside them, and shared files."""
    from cloison_forge import pipeline

    kernel = pipeline.kernel(replace(request, profile="vm"))
    icount.program()
    settings = [Setting(kernel.image, f"bench.rows=life bench.present={count}", LIFE_MEMORY) for count in PRESENT]
    progress = ui.Progress("bench", "machines", len(settings) + 1)
    measured: list[dict[str, object]] = []
    with icount.empty_xfs(SHARE_DISK) as disk, ThreadPoolExecutor(campaign.JOBS) as pool:
        settings.append(Setting(kernel.image, "bench.rows=share bench.disk=/dev/vda", LIFE_MEMORY, disk))
        for rows in pool.map(icount.measure, settings):
            measured += [row for row in rows if "row" in row]
            progress.advance()
    progress.finish()
    if json_path:
        output.write(json_path, {"schema": "cloison-bench-life-1", "unit": "instructions; KiB", "rows": measured})
    if json_path != "-":
        listed = [
            [
                str(row["row"]),
                str(row.get("present", row.get("count", ""))),
                str(row.get("median", "")),
                str(row.get("p98", "")),
                str(row.get("kib", "")),
            ]
            for row in measured
        ]
        ui.table("from birth to death, instructions", ["what", "present or held", "median", "p98", "KiB"], listed)
