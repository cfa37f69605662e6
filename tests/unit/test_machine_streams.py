# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole verifications on captured streams: the good one passes, every bad one fails."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.machine_fakes import NONCE, PLAN, STREAMS, ScriptLane

from cloison_forge.core.errors import ExitStatus
from cloison_forge.core.paths import Project
from cloison_forge.machine import api, inputs, runs, verification
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.job import Job
from cloison_forge.machine.judge import Expected
from cloison_forge.machine.outcome import Limits
from cloison_forge.pipeline import Request

PLAY = 'cat "$STREAMS/$CONSOLE.console"; cat "$STREAMS/$STREAM.channel" > /dev/fd/$CHANNEL; '
LIMITS = Limits(firmware=10, kernel=10, runner=10, check_grace=10, ending=10, power_off=10)


def release(stream: str) -> str:
    """Return the release that a captured hello tells."""
    hello = json.loads((STREAMS / f"{stream}.channel").read_bytes().splitlines()[0].split(b" ", 2)[2])
    return str(hello["uname"]["release"])


def expected(_: Inputs, job: Job) -> Expected:
    """Ask for the kernel that was captured; its files are not here to be compared."""
    return Expected(job.nonce, job.plan, job.role, release("control" if job.role == "control" else "good"))


Verify = Callable[..., tuple[int, dict[str, object]]]


class TwoMachines(ScriptLane):
    """Plays the control machine well and the main machine as it is told."""

    def __init__(self, stream: str, console: str, then: str) -> None:
        super().__init__("", LIMITS)
        self.main = f"STREAM={stream}; CONSOLE={console}; {PLAY}{then}"

    def launch(self, spec, wires):  # type: ignore[no-untyped-def]
        control = spec.job.role == "control"
        self.script = f"STREAM=control; CONSOLE=control; {PLAY}" if control else self.main
        return super().launch(spec, wires)


@pytest.fixture(name="verify")
def fixture_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Return a function that verifies a lane whose machines play streams."""
    monkeypatch.setattr(runs, "project", lambda: Project(tmp_path, tmp_path))
    monkeypatch.setattr(secrets, "token_hex", lambda _: NONCE)
    monkeypatch.setattr(verification, "make_plan", lambda lane, *_: verification.Plan(lane, PLAN, ()))
    monkeypatch.setattr(api, "expected", expected)
    what = Inputs(None, root=tmp_path / "root")

    def verify(stream: str, console: str = "good", then: str = "") -> tuple[int, dict[str, object]]:
        monkeypatch.setitem(inputs.LANES, "uml", TwoMachines(stream, console, then))
        options = api.VerifyOptions(Request(), "uml", json=str(tmp_path / "r.json"), inputs=what, control=what)
        status = api.verify(options)
        return status, json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    return verify


def test_the_good_stream_passes(verify: Verify) -> None:
    status, report = verify("good")
    assert status == ExitStatus.GOOD, report
    assert (report["planned"], report["passed"], report["not_reported"]) == (3, 3, 0)


BAD = {
    "gap": "bad-stream",
    "duplicate-line": "bad-stream",
    "bad-crc": "bad-stream",
    "wrong-nonce": "bad-stream",
    "other-plan": "bad-stream",
    "duplicate-id": "bad-stream",
    "unknown-id": "bad-stream",
    "not-all": "bad-stream",
    "no-hello": "bad-stream",
    "half-line": "bad-stream",
    "after-bye": "bad-stream",
    "carriage-returns": "bad-stream",
    "no-bye": "power-off-without-result",
    "empty": "power-off-without-result",
    "other-kernel": "wrong-kernel",
    "tainted": "oops",
    "missing-control": "ready",
    "failed-control": "ready",
    "undeclared-skip": "ready",
    "false-pass": "ready",
}


@pytest.mark.parametrize(("stream", "outcome"), BAD.items())
def test_every_bad_stream_fails(verify: Verify, stream: str, outcome: str) -> None:
    status, report = verify(stream)
    assert report["outcome"] == outcome
    assert status == (ExitStatus.CHECK if outcome == "ready" else ExitStatus.MACHINE)
    # Only the oops and what is wrong after the last check may leave every check passed.
    late = ("tainted", "after-bye", "no-bye")
    assert report["passed"] == 3 if stream in late else int(str(report["passed"])) < 3


def test_all_captured_bad_streams_are_tried() -> None:
    assert {path.stem for path in STREAMS.glob("*.channel")} == {*BAD, "good", "control"}


def test_an_oops_on_the_console_fails_the_good_stream(verify: Verify) -> None:
    status, report = verify("good", console="oops")
    assert (status, report["outcome"]) == (ExitStatus.MACHINE, "oops")


def test_a_program_that_fails_after_the_job_fails_it(verify: Verify) -> None:
    assert verify("good", then="exit 1")[0] == ExitStatus.MACHINE
