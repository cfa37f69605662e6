# SPDX-License-Identifier: GPL-2.0-or-later
"""What the toolkit adds to a bare make: the same tree and configuration compiled both ways, from nothing.

Processor time is compared beside the clock's, since the clock of a shared machine tells little.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.kconfig.api import Configured, PatchedTree
from cloison_forge.kconfig.tree import cross_prefix, environment
from cloison_forge.kernel import api, identity

GOAL = 1.03


@dataclass
class Cost:
    """One way of building: seconds of the clock, seconds of processor time (user and system)."""

    clock: float = 0.0
    processor: float = 0.0


@dataclass(frozen=True)
class Overhead:
    """A bare make, this toolkit with an empty compiler cache, and with the cache that this left."""

    bare: Cost
    cold: Cost
    hot: Cost
    objects: int

    @property
    def ratio(self) -> float:
        """Processor time with the toolkit, cache empty, over that of a bare make; the goal is 1.03 at most."""
        return self.cold.processor / self.bare.processor

    def as_json(self) -> dict[str, object]:
        """Return the figures for programs."""
        return {
            "schema": "cloison-overhead-1",
            **asdict(self),
            "ratio_processor": round(self.ratio, 4),
            "ratio_clock": round(self.cold.clock / self.bare.clock, 4),
            "goal": GOAL,
        }


@contextmanager
def _measured(cost: Cost) -> Iterator[None]:
    def processor() -> float:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    clock, before = time.monotonic(), processor()
    yield
    cost.clock = round(time.monotonic() - clock, 2)
    cost.processor = round(processor() - before, 2)


def measure(line: Line, applied: PatchedTree, configured: Configured, *, jobs: int = 0) -> Overhead:
    """Compile the kernel three times (many minutes) in a scratch folder of the build folder, and compare."""
    arch, count = configured.profile.arch, jobs or os.cpu_count() or 1
    bare, cold, hot = Cost(), Cost(), Cost()
    home = project().line(line.name)
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=".overhead."))
    try:
        obj = scratch / "bare"
        obj.mkdir()
        shutil.copyfile(configured.path, obj / ".config")
        prefix = cross_prefix(arch)
        words = ["make", "-C", str(applied.path), f"O={obj}", f"ARCH={arch}", f"-j{count}", identity.TARGETS[arch]]
        words += [f"CROSS_COMPILE={prefix}"] if prefix else []
        with ui.step("kernel", "a bare make"), _measured(bare):
            run(words, log=scratch / "bare.log")
        shutil.rmtree(obj)
        kernel = None
        with environment({"CLOISON_BUILD": str(scratch), "CCACHE_DIR": str(scratch / "ccache")}):
            for what, cost in (("empty", cold), ("warm", hot)):
                with ui.step("kernel", f"this toolkit, its compiler cache {what}"), _measured(cost):
                    kernel = api.build(line, applied, configured, jobs=count, totals=scratch / "objects.json")
                shutil.rmtree(scratch / line.name)
        assert kernel is not None
        objects = kernel.provenance["objects"]
        return Overhead(bare, cold, hot, objects if isinstance(objects, int) else 0)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
