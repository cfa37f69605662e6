# SPDX-License-Identifier: GPL-2.0-or-later
"""The columns of the comparison, their statistics, and the goals they are held against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

PLACEMENTS = (256, 260, 264, 268, 272, 280, 288, 304)  # memory in MiB
REFERENCE = "series absent"
PLACEBO = "placebo"


@dataclass(frozen=True)
class Column:
    """One way to run the rows: a build variant, and whether they run inside a context."""

    name: str
    variant: str
    options: str = ""


COLUMNS = (
    Column(REFERENCE, "absent"),
    Column(PLACEBO, "placebo"),
    Column("present without contexts", "on"),
    Column("inside a context", "on", "bench.context=1"),
)

Samples = Mapping[str, Mapping[str, list[float]]]  # column → row → one median of batches a placement, instructions


@dataclass(frozen=True)
class Cell:
    """One row in one column: instructions an operation, and what was added to the reference."""

    instructions: float
    added: float
    percent: float
    placebo_percent: float  # how far the placebo moved this row: what the method cannot resolve

    @property
    def beyond(self) -> float:
        """Per cent added beyond what the placebo moved the row (0 if within)."""
        return math.copysign(max(0.0, abs(self.percent) - abs(self.placebo_percent)), self.percent)


@dataclass(frozen=True)
class Goal:
    """A figure to reach in one column: geometric mean and worst row, in per cent; most instructions for a row."""

    column: str
    mean: float
    worst: float
    row_limits: Mapping[str, float]


# DESIGN.md, the figures to beat: getppid reads another task's number and has a limit of its own.
GOALS = (
    Goal("present without contexts", 0.05, 0.3, {"getppid": 4}),
    Goal("inside a context", 0.2, 1.0, {"getppid": 12, "fork+exit": 150}),
)


def cells(samples: Samples) -> dict[str, dict[str, Cell]]:
    """Compare each column with the reference, placement by placement; medians over the placements."""
    reference = samples[REFERENCE]
    result: dict[str, dict[str, Cell]] = {}
    for column, rows in samples.items():
        result[column] = {}
        for row, values in rows.items():
            base = reference[row]
            added = statistics.median(v - b for v, b in zip(values, base, strict=True))
            percent = statistics.median(100 * (v / b - 1) for v, b in zip(values, base, strict=True))
            moved = statistics.median(100 * (v / b - 1) for v, b in zip(samples[PLACEBO][row], base, strict=True))
            result[column][row] = Cell(statistics.median(values), added, percent, moved)
    return result


def geometric_mean(column: Mapping[str, Cell]) -> float:
    """Return the geometric mean of a column's ratios to the reference, as per cent added."""
    logs = [math.log1p(cell.percent / 100) for row, cell in column.items() if row != "loop"]
    return 100 * math.expm1(statistics.fmean(logs))


def misses(table: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """List the goals that are missed, beyond what the placebo moves."""
    found = []
    doubt = abs(geometric_mean(table[PLACEBO]))
    for goal in GOALS:
        column = table[goal.column]
        mean = geometric_mean(column)
        if mean - doubt > goal.mean:
            found.append(
                f"{goal.column}: geometric mean {mean:+.3f} %, goal {goal.mean} % (the placebo moved {doubt:.3f} %)"
            )
        for row, cell in column.items():
            if row == "loop":
                continue
            limit = goal.row_limits.get(row)
            if limit is not None:
                if cell.added > limit and cell.beyond > 0:
                    found.append(f"{goal.column}: {row} {cell.added:+.0f} instructions, goal {limit:.0f}")
            elif cell.beyond > goal.worst:
                found.append(f"{goal.column}: {row} {cell.percent:+.2f} %, goal {goal.worst} %")
    return found
