# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.stage import atomic_file
from cloison_forge.report.model import Report
from cloison_verify import vectors
from cloison_verify.vectors import Vector

GROUPS = {
    "P": "Processes",
    "F": "Files",
    "N": "Network",
    "I": "IPC and keys",
    "D": "Devices",
    "K": "Kernel",
    "R": "Resources",
    "L": "Leaks",
}


@dataclass(frozen=True)
class Square:
    """One row of the catalogue on the map: `state` is proven, failed, skipped or open."""

    vector: Vector
    state: str
    checks: str


def _states(report: Report) -> dict[str, tuple[str, list[str]]]:
    """Return the state of each row that a check of this report claims; the worst check decides."""
    order = {"failed": 3, "not_reported": 3, "passed": 2, "skipped": 1}
    names = {3: "failed", 2: "proven", 1: "skipped"}
    found: dict[str, tuple[int, list[str]]] = {}
    for row in report.rows:
        for vector in row.check.vectors:
            rank, checks = found.get(vector, (0, []))
            found[vector] = (max(rank, order[row.result.status]), [*checks, row.check.id])
    return {vector: (names[rank], checks) for vector, (rank, checks) in found.items()}


def squares(report: Report) -> dict[str, list[Square]]:
    """Return the catalogue as squares, by the name of the group."""
    states = _states(report)
    groups: dict[str, list[Square]] = {}
    for vector in vectors.load().values():
        state, checks = states.get(vector.id, ("open", []))
        groups.setdefault(GROUPS.get(vector.group, vector.group), []).append(Square(vector, state, ", ".join(checks)))
    return groups


def render(report: Report) -> str:
    """Return the page. Everything in it that came from a machine is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    groups = squares(report)
    everything = [square for group in groups.values() for square in group]
    return environment.get_template("page.html.j2").render(
        report=report,
        groups=groups,
        total=len(everything),
        proven=sum(square.state == "proven" for square in everything),
        good=report.status == 0,
        machine=report.provenance["machines"][0],
        statuses=("passed", "failed", "not_reported", "skipped"),
    )


def write(path: Path, report: Report) -> None:
    """Write the page, whole or not at all."""
    page = render(report)
    try:
        with atomic_file(path) as beside:
            beside.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="name another file for --html") from None
