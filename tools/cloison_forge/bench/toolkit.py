# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke bench.tools`: how long the toolkit keeps people waiting, beside what it saves them from.

Clock time of whole commands on whatever machine this is: figures to read, never a test.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from cloison_forge.core import output, ui
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.pipeline import Request

RUNS = 5


@dataclass(frozen=True)
class Wait:
    """One thing that people wait for: seconds of the clock (median, least, most), and the goal if there is one."""

    what: str
    median: float
    least: float
    most: float
    runs: int
    goal: float | None = None


def _times(what: str, action: Callable[[], float | None], runs: int, goal: float | None) -> Wait:
    """Run `action` several times; it may return the seconds that count, else the clock is taken."""
    seconds = []
    progress = ui.Progress("bench", what, runs)
    for _ in range(runs):
        begun = time.monotonic()
        own = action()
        seconds.append(own if own is not None else time.monotonic() - begun)
        progress.advance()
    progress.finish()
    return Wait(what, statistics.median(seconds), min(seconds), max(seconds), runs, goal)


def _command(*words: str) -> Callable[[], None]:
    def action() -> None:
        run([str(project().root / "invoke"), *words], cwd=project().root)

    return action


def _first_word(request: Request, lane: str) -> Callable[[], float]:
    """Seconds from the start of the machine's process until PID 1 speaks."""
    from cloison_forge.core.errors import MachineError
    from cloison_forge.machine import api

    def action() -> float:
        result = api.run_boot(api.BootOptions(Request(line=request.line), lane))
        if result.ready is None:
            raise MachineError(f"lane {lane}: PID 1 did not speak ({result.ending})", hint=f"see {result.folder}")
        return result.ready

    return action


@contextmanager
def _changed_source(request: Request) -> Iterator[None]:
    """Add one patch to the series that changes `kernel/vserver/core.c`, and take it away again."""
    series = project().patches / request.kernel_line.series
    listing, probe = series / "series", series / "hook-bench-probe.patch"
    source = project().line(request.line) / "source" / "kernel" / "vserver" / "core.c"
    before, text = listing.read_text(encoding="utf-8"), source.read_text(encoding="utf-8")
    last = text.rstrip("\n").split("\n")[-3:]
    size = text.count("\n")
    hunk = f"@@ -{size - 2},3 +{size - 2},4 @@\n" + "".join(f" {line}\n" for line in last)
    mail = (
        "From: Cloison developers <developers@cloison.invalid>\nSubject: [PATCH] vserver: Change one file\n\n---\n"
        "--- a/kernel/vserver/core.c\n+++ b/kernel/vserver/core.c\n"
        f"{hunk}+int vx_bench_probe = {time.time_ns() % 1000000};\n"
    )
    try:
        probe.write_text(mail, encoding="utf-8")
        listing.write_text(before.rstrip("\n") + f"\n{probe.name}\n", encoding="utf-8")
        yield
    finally:
        listing.write_text(before, encoding="utf-8")
        probe.unlink(missing_ok=True)


def _edit_to_verified(request: Request) -> Callable[[], float]:
    def action() -> float:
        with _changed_source(request):
            begun = time.monotonic()
            run([str(project().root / "invoke"), "verify", "--lane", "uml"], cwd=project().root)
            return time.monotonic() - begun

    return action


def measure(request: Request, *, json_path: str = "", edits: int = 2) -> None:
    """Measure, and print a table or write JSON. The outputs must be up to date, or the first row builds them."""
    _command("build")()
    _command("verify", "--lane", "uml")()
    waits = [
        _times("./invoke --list", _command("--list"), RUNS, 0.5),
        _times("./invoke build, nothing to do", _command("build"), RUNS, 1.0),
        _times("PID 1 speaks, lane uml", _first_word(request, "uml"), RUNS, 0.5),
        _times("PID 1 speaks, lane qemu", _first_word(request, "qemu"), RUNS, 4.0),
        _times("a change in kernel/vserver to verified, lane uml", _edit_to_verified(request), edits, 30.0),
    ]
    _command("verify", "--lane", "uml")()
    answer = {"schema": "cloison-bench-tools-1", "processors": os.cpu_count(), "waits": [asdict(w) for w in waits]}
    if json_path:
        output.write(json_path, answer)
    if json_path != "-":
        rows = [
            [
                w.what,
                f"{w.median:.2f}",
                f"{w.least:.2f} to {w.most:.2f}",
                str(w.runs),
                f"{w.goal:.1f}" if w.goal else "",
            ]
            for w in waits
        ]
        ui.table("seconds", ["what", "median", "range", "runs", "goal"], rows)
