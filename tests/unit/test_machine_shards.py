# SPDX-License-Identifier: GPL-2.0-or-later
"""Several machines share a plan: each check runs once, and one failure is everybody's."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.machine_fakes import NONCE, PLAN

from cloison_forge.core.errors import MachineError
from cloison_forge.machine import shards, verification
from cloison_forge.machine.console import Console
from cloison_forge.machine.judge import Expected, Judge
from cloison_forge.machine.outcome import Ending, Outcome
from cloison_forge.machine.shards import Progress
from cloison_forge.machine.supervisor import Run
from cloison_forge.machine.verification import Plan
from cloison_forge.report import model
from cloison_verify.catalogue import Check

CHECKS = tuple(
    replace(PLAN[0], id=f"suite.n{number:02}", seconds=seconds) for number, seconds in enumerate([5, 90, 5, 30, 30, 5])
)


def test_every_check_is_dealt_out_once_and_the_long_ones_apart() -> None:
    parts = shards.split(CHECKS, 2)
    assert sorted(check.id for part in parts for check in part) == [check.id for check in CHECKS]
    assert [check.id for check in parts[0]] == ["suite.n01"]
    assert all(list(part) == sorted(part, key=lambda check: check.id) for part in parts)
    assert shards.split(CHECKS, 1) == [CHECKS]
    assert len(shards.split(CHECKS[:2], 4)) == 2


def test_a_machine_is_started_only_for_enough_checks() -> None:
    assert [shards.useful(count, 2) for count in (1, 8, 16, 200)] == [1, 1, 2, 2]
    assert shards.useful(200, 64) == 4


def run_of(plan: tuple[Check, ...], outcome: Outcome = Outcome.READY) -> Run:
    judge = Judge(Expected(NONCE, plan))
    for name, result in judge.results.items():
        judge.results[name] = replace(result, status="passed", seen="ENOSYS")
    return Run("uml", Path("/runs/1"), Ending(outcome), judge, Console(), ready=0.1, took=float(len(plan)))


def test_runs_come_back_in_order_with_their_progress() -> None:
    parts = shards.split(CHECKS, 3)
    counts: list[int] = []

    def task(part: tuple[Check, ...], delay: float, progress: Progress) -> Run:
        time.sleep(delay)
        progress(len(part), part[-1].id)
        return run_of(part)

    def bound(part: tuple[Check, ...], delay: float) -> shards.Task:
        return lambda progress: task(part, delay, progress)

    runs = shards.run_all(
        [bound(part, 0.3 - place / 10) for place, part in enumerate(parts)], lambda n, _: counts.append(n)
    )
    assert [sorted(run.judge.results) for run in runs] == [[check.id for check in part] for part in parts]
    assert counts[-1] == len(CHECKS)
    report = model.build(Plan("uml", CHECKS, ()), runs, None, None)
    assert (report.count("passed"), report.outcome, report.took_seconds) == (6, "ready", max(map(len, parts)))


def test_one_machine_that_fails_fails_the_report() -> None:
    parts = shards.split(CHECKS, 2)
    runs = [run_of(parts[0]), run_of(parts[1], Outcome.PANIC)]
    report = model.build(Plan("uml", CHECKS, ()), runs, None, None)
    assert report.outcome == "panic"
    assert report.status == 3
    assert verification.machine_problems(runs, None) == ["panic"]
    missing = model.build(Plan("uml", CHECKS, ()), runs[:1], None, None)
    assert missing.count("not_reported") == len(parts[1])
    assert missing.status == 1


def test_an_error_of_one_ends_the_others(tmp_path: Path) -> None:
    def fails(_: Progress) -> Run:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text(encoding="ascii"):
            time.sleep(0.01)
        raise MachineError("no such disk", hint="make one")

    def goes_on(_: Progress) -> Run:
        (tmp_path / "pid").write_text(str(os.getpid()), encoding="ascii")
        time.sleep(60)
        return run_of(CHECKS)

    with pytest.raises(MachineError) as caught:
        shards.run_all([fails, goes_on], lambda *_: None)
    assert (caught.value.message, caught.value.hint) == ("no such disk", "make one")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="ascii")), 0)


def test_a_watcher_that_dies_is_an_error_not_a_hang() -> None:
    def dies(_: Progress) -> Run:
        os.kill(os.getpid(), signal.SIGKILL)
        return run_of(CHECKS)

    def good(_: Progress) -> Run:
        return run_of(CHECKS)

    with pytest.raises(MachineError, match="without a word"):
        shards.run_all([good, dies], lambda *_: None)
