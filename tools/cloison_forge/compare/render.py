# SPDX-License-Identifier: GPL-2.0-or-later
"""The table for people and programs: JSON, CSV, Markdown, and a picture (SVG)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape

from cloison_forge.compare.plan import IDLE, ROWS
from cloison_forge.compare.table import Cell, Line

SCHEMA = "cloison-compare-1"

# What others published, with the source of each; only what could be read there.
PUBLISHED = (
    (
        "Linux-VServer, inside a context, dbench, tbench, lmbench",
        "under 3 %",
        "C. Le Goater (IBM), LKML, 14 April 2006",
    ),
    ("UML, kernel builds and web serving", "20 to 30 % slower", "J. Dike, LKML, 30 April 2004"),
    ("QEMU TCG against hardware", "10 to 50 times slower", "Microsoft, documentation of Quicksand"),
    ("100 containers that run /bin/true, crun and runc", "1.69 s and 3.34 s", "README of crun"),
    ("Firecracker, start to /sbin/init", "at most 125 ms", "SPECIFICATION.md of Firecracker"),
)


def time_text(nanoseconds: float) -> str:
    """Write a time with three digits and the unit that fits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}" if nanoseconds < 999.5 * size else f"{nanoseconds / size:.0f} {unit}"
            )
    return f"{nanoseconds:.3g} ns"


def as_json(table: Sequence[Line], about: Mapping[str, object]) -> dict[str, object]:
    """Return the table for programs; times in nanoseconds."""
    return {
        "schema": SCHEMA,
        "unit": "ns",
        **about,
        "rows": dict(ROWS),
        "columns": [
            {
                "name": line.column.name,
                "title": line.column.title,
                "lane": line.column.machine.lane or "native",
                "way": line.column.machine.way,
                "variant": line.column.machine.variant if line.column.machine.lane else "",
                "reference": line.column.reference,
                "failure": line.failure,
                "clock": round(line.clock, 4),
                "mean_ratio": line.mean("ratio"),
                "mean_native": line.mean("native"),
                "idle_kib": {str(count): kib if isinstance(kib, int) else None for count, kib in line.memory.items()},
                "idle_missing": {str(count): why for count, why in line.memory.items() if isinstance(why, str)},
                "machine_kib": line.machine_memory,
                "rows": {row: asdict(cell) for row, cell in line.cells.items()},
            }
            for line in table
        ],
        "published": [{"what": what, "figure": figure, "source": source} for what, figure, source in PUBLISHED],
    }


