# SPDX-License-Identifier: GPL-2.0-or-later
"""What every count of instructions does: comparable kernels first, then many machines, medians by name and row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from cloison_forge.bench import icount
from cloison_forge.bench.icount import Setting
from cloison_forge.core import ui
from cloison_forge.pipeline import Request

if TYPE_CHECKING:
    from cloison_forge.kernel.api import Kernel

JOBS = 2  # machines at once: they count instructions, not seconds


def kernels(request: Request, variants: Iterable[str]) -> dict[str, Kernel]:
    """Build the kernel of each variant, once their configurations are seen to differ in nothing but the series."""
    from cloison_forge import pipeline
    from cloison_forge.kconfig.api import require_comparable

    wanted = {variant: replace(request, profile="vm", variant=variant) for variant in dict.fromkeys(variants)}
    require_comparable(*(pipeline.configured(each)[1] for each in wanted.values()))
    return {variant: pipeline.kernel(each) for variant, each in wanted.items()}


def medians(jobs: Sequence[tuple[str, Setting]]) -> dict[str, dict[str, list[float]]]:
    """Run machines; return for each name and row the median of batches of each of its machines, in their order."""
    icount.program()
    samples: dict[str, dict[str, list[float]]] = {name: {} for name, _ in jobs}
    progress = ui.Progress("bench", "machines", len(jobs))
    with ThreadPoolExecutor(JOBS) as pool:
        for (name, _), measured in zip(jobs, pool.map(lambda job: icount.measure(job[1]), jobs), strict=True):
            for row in measured:
                if "row" in row:
                    samples[name].setdefault(str(row["row"]), []).append(float(str(row["median"])))
            progress.advance(detail=name)
    progress.finish()
    return samples
