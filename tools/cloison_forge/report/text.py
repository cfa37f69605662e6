# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for people at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cloison_forge.core import ui
from cloison_forge.report.model import Report, Row
from cloison_verify.vectors import Vector

MOST = 25  # lines of explanation for each status; the reports have them all
MARKS = {"passed": "✓", "failed": "✗ failed", "skipped": "skipped", "not_reported": "✗ not reported"}


def _cells(row: Row) -> list[str]:
    result = row.result
    expected = " or ".join(row.check.expected)
    seen = result.seen or ("" if result.status == "passed" else result.detail)
    return [MARKS[result.status], row.check.id, expected, seen, result.errno or "-", row.control]


def summary(report: Report) -> str:
    """Return the counts in one line."""
    parts = [f"{report.count('passed')} of {report.planned} passed"]
    parts += [f"{report.count(name)} {name.replace('_', ' ')}" for name in ("failed", "not_reported", "skipped")]
    return ", ".join(part for part in parts if not part.startswith("0 ") or "of" in part)


def show(report: Report) -> None:
    """Print the table, why each check that did not pass did not, and the counts."""
    ui.table(
        f"lane {report.lane} ({report.way}), kernel {report.kernel}",
        ["", "check", "expected", "seen", "errno", "control"],
        [_cells(row) for row in report.rows],
    )
    for status in ("skipped", "not_reported", "failed"):
        rows = [row for row in report.rows if row.result.status == status]
        for row in rows[:MOST]:
            ui.say(f"{row.check.id}: {row.check.title}: {row.result.detail or row.result.status}")
        if len(rows) > MOST:
            ui.say(f"… and {len(rows) - MOST} more {status.replace('_', ' ')}")
    for row in report.rows:
        if row.result.note:
            ui.say(f"{row.check.id}: {row.result.note}")
    ui.note("verify", f"{summary(report)}; machine: {report.outcome}")


def show_coverage(missing: Sequence[Vector], total: int) -> None:
    """Print the rows of the catalogue that no check proves."""
    ui.table(
        "ways out that no check proves yet",
        ["row", "vector", "call or path", "must happen"],
        [[row.id, row.vector, row.call_or_path, row.must_happen] for row in missing],
    )
    groups = ", ".join(f"{group} {count}" for group, count in Counter(row.group for row in missing).items())
    ui.note("verify", f"{total - len(missing)} of {total} rows proven; open: {groups or 'none'}")
