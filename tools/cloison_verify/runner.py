# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the checks inside the machine: hears "run NUMBER ID CGROUP" on descriptor 3, answers "NUMBER {json}".

PID 1 starts it, keeps the time limits and owns the result channel; see ``images/init/verify.c``.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cloison_verify import catalogue, measure
from cloison_verify.catalogue import Check, Instead, KernelWithout, Probe, SameContext
from cloison_verify.contexts import CompanionContexts
from cloison_verify.scene import Contexts, Placement, Scene, SceneError, Seen

Work = Callable[[], dict[str, object]]

PID1 = 3
PARAMETERS = Path("/run/cloison/parameters.json")
LONGEST = 600  # characters of a sight; as JSON, up to 12 bytes each, PID 1 takes 16 kB in all


@dataclass(frozen=True)
class Parameters:
    """What the host says to the whole run.

    `role` is "main", or "control" in a machine whose kernel was built without the series, where
    each probe must see what its control expects, or "measure", where identifiers are ROUND.SURROUNDING.ROW
    and nothing is expected; then `milliseconds` is how long each measurement is to take.
    """

    role: str = "main"
    milliseconds: int = 0

    @classmethod
    def read(cls, path: Path) -> Parameters:
        """Read the parameters from the job."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def _play(probe: Probe, placement: Placement, contexts: Contexts) -> Seen:
    """Run a probe in a scene of its own. A broken scene or probe is seen as what it is, never as a result."""
    scene = Scene(placement, contexts)
    try:
        try:
            return probe(scene)
        finally:
            scene.close()
    except SceneError as error:
        return Seen(f"broken scene: {error}")
    except Exception as error:
        traceback.print_exc()
        return Seen(f"broken probe: {type(error).__name__}: {error}")


def _verdict(seen: Seen, expected: tuple[str, ...]) -> str:
    return "passed" if seen.text in expected else "failed"


def _control(check: Check, contexts: Contexts) -> dict[str, object]:
    """Run the positive control on this machine, or say that it belongs to another."""
    control = check.control
    result: dict[str, object] = {"kind": control.kind, "expected": " or ".join(control.expected)}
    if isinstance(control, KernelWithout):
        return {**result, "seen": None, "status": "elsewhere"}
    if isinstance(control, SameContext):
        seen = _play(check.probe, Placement.TOGETHER, contexts)
    else:
        assert isinstance(control, Instead)
        seen = _play(control.probe, Placement.PLAIN, contexts)
    return {**result, "seen": seen.text[:LONGEST], "status": _verdict(seen, control.expected)}


def perform(check: Check, role: str, contexts: Contexts) -> dict[str, object]:
    """Run one check, its control first; return the body of its ``end`` record."""
    if role == "control":
        seen = _play(check.probe, Placement.PLAIN, contexts)
        return {
            "control": None,
            "expected": " or ".join(check.control.expected),
            "seen": seen.text[:LONGEST],
            "errno": seen.errno,
            "status": _verdict(seen, check.control.expected),
        }
    control = _control(check, contexts)
    placement = Placement.APART if isinstance(check.control, SameContext) else Placement.PLAIN
    seen = _play(check.probe, placement, contexts)
    good = control["status"] != "failed" and _verdict(seen, check.expected) == "passed"
    return {
        "control": control,
        "expected": " or ".join(check.expected),
        "seen": seen.text[:LONGEST],
        "errno": seen.errno,
        "note": seen.note[:LONGEST],
        "status": "passed" if good else "failed",
    }


def measured(identifier: str, milliseconds: int) -> dict[str, object]:
    """Measure what an identifier names; return the body of its ``end`` record."""
    _round, surrounding, row = identifier.split(".")
    told = measure.measure(surrounding, row, milliseconds)
    return {"control": None, "expected": "", "seen": told[:LONGEST], "errno": None, "status": "passed"}


def _child(work: Work, group: str, answer: int) -> NoReturn:
    """Be the process of one check: into its control group, away from PID 1's socket, run, answer, end."""
    try:
        os.close(PID1)
        os.setsid()
        if group != "-":
            Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        body = json.dumps(work())
        os.write(answer, body.encode("ascii") + b"\n")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _run(check: Check, role: str, group: str) -> str:
    """Run a check in a process of its own; return its answer, or what became of it instead."""
    return _apart(lambda: perform(check, role, CompanionContexts()), group)


def _apart(work: Work, group: str) -> str:
    """Do a piece of work in a process of its own; return its answer, or what became of it instead."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, group, writing)
    os.close(writing)
    watch = os.pidfd_open(child)
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([reading, watch], [], [])
        part = os.read(reading, 65536) if reading in ready else b""
        if not part:
            break
        data += part
    os.close(reading)
    os.close(watch)
    if data.endswith(b"\n"):
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if data.endswith(b"\n"):
        return data.decode("ascii").rstrip("\n")
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    body = {"control": None, "expected": None, "seen": f"the check's process ended with {how} and no answer"}
    return json.dumps({**body, "errno": None, "status": "failed"})


def _unhide() -> None:
    """Let contexts see what every host lets them see; a kernel that cannot is what some check will tell of."""
    from cloison import attributes
    from cloison.syscall import Vserver

    with contextlib.suppress(OSError):
        attributes.unhide(Vserver())


def main() -> int:
    """Serve PID 1 until it closes the socket."""
    checks = catalogue.load()
    parameters = Parameters.read(PARAMETERS)
    if parameters.role == "main":
        _unhide()
    # The processes of checks are copies of this one and end soon: a collection in them only copies pages.
    gc.collect()
    gc.freeze()
    gc.disable()
    os.set_inheritable(PID1, False)
    os.write(PID1, b"ready\n")
    # No second descriptor of the socket: a check's process closes this one and has none.
    with os.fdopen(PID1, encoding="ascii", closefd=False) as requests:
        for line in requests:
            _word, number, identifier, group = line.split()
            if parameters.role == "measure":
                answer = _apart(functools.partial(measured, identifier, parameters.milliseconds), group)
            else:
                answer = _run(checks[identifier], parameters.role, group)
            os.write(PID1, f"{number} {answer}\n".encode("ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
