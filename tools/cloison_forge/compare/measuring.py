# SPDX-License-Identifier: GPL-2.0-or-later
"""Doing the work: in one booted machine of a lane, or on the build host itself."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloison_forge.compare.plan import Machine, Sizes, pieces
from cloison_forge.core.errors import ForgeError, MachineError
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage, digest_files
from cloison_forge.machine import api, inputs, kvm
from cloison_forge.machine.job import Job
from cloison_forge.machine.judge import Judge
from cloison_forge.machine.supervisor import Supervisor
from cloison_forge.pipeline import Request
from cloison_verify import measure

_GRACE = 40  # seconds that a measurement may take beyond its own time, before patience


@dataclass
class Result:
    """What one machine told: for each piece (``ROUND.SURROUNDING.ROW``) the program's line, or why there is none.

    `clock` is how many seconds passed on the host in a second of the machine's clock; `memory` is what the machine
    itself took on the host when it was ready and idle, in KiB (proportional set size of its processes, None if
    unknown); `failure` is set when the machine did not come to its end, `unavailable` when this host has no such one.
    """

    told: dict[str, Mapping[str, object]] = field(default_factory=dict)
    failure: str = ""
    unavailable: bool = False
    clock: float = 1.0
    memory: int | None = None


def program() -> Path:
    """Compile the program that does the work, static; it is the same file everywhere."""
    source = project().root / "tools" / "cloison_compare"
    files = sorted(source.glob("*.c"))
    stage = Stage("compare", project().build / "compare", {"source": digest_files(files, source)})

    def make(folder: Path) -> None:
        run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", folder / "work", *files])

    if not stage.fresh():
        stage.ensure(make)
    return stage.out / "work"


def proportional(ancestor: int) -> int:
    """Return the proportional set size of a process's descendants, in KiB; 0 when nothing of it can be read."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = path.read_text(encoding="utf-8", errors="replace")
            parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    total = 0
    for process in parents:
        above = process
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor != process:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
                    total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total


class Stopwatch:
    """Notes how long each piece took on the host's clock, and what a ready machine takes, from what the judge hears."""

    def __init__(self) -> None:
        self.memory: int | None = None
        self.seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def __call__(self, judge: Judge) -> None:
        """Look at what has begun and what has ended."""
        now = time.monotonic()
        if self.memory is None and judge.hello is not None:
            self.memory = proportional(os.getpid()) or None
        if judge.current is not None:
            self._begun.setdefault(judge.current.id, now)
        for name, result in judge.results.items():
            if name in self._begun and name not in self.seconds and result.status != "not_reported":
                self.seconds[name] = now - self._begun[name]

    def clock(self, judge: Judge) -> float:
        """Return the host's seconds in a second of the machine's clock, over all pieces that have a time on both."""
        both = [
            (self.seconds[name], result.milliseconds / 1000)
            for name, result in judge.results.items()
            if result.milliseconds and name in self.seconds
        ]
        machine = sum(seconds for _, seconds in both)
        return sum(seconds for seconds, _ in both) / machine if machine else 1.0


def _line(text: str) -> Mapping[str, object]:
    try:
        told = json.loads(text)
    except ValueError:
        return {"error": f"the machine told {text[:80]!r}"}
    return told if isinstance(told, dict) else {"error": "the machine told no figures"}


def boot(machine: Machine, request: Request, sizes: Sizes) -> Result:
    """Boot a machine and let it measure everything that it is for."""
    lane = inputs.lane_named(machine.lane)
    if machine.accelerator == "kvm":
        verdict = kvm.probe()
        if not verdict.usable:
            return Result(failure=verdict.reason, unavailable=True)
    what = inputs.make(replace(request, variant=machine.variant, profile=""), lane)
    seconds = min(3600, (sizes.milliseconds // 250 + _GRACE) * what.patience)
    plan = pieces(machine, sizes, seconds)
    extra = {"work": program().read_bytes()}
    job = Job("verify", plan, role="measure", extra=extra, parameters={"milliseconds": sizes.milliseconds})
    watch = Stopwatch()

    def prepare(supervisor: Supervisor) -> None:
        supervisor.on_progress = watch

    spec = api.machine_spec(what, job, way=inputs.way_named(lane, machine.way))
    made = api.run_machine(lane, spec, api.expected(what, job), request.line, prepare, machine.accelerator)
    result = Result(clock=watch.clock(made.judge), memory=watch.memory)
    for name, told in made.judge.results.items():
        if told.status != "not_reported":
            result.told[name] = _line(told.seen)
    if not made.good:
        result.failure = f"{made.ending}: {made.ending.detail}".removesuffix(": ")
    elif machine.accelerator and made.accelerator != machine.accelerator:
        raise MachineError(f"{machine.title} ran under {made.accelerator}", hint="figures of another machine are none")
    return result


def native(machine: Machine, sizes: Sizes) -> Result:
    """Measure on the build host, with the kernel that happens to run there."""
    work = program()
    result = Result()
    for piece in pieces(machine, sizes, 60):
        _, surrounding, row = piece.id.split(".")
        result.told[piece.id] = _line(measure.measure(surrounding, row, sizes.milliseconds, work, seconds=120))
    return result


def measured(machine: Machine, request: Request, sizes: Sizes, boot: Callable[..., Result] = boot) -> Result:
    """Measure on one machine; whatever keeps it from its work is a result with that failure."""
    own = sizes.of(machine)
    try:
        return boot(machine, request, own) if machine.lane else native(machine, own)
    except ForgeError as error:
        return Result(failure=" ".join(error.message.split("\n")[0].split()))
