# SPDX-License-Identifier: GPL-2.0-or-later
"""What sockets pay for a network context, by the number of its addresses, beside a network namespace with veth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cloison_forge.bench import icount
from cloison_forge.bench.columns import PLACEMENTS
from cloison_forge.bench.icount import Setting
from cloison_forge.core import output, ui
from cloison_forge.pipeline import Request

JOBS = 2  # machines at once: they count instructions, not seconds
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
    from cloison_forge import pipeline
    from cloison_forge.kconfig.api import require_comparable

    variants = dict.fromkeys(place.variant for place in PLACES)
    wanted = {variant: replace(request, profile="vm", variant=variant) for variant in variants}
    require_comparable(*(pipeline.configured(each)[1] for each in wanted.values()))
    built = {variant: pipeline.kernel(each) for variant, each in wanted.items()}
    icount.program()
    jobs = [
        (place.name, Setting(built[place.variant].image, f"bench.rows=net {place.options}", memory))
        for memory in PLACEMENTS
        for place in PLACES
    ]
    samples: dict[str, dict[str, list[float]]] = {place.name: {} for place in PLACES}
    progress = ui.Progress("bench", "machines", len(jobs))
    with ThreadPoolExecutor(JOBS) as pool:
        for (name, _), measured in zip(jobs, pool.map(lambda job: icount.measure(job[1]), jobs), strict=True):
            for row in measured:
                if "row" in row:
                    samples[name].setdefault(str(row["row"]), []).append(float(str(row["median"])))
            progress.advance(detail=name)
    progress.finish()
    return samples


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
