# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of the kernel's own selftests: what counts as the same, and what proves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloison_forge.core.errors import CheckError
from cloison_forge.machine import kselftest_net
from cloison_forge.machine.kselftest_net import COMMANDS, Result, judge

GOOD = Result(0, {"a": "passed", "b": "failed"})


def test_a_result_is_the_status_and_that_of_each_single_test() -> None:
    assert GOOD.same(Result(0, {"a": "passed", "b": "failed"}, "other words"))
    assert not GOOD.same(Result(1, GOOD.tests))
    assert not GOOD.same(Result(0, {"a": "passed", "b": "passed"}))
    assert not GOOD.same(Result(0, {"a": "passed"}))
    assert GOOD.told == "passed, 1 of 2 tests"
    assert Result(124, {}).told == "status 124"


def test_what_differs_is_named() -> None:
    assert judge({"x": GOOD, "y": Result(1, {})}, {"x": GOOD, "y": Result(1, {})}) == []
    assert judge({"x": GOOD, "y": Result(1, {})}, {"x": GOOD, "y": Result(0, {})}) == ["y"]


def test_a_plain_kernel_that_passes_nothing_is_no_comparison() -> None:
    with pytest.raises(CheckError, match="passes none"):
        judge({"x": Result(127, {})}, {"x": Result(127, {})})


def test_output_without_a_status_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "0.out").write_text("TAP version 13\n1..2\nok 1 a\nnot ok 2 b\n")
    with pytest.raises(FileNotFoundError):
        kselftest_net.read(tmp_path, 0)
    (tmp_path / "0.status").write_text("1\n")
    result = kselftest_net.read(tmp_path, 0)
    assert (result.status, result.tests) == (1, {"a": "passed", "b": "failed"})


def test_every_command_is_run_and_leaves_its_status(tmp_path: Path) -> None:
    script = kselftest_net._script().replace("/mnt/share", str(tmp_path)).replace("timeout 120 ", "false ")
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
    assert len(list(tmp_path.glob("*.status"))) == len(COMMANDS)
    assert kselftest_net.read(tmp_path, 0).status == 1
