# SPDX-License-Identifier: GPL-2.0-or-later
"""What sockets pay for a network context, by the number of its addresses, beside a network namespace with veth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloison_forge.bench import campaign
from cloison_forge.bench.columns import PLACEMENTS
from cloison_forge.bench.icount import Setting
from cloison_forge.core import output, ui
from cloison_forge.pipeline import Request

SCHEMA = "cloison-bench-network-1"
REFERENCE = "series absent"


@dataclass(frozen=True)
class Place:
    """Where the servers are made: a build variant, and the benchmark's own options."""

    name: str
    variant: str
    options: str


PLACES = (
    Place(REFERENCE, "absent", "bench.place=host"),
    Place("present without contexts", "on", "bench.place=host"),
    Place("context, 1 address", "on", "bench.place=context bench.addresses=1"),
    Place("100 addresses", "on", "bench.place=context bench.addresses=100"),
    Place("10,000 addresses", "on", "bench.place=context bench.addresses=10000"),
    Place("namespace with veth", "absent", "bench.place=netns"),
)

Samples = Mapping[str, Mapping[str, Sequence[float]]]  # place → row → one median of batches a placement


@dataclass(frozen=True)
class Figure:
    """One operation in one place: instructions, and what is added to the reference, placement by placement."""

    instructions: float
    added: float
    percent: float


def figures(samples: Samples) -> dict[str, dict[str, Figure]]:
    """Compare each place with the reference in the same placement; medians over the placements."""
    reference = samples[REFERENCE]
    return {
        place: {
            row: Figure(
                statistics.median(values),
                statistics.median(v - b for v, b in zip(values, reference[row], strict=True)),
                statistics.median(100 * (v / b - 1) for v, b in zip(values, reference[row], strict=True)),
            )
            for row, values in rows.items()
        }
        for place, rows in samples.items()
    }


def sample(request: Request) -> Samples:
    """Run every place in every placement."""
    built = campaign.kernels(request, (place.variant for place in PLACES))
    return campaign.medians(
        [
            (place.name, Setting(built[place.variant].image, f"bench.rows=net {place.options}", memory))
            for memory in PLACEMENTS
            for place in PLACES
        ]
    )


def measure(request: Request, *, json_path: str = "") -> None:
    """Measure, print the table, write the answer."""
    table = figures(sample(request))
    if json_path:
        answer = {place: {row: vars(figure) for row, figure in rows.items()} for place, rows in table.items()}
        output.write(json_path, {"schema": SCHEMA, "unit": "instructions an operation", "places": answer})
    if json_path != "-":
        _show(table)


def _show(table: Mapping[str, Mapping[str, Figure]]) -> None:
    heads = ["operation", REFERENCE, *(f"{place.name}: added" for place in PLACES[1:])]
    rows = [
        [
            row,
            f"{figure.instructions:.0f}",
            *(f"{table[p.name][row].added:+.0f} ({table[p.name][row].percent:+.2f} %)" for p in PLACES[1:]),
        ]
        for row, figure in table[REFERENCE].items()
    ]
    ui.table("instructions an operation, medians", heads, rows)
