# SPDX-License-Identifier: GPL-2.0-or-later
"""Applying a series: exact, incremental, all or nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.series_fakes import EXIT, FORK, LINE, Bench, FakeTree, diff, mail

from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.core.run import run
from cloison_forge.series import api, placing
from cloison_forge.series.api import Applied
from cloison_forge.series.fitting import ConflictError, Content


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(api, "project", lambda: Project(root=tmp_path, cache=tmp_path / "cache"))
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    return Bench(tmp_path).setup()


def go(bench: Bench, *, reference: bool = True, variant: str = "on", key: str = "tree-1") -> Applied:
    return api.apply(LINE, FakeTree(bench.tree, key, reference), variant=variant)


def test_apply_gives_the_final_files(bench: Bench) -> None:
    applied = go(bench.standard())
    assert applied.path == bench.tree
    assert applied.patches == ("common/core.patch", "hook-fork.patch", "common/more.patch")
    assert {name: text for name, (text, _) in bench.snapshot().items()} == bench.files


def test_a_second_apply_writes_nothing(bench: Bench) -> None:
    first = go(bench.standard())
    before = bench.snapshot()
    assert go(bench) == first
    assert bench.snapshot() == before


def test_only_files_that_change_get_a_new_time(bench: Bench) -> None:
    go(bench.standard())
    before = bench.snapshot()
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + "vs_exit();\n"})
    applied = go(bench)
    after = bench.snapshot()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"kernel/exit.c"}
    assert after["kernel/exit.c"][1] > before["kernel/exit.c"][1]
    assert applied.patches[-1] == "hook-exit.patch"


def test_revert_restores_bytes_with_a_newer_time(bench: Bench) -> None:
    original = bench.snapshot()
    go(bench.standard())
    patched = bench.snapshot()
    api.revert(LINE, FakeTree(bench.tree))
    now = bench.snapshot()
    assert {name: text for name, (text, _) in now.items()} == {name: text for name, (text, _) in original.items()}
    assert now["kernel/fork.c"][1] > patched["kernel/fork.c"][1]
    assert now["kernel/exit.c"] == original["kernel/exit.c"]
    assert not (bench.tree / "kernel/vserver").exists()


def test_revert_is_newer_even_when_the_clock_went_back(bench: Bench) -> None:
    go(bench.standard())
    future = time.time_ns() + 3_600_000_000_000
    os.utime(bench.tree / "kernel/fork.c", ns=(future, future))
    api.revert(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/fork.c").stat().st_mtime_ns > future


def test_dropping_a_patch_restores_its_file_only(bench: Bench) -> None:
    go(bench.standard())
    before = bench.snapshot()
    (bench.series / "series").write_text("common/core.patch\ncommon/more.patch\n")
    go(bench)
    after = bench.snapshot()
    assert after["kernel/fork.c"][0] == FORK
    assert {name for name in before if before[name] != after.get(name)} == {"kernel/fork.c"}


def test_conflict_names_patch_file_hunk_and_place(bench: Bench) -> None:
    bench.standard()
    wanted = FORK.replace("line 10 *", "row 10 *")
    text = diff({"kernel/fork.c": wanted}, {"kernel/fork.c": wanted.replace("/* fork line 12 */", "vs_twelve();")})
    (bench.series / "hook-late.patch").write_text(mail("vserver: late", text))
    with (bench.series / "series").open("a") as stream:
        stream.write("hook-late.patch\n")
    before = bench.snapshot()
    with pytest.raises(ConflictError) as caught:
        go(bench)
    message = caught.value.message
    assert "hook-late.patch" in message
    assert "kernel/fork.c, hunk 1" in message
    assert "/* fork row 10 */" in message  # what the patch expects
    assert "10! /* fork line 10 */" in message  # what is there, marked, with its line number
    assert "./invoke patch.edit" in caught.value.hint
    assert bench.snapshot() == before


def test_conflict_after_a_good_state_leaves_that_state(bench: Bench) -> None:
    first = go(bench.standard())
    before = bench.snapshot()
    series = (bench.series / "series").read_text()
    text = diff({"kernel/exit.c": "other\n"}, {"kernel/exit.c": "another\n"})
    (bench.series / "hook-bad.patch").write_text(mail("vserver: bad", text))
    (bench.series / "series").write_text(series + "hook-bad.patch\n")
    with pytest.raises(ConflictError):
        go(bench)
    assert bench.snapshot() == before
    (bench.series / "series").write_text(series)
    assert go(bench) == first


def test_fuzz_is_refused(bench: Bench) -> None:
    """A hunk whose outermost context line differs fits with fuzz 1, which is not allowed."""
    wanted = FORK.replace("line 9 *", "row 9 *")
    text = diff({"kernel/fork.c": wanted}, {"kernel/fork.c": wanted.replace("/* fork line 12 */\n", "/* 12 */\n")})
    assert "row 9 " in text
    (bench.series / "hook-fuzz.patch").write_text(mail("vserver: fuzz", text))
    (bench.series / "series").write_text("hook-fuzz.patch\n")
    with pytest.raises(ConflictError, match=r"hook-fuzz\.patch does not fit: kernel/fork\.c, hunk 1"):
        go(bench, reference=False)


def test_offset_is_reported_elsewhere_and_refused_on_the_reference(bench: Bench) -> None:
    bench.standard()
    (bench.tree / "kernel/fork.c").write_text("/* two */\n/* more */\n" + FORK)
    with pytest.raises(BuildError, match="do not sit where the series says") as caught:
        go(bench)
    assert "hook-fork.patch: kernel/fork.c hunk 1: +2 lines" in caught.value.message
    applied = go(bench, reference=False)
    assert applied.offsets == ("hook-fork.patch: kernel/fork.c hunk 1: +2 lines",)
    assert "int vs;" in (bench.tree / "kernel/fork.c").read_text()
    assert go(bench, reference=False).offsets == applied.offsets


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hook-fork.patch # why", "a comment follows"),
        ("hook-fork.patch -p0", "something follows"),
        ("../common/core.patch", "is not a patch of this line"),
        ("/etc/core.patch", "is not a patch of this line"),
        ("hook-fork.diff", "is not a patch of this line"),
        ("common/core.patch", "listed twice"),
    ],
)
def test_bad_series_lines_are_refused(bench: Bench, line: str, said: str) -> None:
    bench.standard()
    (bench.series / "series").write_text(f"# a comment\n\ncommon/core.patch\n{line}\n")
    with pytest.raises(UsageError, match=said) as caught:
        go(bench)
    assert "series:4" in caught.value.message


def test_a_misspelt_name_gets_a_suggestion(bench: Bench) -> None:
    bench.standard()
    (bench.series / "series").write_text("common/core.patch\nhook-frok.patch\n")
    with pytest.raises(UsageError, match=r"hook-frok\.patch: No such file") as caught:
        go(bench)
    assert caught.value.hint == "did you mean hook-fork.patch?"


@pytest.mark.parametrize("cut", [0.55, 0.8])
def test_a_truncated_patch_is_refused(bench: Bench, cut: float) -> None:
    bench.add("common/core.patch", {"kernel/vserver/core.c": "".join(f"int v{n};\n" for n in range(99))})
    path = bench.series / "common/core.patch"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    before = bench.snapshot()
    with pytest.raises(BuildError, match=r"common/core\.patch"):
        go(bench)
    assert bench.snapshot() == before


def test_a_patch_without_a_diff_is_refused(bench: Bench) -> None:
    (bench.series / "empty.patch").write_text("From: nobody\nSubject: nothing\n\n")
    (bench.series / "series").write_text("empty.patch\n")
    with pytest.raises(BuildError, match=r"empty\.patch: holds no diff"):
        go(bench)


def test_a_patch_cannot_leave_the_tree(bench: Bench) -> None:
    text = diff({"../../outside.c": None}, {"../../outside.c": "int evil;\n"})
    (bench.series / "evil.patch").write_text(mail("evil", text))
    (bench.series / "series").write_text("evil.patch\n")
    with pytest.raises(BuildError, match="not below a/ or b/"):
        go(bench)
    assert not (bench.tree.parent.parent / "outside.c").exists()


def test_creating_what_exists_and_changing_what_does_not(bench: Bench) -> None:
    (bench.series / "series").write_text("new.patch\n")
    (bench.series / "new.patch").write_text(mail("x", diff({"MAINTAINERS": None}, {"MAINTAINERS": "ours\n"})))
    with pytest.raises(ConflictError, match="creates MAINTAINERS, which is already there"):
        go(bench)
    (bench.series / "new.patch").write_text(mail("x", diff({"gone.c": "a\n"}, {"gone.c": "b\n"})))
    with pytest.raises(ConflictError, match=r"changes gone\.c, which does not exist"):
        go(bench)


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_an_interrupted_move_is_finished_by_the_next_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    bench.standard()
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + "vs_exit();\n"})
    real, calls = placing.Placement.put_back, 0

    def breaks(self: placing.Placement, name: str, what: Content | None) -> bool:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        return real(self, name, what)

    with monkeypatch.context() as patched:
        patched.setattr(placing.Placement, "put_back", breaks)
        with pytest.raises(KeyboardInterrupt):
            go(bench)
    go(bench)
    assert {name: text for name, (text, _) in bench.snapshot().items()} == bench.files
    api.revert(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/fork.c").read_text() == FORK
    assert (bench.tree / "kernel/exit.c").read_text() == EXIT


def test_what_a_killed_run_left_behind_is_swept_away(bench: Bench) -> None:
    """A real kill in the middle of the move: no half file, no scratch folder, and the next run finishes."""
    bench.standard()
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path; from tests.unit.series_fakes import LINE, FakeTree\n"
        "from cloison_forge.core.paths import Project; from cloison_forge.series import api, placing\n"
        "root = Path(sys.argv[3]); api.project = lambda: Project(root, root / 'cache')\n"
        "real = Path.replace\n"
        "def replace(self, target):\n"
        "    if self.name.startswith('.fork.c.') and 'pristine' not in self.parts: os.kill(os.getpid(), 9)\n"
        "    return real(self, target)\n"
        "Path.replace = replace\n"
        "api.apply(LINE, FakeTree(root / 'build/6.12/source'))\n"
    )
    repository = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", code, str(repository), str(repository / "tools"), str(bench.root)]
    assert subprocess.run(words, check=False, capture_output=True).returncode == -9
    assert list((bench.tree / "kernel").glob(".fork.c.*"))
    (bench.tree.parent / ".series.killed").mkdir()
    go(bench)
    assert {name: text for name, (text, _) in bench.snapshot().items()} == bench.files
    assert not list(bench.tree.parent.glob(".series.*"))


def test_an_interrupted_revert_can_become_an_apply(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go(bench.standard())
    with monkeypatch.context() as patched:
        patched.setattr(placing.Placement, "_forget", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            api.revert(LINE, FakeTree(bench.tree))
    go(bench)
    assert {name: text for name, (text, _) in bench.snapshot().items()} == bench.files


def test_a_full_disk_ends_in_one_line_and_the_next_run_succeeds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.standard()

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device", "kernel/fork.c")

    with monkeypatch.context() as patched:
        patched.setattr(placing.Placement, "put_back", full)
        with pytest.raises(BuildError, match=r"patch: No space left on device: kernel/fork\.c"):
            go(bench)
    go(bench)
    assert {name: text for name, (text, _) in bench.snapshot().items()} == bench.files


def test_a_tree_extracted_anew_starts_from_its_own_originals(bench: Bench) -> None:
    go(bench.standard())
    for path in (bench.tree / "kernel").rglob("*.c"):
        path.unlink()
    (bench.tree / placing.STATE).unlink()
    (bench.tree / "kernel/fork.c").write_text("/* newer kernel */\n" + FORK)
    (bench.tree / "kernel/exit.c").write_text(EXIT)
    go(bench, reference=False, key="tree-2")
    api.revert(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/fork.c").read_text().startswith("/* newer kernel */")


def test_lost_originals_are_noticed(bench: Bench) -> None:
    go(bench.standard())
    (bench.tree.parent / "pristine/kernel/fork.c").write_text("something else")
    with pytest.raises(BuildError, match=r"original of kernel/fork\.c .* missing or was changed") as caught:
        api.revert(LINE, FakeTree(bench.tree))
    assert "extracts the source again" in caught.value.hint


def test_a_change_by_hand_is_kept_and_undone(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    go(bench.standard())
    (bench.tree / "kernel/fork.c").write_text("my experiment\n")
    go(bench)
    assert "int vs;" in (bench.tree / "kernel/fork.c").read_text()
    [kept] = (bench.tree.parent / "changed-by-hand").rglob("fork.c")
    assert kept.read_text() == "my experiment\n"
    assert str(kept) in capsys.readouterr().err


def test_absent_is_a_second_untouched_copy(bench: Bench) -> None:
    original = {name: text for name, (text, _) in bench.snapshot().items()}
    go(bench.standard())
    absent = go(bench, variant="absent")
    assert absent.path == bench.tree.parent / "absent"
    assert absent.patches == ()
    found = {
        str(path.relative_to(absent.path)): path.read_text()
        for path in absent.path.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert found == original
    assert "int vs;" in (bench.tree / "kernel/fork.c").read_text()
    stamp = json.loads((absent.path / ".stamp.json").read_text())
    assert go(bench, variant="absent") == absent
    assert json.loads((absent.path / ".stamp.json").read_text()) == stamp


def test_the_placebo_adds_a_function_to_an_untouched_copy(bench: Bench) -> None:
    go(bench.standard())
    patch = bench.series.parent / "placebo.patch"
    patch.write_text("--- /dev/null\n+++ b/kernel/placebo.c\n@@ -0,0 +1 @@\n+int placebo;\n")
    placebo = go(bench, variant="placebo")
    assert (placebo.path / "kernel/placebo.c").read_text() == "int placebo;\n"
    assert "int vs;" not in (placebo.path / "kernel/fork.c").read_text()
    assert placebo.patches == ()
    assert placebo.key != go(bench, variant="absent").key


def test_a_copy_made_while_the_series_is_reverted_is_untouched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go(bench.standard())
    real = run

    def copy_then_revert(*args: Any, **options: Any) -> Any:
        result = real(*args, **options)
        api.revert(LINE, FakeTree(bench.tree))
        return result

    monkeypatch.setattr(placing, "run", copy_then_revert)
    folder = bench.root / "copy"
    folder.mkdir()
    placing.copy_untouched(bench.tree, api.placement_of(LINE, FakeTree(bench.tree)), folder)
    assert (folder / "kernel/fork.c").read_text() == FORK
    assert not (folder / "kernel/vserver").exists()


def test_an_unknown_variant_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no variant 'of'"):
        go(bench, variant="of")


def test_modes_and_renames_come_through(bench: Bench) -> None:
    (bench.series / "series").write_text("move.patch\n")
    (bench.series / "move.patch").write_text(
        mail(
            "vserver: move",
            "diff --git a/kernel/exit.c b/kernel/leave.c\nsimilarity index 100%\n"
            "rename from kernel/exit.c\nrename to kernel/leave.c\n"
            "diff --git a/tools/run.sh b/tools/run.sh\nnew file mode 100755\n"
            "--- /dev/null\n+++ b/tools/run.sh\n@@ -0,0 +1 @@\n+#!/bin/sh\n",
        )
    )
    go(bench)
    assert not (bench.tree / "kernel/exit.c").exists()
    assert (bench.tree / "kernel/leave.c").read_text() == EXIT
    assert (bench.tree / "tools/run.sh").stat().st_mode & 0o111
    api.revert(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/exit.c").read_text() == EXIT
    assert not (bench.tree / "tools").exists()


def test_the_key_follows_source_patches_and_order(bench: Bench) -> None:
    first = go(bench.standard())
    keys = {first.key, go(bench, key="tree-2").key}
    (bench.series / "series").write_text("hook-fork.patch\ncommon/core.patch\ncommon/more.patch\n")
    keys.add(go(bench).key)
    assert len(keys) == 3
    assert dataclasses.replace(first, key="").patches == first.patches
