# SPDX-License-Identifier: GPL-2.0-or-later
"""From what the machines told to a table: medians, their spread, ratios; every column has all rows or a reason."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloison_forge.compare.measuring import Result
from cloison_forge.compare.plan import IDLE, Column

NATIVE = "native.plain"


@dataclass(frozen=True)
class Cell:
    """One row in one column: nanoseconds for one operation (median over the rounds, and the range of the quartiles).

    `ratio` is to the plain kernel of the same kind of machine, `native` to the build host; both None where
    there is nothing to compare with. Without figures, `reason` says why.
    """

    median: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    ratio: float | None = None
    native: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """A column with its cells by row, and the geometric means of its ratios over the rows that have them.

    `memory` is what idle instances take, in KiB by their number (a text: why there is no figure); `machine_memory`
    what the machine took on the host.
    """

    column: Column
    cells: Mapping[str, Cell]
    memory: Mapping[int, int | str]
    machine_memory: int | None
    clock: float
    failure: str

    def mean(self, kind: str) -> float | None:
        """Return the geometric mean of the ratios of a kind: ``ratio`` or ``native``."""
        values = [value for cell in self.cells.values() if (value := getattr(cell, kind)) is not None]
        return math.exp(statistics.fmean(math.log(value) for value in values)) if values else None


def _number(told: Mapping[str, object], name: str) -> float | None:
    value = told.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _cell(column: Column, row: str, result: Result, rounds: int) -> Cell:
    """Bring the rounds of one row together."""
    factor = result.clock if column.machine.own_clock else 1.0
    told = [result.told.get(f"r{number}.{column.surrounding}.{row}") for number in range(rounds)]
    figures = [line for line in told if line is not None and "error" not in line]
    wrong = next((str(line["error"]) for line in told if line is not None and "error" in line), "")
    medians = [value * factor for line in figures if (value := _number(line, "median"))]
    if wrong or not medians:
        return Cell(reason=wrong or result.failure or "the machine told nothing")
    lows = [value * factor for line in figures if (value := _number(line, "low"))]
    highs = [value * factor for line in figures if (value := _number(line, "high"))]
    median = statistics.median(medians)
    return Cell(median, min([*lows, median]), max([*highs, median]), len(medians))


def _memory(column: Column, count: int, result: Result) -> int | str:
    told = result.told.get(f"r0.{column.surrounding}.idle{count}", {})
    kib = told.get("kib")
    return kib if isinstance(kib, int) else str(told.get("error") or result.failure or "not measured")


def _ratio(cell: Cell, reference: Cell | None) -> float | None:
    if cell.median is None or reference is None or reference.median is None:
        return None
    return cell.median / reference.median


def make(columns: Sequence[Column], rows: Sequence[str], results: Mapping[str, Result], rounds: int) -> list[Line]:
    """Make the table. A machine that has no result at all was not come to."""
    missing = Result(failure="not run: the comparison was interrupted before")
    cells: dict[str, dict[str, Cell]] = {}
    for column in columns:
        result = results.get(column.machine.name, missing)
        cells[column.name] = {row: _cell(column, row, result, rounds) for row in rows}
    table = []
    for column in columns:
        result = results.get(column.machine.name, missing)
        own, native = cells.get(column.reference, {}), cells.get(NATIVE, {})
        full = {
            row: Cell(**{**vars(cell), "ratio": _ratio(cell, own.get(row)), "native": _ratio(cell, native.get(row))})
            for row, cell in cells[column.name].items()
        }
        memory = {count: _memory(column, count, result) for count in IDLE}
        table.append(Line(column, full, memory, result.memory, result.clock, result.failure))
    return table