def as_csv(table: Sequence[Line]) -> str:
    """Return a line for each cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["column", "row", "median_ns", "low_ns", "high_ns", "rounds", "ratio", "native", "kib", "reason"])
    for line in table:
        for row, cell in line.cells.items():
            figures = [cell.median, cell.low, cell.high, cell.rounds, cell.ratio, cell.native]
            texts = ["" if value is None else f"{value:.6g}" for value in figures]
            writer.writerow([line.column.name, row, *texts, "", cell.reason])
        memory = [("machine", line.machine_memory), *((f"idle{count}", kib) for count, kib in line.memory.items())]
        for row, kib in memory:
            if isinstance(kib, int):
                writer.writerow([line.column.name, row, *([""] * 6), kib, ""])
            elif kib is not None:
                writer.writerow([line.column.name, row, *([""] * 7), kib])
    return out.getvalue()


def _spread(cell: Cell) -> str:
    assert cell.median is not None
    assert cell.low is not None
    assert cell.high is not None
    return f"−{100 * (1 - cell.low / cell.median):.0f}/+{100 * (cell.high / cell.median - 1):.0f} %"


def _cell_text(cell: Cell) -> str:
    if cell.median is None:
        return "–"
    ratio = "" if cell.ratio is None else f", ×{cell.ratio:.3g}"
    return f"{time_text(cell.median)} ({_spread(cell)}){ratio}"


def _mean_text(line: Line, kind: str) -> str:
    mean = line.mean(kind)
    return "–" if mean is None else f"×{mean:.3g}"


def as_markdown(table: Sequence[Line], about: Mapping[str, object]) -> str:
    """Return the table for people: what was measured where, each column with its rows, and why cells are empty."""
    rows = list(table[0].cells) if table else []
    text = ["# What separation costs\n", *(f"- {name}: {value}" for name, value in about.items()), ""]
    text.append(
        "Each cell: median time of one operation (quartiles below and above it), × the plain kernel of the same kind "
        "of machine. The means are geometric, over all rows that have both figures.\n"
    )
    head = ["where", *(ROWS[row] for row in rows), "mean × plain", "mean × build host"]
    text.append("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for line in table:
        cells = [_cell_text(line.cells[row]) for row in rows]
        text.append(
            "| " + " | ".join([line.column.title, *cells, _mean_text(line, "ratio"), _mean_text(line, "native")]) + " |"
        )
    text += ["", *_memory_table(table)]
    empty = _reasons(table)
    if empty:
        text += ["", "Without figures:", "", *empty]
    text += ["", "Published by others:", "", *(f"- {what}: {figure} ({source})" for what, figure, source in PUBLISHED)]
    return "\n".join(text) + "\n"


def _memory_table(table: Sequence[Line]) -> list[str]:
    """Return the lines of the table of memory."""
    lines = [
        "Memory: KiB in use more with so many idle instances of one small program, seen in the machine; and what the "
        "machine itself took of the host when it was ready (proportional set size).",
        "",
        "| where | " + " | ".join(f"{count} idle" for count in IDLE) + " | the machine |",
        "|---|" + "---|" * (len(IDLE) + 1),
    ]
    for line in table:
        figures = [*line.memory.values(), line.machine_memory]
        texts = [f"{kib:,}" if isinstance(kib, int) else "–" for kib in figures]
        lines.append("| " + " | ".join([line.column.title, *texts]) + " |")
    return lines


def _reasons(table: Sequence[Line]) -> list[str]:
    """Say for each column which rows have no figures and why, a line for each reason."""
    found = []
    for line in table:
        grouped: dict[str, list[str]] = {}
        for row, cell in line.cells.items():
            if cell.median is None:
                grouped.setdefault(cell.reason, []).append(row)
        missing = {why: count for count, why in line.memory.items() if isinstance(why, str) and why != "not measured"}
        for why, count in missing.items():
            if why not in grouped:
                grouped[why] = [f"memory of {count} idle"]
        for reason, rows in grouped.items():
            which = "all rows" if len(rows) == len(line.cells) else ", ".join(rows)
            found.append(f"- {line.column.title} ({which}): {reason}")
    return found


_WIDTH, _LEFT, _BAR, _STEP = 1040, 350, 14, 22


def as_svg(table: Sequence[Line], about: Mapping[str, object]) -> str:
    """Draw each column's geometric mean against the build host, on a logarithmic scale, with the range of its rows."""
    drawn = [(line, line.mean("native")) for line in table]
    values = [cell.native for line in table for cell in line.cells.values() if cell.native is not None]
    top = max(10.0, *values) if values else 10.0
    bottom = min(0.5, *values) if values else 0.5
    height = 90 + _STEP * len(drawn)

    def x(value: float) -> float:
        span = math.log(top) - math.log(bottom)
        return _LEFT + (math.log(value) - math.log(bottom)) / span * (_WIDTH - _LEFT - 90)

    said = "; ".join(f"{name}: {value}" for name, value in about.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-size="16">Time of the same work, against the build host (1), logarithmic</text>',
        f'<text x="12" y="40" fill="#555555">{escape(said)}</text>',
    ]
    for power in range(math.floor(math.log10(bottom)) + 1, math.floor(math.log10(top)) + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="52" x2="{at:.1f}" y2="{height - 24}" stroke="#dddddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle" fill="#555555">{10.0**power:g}</text>')
    for number, (line, mean) in enumerate(drawn):
        parts += _bar(line, mean, 58 + _STEP * number, x)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(line: Line, mean: float | None, y: int, x: object) -> list[str]:
    """Draw one column: name, bar from 1 to its mean, a thin line over the range of its rows."""
    assert callable(x)
    label = f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(line.column.title)}</text>'
    if mean is None:
        reason = line.failure or next((cell.reason for cell in line.cells.values() if cell.reason), "")
        reason = reason or "the build host was not measured"
        return [label, f'<text x="{_LEFT}" y="{y + 11}" fill="#aa3333">{escape(reason[:90])}</text>']
    values = [cell.native for cell in line.cells.values() if cell.native is not None]
    begin, end = sorted((x(1.0), x(mean)))
    colour = {"context": "#2a7f4f", "plain": "#8094b0"}.get(line.column.surrounding, "#c08a3e")
    return [
        label,
        f'<rect x="{begin:.1f}" y="{y}" width="{max(1.0, end - begin):.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{x(min(values)):.1f}" y1="{y + 7}" x2="{x(max(values)):.1f}" y2="{y + 7}" stroke="#222222"/>',
        f'<text x="{x(max(values)) + 6:.1f}" y="{y + 11}">{mean:.3g}</text>',
    ]
