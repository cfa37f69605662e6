# SPDX-License-Identifier: GPL-2.0-or-later
"""Stages run when an input changes, and only then; an interrupted stage leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison_forge.core.stage import STAMP, Stage, atomic_file, digest_files


def test_runs_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result").write_text("x")

    assert Stage("s", tmp_path / "out", {"a": "1"}).ensure(make)
    assert not Stage("s", tmp_path / "out", {"a": "1"}).ensure(make)
    assert Stage("s", tmp_path / "out", {"a": "2"}).ensure(make)
    assert len(calls) == 2
    assert (tmp_path / "out" / "result").read_text() == "x"


def test_names_the_inputs_that_changed(tmp_path: Path) -> None:
    Stage("s", tmp_path / "out", {"a": "1", "b": "1"}).ensure(lambda folder: None)
    assert Stage("s", tmp_path / "out", {"a": "1", "b": "2", "c": "3"}).changed() == ["b", "c"]


def test_failure_keeps_the_old_output_and_leaves_no_rubbish(tmp_path: Path) -> None:
    Stage("s", tmp_path / "out", {"a": "1"}).ensure(lambda folder: None)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Stage("s", tmp_path / "out", {"a": "2"}).ensure(fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert Stage("s", tmp_path / "out", {"a": "1"}).fresh()


def test_in_place_stage_has_no_stamp_after_a_failure(tmp_path: Path) -> None:
    Stage("s", tmp_path / "out", {"a": "1"}, in_place=True).ensure(lambda folder: None)

    def fail(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage("s", tmp_path / "out", {"a": "2"}, in_place=True).ensure(fail)
    assert not (tmp_path / "out" / STAMP).exists()


def test_damaged_stamp_means_run_again(tmp_path: Path) -> None:
    stage = Stage("s", tmp_path / "out", {"a": "1"})
    stage.ensure(lambda folder: None)
    (tmp_path / "out" / STAMP).write_text("{")
    assert not stage.fresh()


def interrupted_write(target: Path) -> None:
    with atomic_file(target) as beside:
        beside.write_text("half")
        raise ValueError("interrupted")


def test_atomic_file_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interrupted"):
        interrupted_write(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_digest_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("1")
    first = digest_files([tmp_path / "d"], tmp_path)
    (tmp_path / "d" / "x").rename(tmp_path / "d" / "y")
    assert digest_files([tmp_path / "d"], tmp_path) != first
