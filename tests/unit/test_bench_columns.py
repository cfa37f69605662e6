# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of the instruction counts: what is added, what the method resolves, which goals are missed."""

from __future__ import annotations

import pytest

from cloison_forge.bench import columns
from cloison_forge.bench.columns import COLUMNS, PLACEBO, REFERENCE, cells, geometric_mean, misses


def samples(**changes: float) -> dict[str, dict[str, list[float]]]:
    """Every column the same, except for instructions added to column_row."""
    base = {"getuid": [200.0, 202.0, 204.0], "fork+exit": [100_000.0, 101_000.0, 102_000.0]}
    result = {}
    for column in COLUMNS:
        key = column.name.split()[0]
        result[column.name] = {
            row: [value + changes.get(f"{key}_{row.split('+')[0]}", 0.0) for value in values]
            for row, values in base.items()
        }
    return result


def test_added_is_the_difference_in_the_same_placement() -> None:
    table = cells(samples(inside_fork=120.0))
    cell = table["inside a context"]["fork+exit"]
    assert cell.added == 120.0
    assert cell.percent == pytest.approx(100 * 120 / 101_000)
    assert table[REFERENCE]["fork+exit"].added == 0


def test_equal_columns_miss_nothing() -> None:
    assert misses(cells(samples())) == []


def test_a_worst_row_beyond_the_placebo_is_a_miss() -> None:
    found = misses(cells(samples(present_getuid=2.0)))
    assert any("present without contexts: getuid +0.99 %" in text for text in found)
    assert any("present without contexts: geometric mean" in text for text in found)


def test_what_the_placebo_moves_too_is_no_miss() -> None:
    assert misses(cells(samples(present_getuid=2.0, placebo_getuid=2.0))) == []


def test_fork_has_a_limit_in_instructions() -> None:
    assert misses(cells(samples(inside_fork=140.0))) == []
    assert any("fork+exit +160 instructions" in text for text in misses(cells(samples(inside_fork=160.0))))


def test_the_empty_loop_does_not_count() -> None:
    data = samples()
    for column, rows in data.items():
        rows["loop"] = [1.0, 1.0, 1.0] if column == REFERENCE else [2.0, 2.0, 2.0]
    assert geometric_mean(cells(data)["inside a context"]) == pytest.approx(0)


def test_goals_name_columns_that_exist() -> None:
    names = {column.name for column in COLUMNS}
    assert {goal.column for goal in columns.GOALS} <= names
    assert {REFERENCE, PLACEBO} <= names
