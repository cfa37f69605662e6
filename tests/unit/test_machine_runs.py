# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs have folders of their own; old ones and orphans go, those going on stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison_forge.core.paths import Project
from cloison_forge.machine import runs


@pytest.fixture(name="parent")
def fixture_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runs, "project", lambda: Project(tmp_path, tmp_path))
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    return tmp_path / "build" / "6.12" / "runs" / "uml"


def test_two_at_once_never_meet(parent: Path) -> None:
    with runs.run_folder("6.12", "uml") as one, runs.run_folder("6.12", "uml") as two:
        assert one != two
        assert one.parent == two.parent == parent


def test_what_is_bulky_goes_and_the_log_stays_even_after_a_failure(parent: Path) -> None:
    names = ("root.cow", "job.tar", "console.log")

    def interrupted() -> None:
        with runs.run_folder("6.12", "uml") as made:
            for name in names:
                (made / name).write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    folder = parent / "last"
    assert not (folder / "root.cow").exists()
    assert not (folder / "job.tar").exists()
    assert (parent / "last" / "console.log").exists()


def test_old_runs_and_orphans_go_and_those_going_on_stay(parent: Path) -> None:
    orphan = parent / "20200101-000000-orphan"
    orphan.mkdir(parents=True)
    (orphan / "owner").write_text("4194305\n", encoding="ascii")
    with runs.run_folder("6.12", "uml") as going_on:
        for _ in range(runs.KEEP + 3):
            with runs.run_folder("6.12", "uml"):
                pass
        assert going_on.exists()
        assert not orphan.exists()
        folders = [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
        assert len(folders) == runs.KEEP + 1
