# SPDX-License-Identifier: GPL-2.0-or-later
"""Several machines at once: a plan is dealt out, each part runs in a machine of its own."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from cloison_forge.core.errors import ForgeError, MachineError
from cloison_forge.machine.supervisor import Run
from cloison_verify.catalogue import Check

Progress = Callable[[int, str], None]
Task = Callable[[Progress], Run]

_PR_SET_PDEATHSIG = 1
_MOST = 4
_FEW = 8


def useful(checks: int, processors: int | None = None) -> int:
    """Return how many machines at once are worth their start for so many checks."""
    count = processors or len(os.sched_getaffinity(0))
    return max(1, min(count, _MOST, checks // _FEW))


def split(checks: Sequence[Check], jobs: int) -> list[tuple[Check, ...]]:
    """Deal checks out by their time limits, the longest first; each part keeps the order of the plan."""
    parts: list[list[Check]] = [[] for _ in range(max(1, jobs))]
    for check in sorted(checks, key=lambda check: -check.seconds):
        min(parts, key=lambda part: sum(other.seconds for other in part)).append(check)
    places = {check.id: place for place, check in enumerate(checks)}
    return [tuple(sorted(part, key=lambda check: places[check.id])) for part in parts if part]


def run_all(tasks: Sequence[Task], progress: Progress) -> list[Run]:
    """Run all tasks at once, each in a process of its own, and return their runs in order.

    `progress` gets the number of finished checks of all machines and the name of a running one. When
    this process is told to end, so are the others, and each ends its machine. The first failure of a
    task ends the others and is raised here.
    """
    if len(tasks) == 1:
        return [tasks[0](progress)]
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, tuple[int, ForkProcess]] = {}
    runs: dict[int, Run] = {}
    done = [0] * len(tasks)
    try:
        for number, task in enumerate(tasks):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(task, theirs, os.getpid()))
            process.start()
            theirs.close()
            workers[ours] = (number, process)
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                number, process = workers[connection]
                message = _receive(connection)
                if isinstance(message, tuple):
                    done[number] = message[0]
                    progress(sum(done), message[1])
                    continue
                del workers[connection]
                process.join()
                if not isinstance(message, Run):
                    raise message
                runs[number] = message
    finally:
        for _, process in workers.values():
            process.terminate()
        for _, process in workers.values():
            process.join()
    return [runs[number] for number in range(len(tasks))]


def _receive(connection: Connection) -> Run | ForgeError | tuple[int, str]:
    try:
        message: Any = connection.recv()
    except EOFError:
        return MachineError("the process that watched a machine ended without a word", hint="look for it in dmesg")
    assert isinstance(message, (Run, ForgeError, tuple))
    return message


def _work(task: Task, answer: Connection, parent: int) -> None:
    """Be the process that runs one task: tell how far it is, then what came of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        return
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            run = task(lambda count, name: answer.send((count, name)))
        except ForgeError as error:
            answer.send(error)
        else:
            # The probes of the plan are functions, and stay where they are.
            judge = run.judge
            judge.expected, judge.current = replace(judge.expected, plan=()), None
            answer.send(run)
