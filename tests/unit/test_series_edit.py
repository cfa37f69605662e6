# SPDX-License-Identifier: GPL-2.0-or-later
"""The work area and the way back: nothing lost, the same bytes each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.series_fakes import EXIT, FORK, LINE, Bench, FakeTree, diff

from cloison_forge import clean
from cloison_forge.core import lines
from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.series import api, exporting
from cloison_forge.series.api import Exported
from cloison_forge.series.area import Area, Edited
from cloison_forge.series.reading import Series


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(api, "project", lambda: Project(root=tmp_path, cache=tmp_path / "cache"))
    monkeypatch.setattr(lines, "load", lambda: {"6.12": LINE})
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    (tmp_path / "kconfig/variants").mkdir(parents=True)
    (tmp_path / "kconfig/variants/on.config").write_text("CONFIG_VSERVER=y\n")
    return Bench(tmp_path).setup()


def edit(bench: Bench, *, fresh: bool = False, add: tuple[str, ...] = (), key: str = "tree-1") -> Edited:
    return api.edit(LINE, FakeTree(bench.tree, key), fresh=fresh, add=add)


def export(bench: Bench) -> Exported:
    return api.export(LINE, FakeTree(bench.tree))


def git(folder: Path, *words: str, status: int = 0) -> str:
    """Git as a user has it, with an identity and an editor that changes nothing."""
    done = subprocess.run(
        ["git", "-c", "user.name=Una", "-c", "user.email=una@example.org", "-c", "core.editor=true", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def patches(bench: Bench) -> dict[str, bytes]:
    """Every file of the patches folder."""
    root = bench.root / "patches"
    files = [*(root / "common").iterdir(), *(path for path in (root / "6.12").iterdir() if not path.is_symlink())]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def normal(bench: Bench) -> Bench:
    """The standard series, in the form that an export writes."""
    edit(bench.standard())
    export(bench)
    return bench


def test_the_area_holds_one_commit_a_patch_with_its_author(bench: Bench) -> None:
    bench.standard()
    area = edit(bench).path
    log = git(area, "log", "--reverse", "--format=%an|%ad|%s", "--date=raw").splitlines()[1:]
    assert log == [
        "Ada Kern|1790856000 +0000|vserver: do core",
        "Ada Kern|1790856000 +0000|vserver: do hook-fork",
        "Ada Kern|1790856000 +0000|vserver: do more",
    ]
    assert git(area, "ls-files").split() == ["kernel/fork.c", "kernel/vserver/core.c"]
    assert git(area, "show", "base:kernel/fork.c") == FORK
    assert git(area, "status", "--porcelain") == ""


def test_export_right_after_edit_changes_no_byte(bench: Bench) -> None:
    normal(bench)
    before = patches(bench)
    assert set(before) == {"6.12/series", "6.12/hook-fork.patch", "common/core.patch", "common/more.patch"}
    edit(bench, fresh=True)
    assert export(bench).changed == ()
    assert patches(bench) == before
    for name, data in before.items():
        assert name.endswith("series") or b"\nSigned-off-by: Ada Kern <ada@example.org>\n---\n" in data
        assert name.endswith("series") or re.search(rb"^index [0-9a-f]{40}\.\.[0-9a-f]{40}", data, re.MULTILINE)
        assert b"\n-- \n" not in data


def test_the_bytes_do_not_depend_on_the_users_git(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = FORK.replace("line 20 */\n", "line 20 */\nint near;\n").replace("line 32 */\n", "line 32 */\nint far;\n")
    bench.add("hook-two.patch", {"kernel/fork.c": two, "kernel/exit.c": EXIT + "int end;\n"})
    normal(bench)
    before = patches(bench)
    (tmp_path / "order").write_text("kernel/fork.c\nkernel/exit.c\n")
    config = tmp_path / "gitconfig"
    config.write_text(
        "[diff]\n\talgorithm = patience\n\tnoprefix = true\n\tcontext = 9\n\tmnemonicPrefix = true\n"
        f"\tinterHunkContext = 50\n\torderFile = {tmp_path}/order\n"
        "[format]\n\tsignature = hello\n\tsubjectPrefix = RFC\n\tnumbered = true\n\tto = list@example.org\n"
        "\tcoverLetter = true\n\tattach = true\n[core]\n\tautocrlf = true\n\tabbrev = 5\n"
        "[commit]\n\tgpgSign = true\n[am]\n\tthreeWay = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    edit(bench, fresh=True)
    assert export(bench).changed == ()
    assert patches(bench) == before


def test_a_changed_commit_goes_back_to_its_own_file_and_no_other(bench: Bench) -> None:
    normal(bench)
    before = patches(bench)
    area = edit(bench).path
    (area / "kernel/vserver/extra.c").write_text("int extra;\n")
    git(area, "add", ".")
    git(area, "commit", "-q", "--fixup", "HEAD~2")
    git(area, "rebase", "-q", "-i", "--autosquash", "base")
    assert export(bench).changed == ("common/core.patch",)
    after = patches(bench)
    assert b"extra.c" in after["common/core.patch"]
    assert {name for name in after if after[name] != before[name]} == {"common/core.patch"}
    assert api.apply(LINE, FakeTree(bench.tree)).patches == (
        "common/core.patch",
        "hook-fork.patch",
        "common/more.patch",
    )
    assert (bench.tree / "kernel/vserver/extra.c").read_text() == "int extra;\n"


def test_a_new_subject_keeps_the_file(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    git(
        area, "commit", "-q", "--amend", "-m", "vserver: something else\n\nWhy.\n\nSigned-off-by: Una <una@example.org>"
    )
    done = export(bench)
    assert (done.changed, done.removed) == (("common/more.patch",), ())
    assert b"Subject: [PATCH] vserver: something else\n" in (bench.series / "common/more.patch").read_bytes()


def test_new_commits_are_routed_by_what_they_touch(bench: Bench) -> None:
    normal(bench)
    area = edit(bench, add=("kernel/exit.c",)).path
    for name, text, subject in [
        ("kernel/vserver/new.c", "int new;\n", "vserver: Count the lines, twice!"),
        ("kernel/exit.c", EXIT + "vs_exit();\n", "vserver: exit: Leave the context"),
        ("kernel/vserver/core.c", "int vs_core;\n", "vserver: Count the lines twice"),
    ]:
        (area / name).write_text(text)
        git(area, "add", ".")
        git(area, "commit", "-q", "-m", subject + "\n\nWhy.")
    export(bench)
    series = (bench.series / "series").read_text()
    assert series.splitlines() == [
        "# the series",
        "common/core.patch",
        "hook-fork.patch",
        "common/more.patch",
        "common/count-the-lines-twice.patch",
        "hook-leave-the-context.patch",
        "common/count-the-lines-twice-2.patch",
    ]
    assert (bench.root / "patches/common/count-the-lines-twice.patch").is_file()
    api.apply(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/exit.c").read_text().endswith("vs_exit();\n")


def test_reordering_and_dropping_take_comments_and_files_along(bench: Bench) -> None:
    normal(bench)
    (bench.series / "series").write_text(
        "# top\ncommon/core.patch\n\n# about fork\nhook-fork.patch\n# more of it\ncommon/more.patch\n# end\n"
    )
    area = edit(bench, fresh=True).path
    git(area, "reset", "-q", "--hard", "HEAD~2")
    git(area, "cherry-pick", "ORIG_HEAD")
    done = export(bench)
    assert done.removed == ("hook-fork.patch",)
    assert (bench.series / "series").read_text() == "# top\ncommon/core.patch\n# more of it\ncommon/more.patch\n# end\n"
    assert not (bench.series / "hook-fork.patch").exists()


def test_a_shared_patch_that_another_line_lists_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    normal(bench)
    other = bench.root / "patches/6.1"
    other.mkdir()
    (other / "common").symlink_to("../common")
    (other / "series").write_text("common/core.patch\ncommon/more.patch\n")
    monkeypatch.setattr(lines, "load", lambda: {"6.12": LINE, "6.1": replace(LINE, name="6.1", series="6.1")})
    area = edit(bench).path
    git(area, "reset", "-q", "--hard", "HEAD~1")
    assert export(bench).removed == ()
    assert (bench.root / "patches/common/more.patch").is_file()
    assert "more" not in (bench.series / "series").read_text()


def test_a_conflict_is_left_to_resolve_and_comes_back_as_the_same_patch(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.standard()
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT.replace("/* exit line 20 */", "vs_exit(20);")})
    bench.add("hook-end.patch", {"kernel/exit.c": (bench.files["kernel/exit.c"] or "") + "vs_end();\n"})
    edit(bench)
    export(bench)
    (bench.tree / "kernel/exit.c").write_text(EXIT.replace("exit line 20 *", "exit row 20 *"))
    edited = edit(bench, key="tree-2")
    assert edited.stopped_at == "hook-exit.patch"
    area = edited.path
    marked = (area / "kernel/exit.c").read_text()
    assert "<<<<<<<" in marked
    assert "/* exit row 20 */" in marked
    assert "vs_exit(20);" in marked
    said = capsys.readouterr().err
    assert "kernel/exit.c: conflict markers" in said
    assert "git am --continue" in said
    with pytest.raises(UsageError, match="git waits for a conflict"):
        export(bench)
    assert edit(bench, key="tree-2").stopped_at
    (area / "kernel/exit.c").write_text(EXIT.replace("/* exit line 20 */", "vs_exit(2020);"))
    git(area, "add", "--all")
    git(area, "am", "--continue")
    assert export(bench).changed == ("hook-exit.patch", "hook-end.patch")
    assert b"+vs_exit(2020);" in (bench.series / "hook-exit.patch").read_bytes()
    assert b"-/* exit row 20 */" in (bench.series / "hook-exit.patch").read_bytes()


def test_a_patch_whose_surroundings_changed_is_proposed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    normal(bench)
    (bench.tree / "kernel/fork.c").write_text(FORK.replace("line 29 *", "row 29 *"))
    edited = edit(bench, key="tree-2")
    assert edited.stopped_at == "hook-fork.patch"
    assert "kernel/fork.c: put where it seems to belong" in capsys.readouterr().err
    wanted = FORK.replace("line 29 *", "row 29 *").replace("line 30 */\n", "line 30 */\nint vs;\n")
    assert (edited.path / "kernel/fork.c").read_text() == wanted
    git(edited.path, "add", "--all")
    git(edited.path, "am", "--continue")
    assert export(bench).changed == ("hook-fork.patch",)
    api.apply(LINE, FakeTree(bench.tree, "tree-2"))
    assert (bench.tree / "kernel/fork.c").read_text() == wanted


def test_a_file_that_is_gone_upstream_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    normal(bench)
    (bench.tree / "kernel/fork.c").unlink()
    assert edit(bench, key="tree-2").stopped_at == "hook-fork.patch"
    assert "kernel/fork.c does not exist in this source" in capsys.readouterr().err


def test_edit_again_keeps_work_and_says_so(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    (area / "kernel/vserver/core.c").write_text("int mine;\n")
    assert edit(bench).path == area
    assert (area / "kernel/vserver/core.c").read_text() == "int mine;\n"
    with pytest.raises(UsageError, match=r"not committed in .*: kernel/vserver/core\.c"):
        export(bench)
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + "vs_exit();\n"})
    with pytest.raises(UsageError, match="holds uncommitted changes"):
        edit(bench)
    git(area, "commit", "-q", "-a", "-m", "vserver: mine")
    with pytest.raises(UsageError, match="has changed since the work area was opened"):
        export(bench)
    with pytest.raises(UsageError, match="commits that are not exported"):
        edit(bench)
    edit(bench, fresh=True)
    [old] = area.parent.glob("edit-*")
    assert (old / "kernel/vserver/core.c").read_text() == "int mine;\n"
    assert (area / "kernel/exit.c").read_text().endswith("vs_exit();\n")


def test_an_area_without_work_follows_the_series(bench: Bench) -> None:
    normal(bench)
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + "vs_exit();\n"})
    area = edit(bench).path
    assert (area / "kernel/exit.c").read_text().endswith("vs_exit();\n")
    assert not list(area.parent.glob("edit-*"))


def test_adding_a_file_keeps_unexported_commits(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    (area / "kernel/vserver/core.c").write_text("int mine;\n")
    git(area, "commit", "-q", "-a", "--amend", "--no-edit")
    edit(bench, add=("kernel/exit.c",))
    assert (area / "kernel/exit.c").read_text() == EXIT
    assert (area / "kernel/vserver/core.c").read_text() == "int mine;\n"
    assert edit(bench, add=("kernel/exit.c",)).path == area
    assert export(bench).changed == ("common/more.patch",)


def test_what_git_stash_holds_is_moved_aside(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    (area / "kernel/vserver/core.c").write_text("int mine;\n")
    git(area, "stash", "-q")
    edit(bench, add=("kernel/exit.c",))
    assert (area / "kernel/exit.c").read_text() == EXIT
    [old] = area.parent.glob("edit-*")
    git(old, "stash", "pop", "-q")
    assert (old / "kernel/vserver/core.c").read_text() == "int mine;\n"


@pytest.mark.parametrize("name", ["kernel/nowhere.c", "/etc/passwd", "../x.c"])
def test_adding_what_is_not_there_is_refused(bench: Bench, name: str) -> None:
    bench.standard()
    with pytest.raises(UsageError, match="is not"):
        edit(bench, add=(name,))


def test_merges_and_empty_areas_are_refused(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    git(area, "checkout", "-q", "-b", "side", "HEAD~1")
    git(area, "merge", "-q", "--no-ff", "series")
    git(area, "commit", "-q", "--allow-empty", "-m", "x")
    head = git(area, "rev-parse", "HEAD").strip()
    git(area, "checkout", "-q", "series")
    git(area, "reset", "-q", "--hard", "HEAD~1")
    git(area, "commit", "-q", "--allow-empty", "-m", "vserver: other side")
    git(area, "merge", "-q", "-m", "merge", head)
    with pytest.raises(UsageError, match="holds a merge"):
        export(bench)
    git(area, "reset", "-q", "--hard", "base")
    with pytest.raises(UsageError, match="holds no commit"):
        export(bench)
    assert (bench.series / "hook-fork.patch").is_file()


def test_an_empty_commit_is_named(bench: Bench) -> None:
    normal(bench)
    area = edit(bench).path
    git(area, "commit", "-q", "--allow-empty", "-m", "vserver: nothing")
    with pytest.raises(UsageError, match="the commit 'vserver: nothing' in the work area changes nothing"):
        export(bench)


def test_an_interrupted_export_is_repeated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    normal(bench)
    area = edit(bench).path
    git(area, "commit", "-q", "--amend", "-m", "vserver: new words\n\nWhy.")
    (area / "kernel/vserver/x.c").write_text("int x;\n")
    git(area, "add", ".")
    git(area, "commit", "-q", "-m", "vserver: Add x")
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "series_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export(bench)
    assert export(bench).changed == ()
    assert (bench.series / "series").read_text().endswith("common/more.patch\ncommon/add-x.patch\n")
    assert b"new words" in (bench.series / "common/more.patch").read_bytes()


def test_export_without_an_area_opens_one(bench: Bench) -> None:
    bench.standard()
    done = export(bench)
    assert (done.queue / "series").is_file()
    assert (api.area_of(LINE).path / "kernel/fork.c").is_file()


def test_words_in_other_scripts_and_code_with_odd_lines_survive(bench: Bench) -> None:
    text = "/* naïve: жук */\n\n-- \nFrom nobody\n--- a/fake\n+++ b/fake\n@@ -1 +1 @@\nindex 0000000..1111111\r\n"
    bench.add("common/odd.patch", {"kernel/vserver/odd.c": text + "last line\n"}, subject="vserver: Größe")
    edit(bench)
    export(bench)
    before = patches(bench)
    edit(bench, fresh=True)
    assert export(bench).changed == ()
    assert patches(bench) == before
    api.apply(LINE, FakeTree(bench.tree))
    assert (bench.tree / "kernel/vserver/odd.c").read_bytes().decode() == text + "last line\n"


def test_the_queue_serves_git_am_three_way(bench: Bench, tmp_path: Path) -> None:
    """On a tree whose context has moved, plain am fails and am -3 succeeds, thanks to the full blob names."""
    normal(bench)
    queue = export(bench).queue
    names = (queue / "series").read_text().split()
    assert [name[:5] for name in names] == ["0001-", "0002-", "0003-"]
    assert (queue / "cloison.config").read_text() == "CONFIG_VSERVER=y\n"
    repo = tmp_path / "packager"
    (repo / "kernel").mkdir(parents=True)
    git(repo, "init", "-q")
    (repo / "kernel/fork.c").write_text(FORK)
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "mainline")
    (repo / "kernel/fork.c").write_text(FORK.replace("line 28 *", "row 28 *"))
    git(repo, "commit", "-q", "-a", "-m", "their change")
    files = [str(queue / name) for name in names]
    git(repo, "am", "-q", *files, status=128)
    git(repo, "am", "--abort")
    git(repo, "am", "-q", "-3", *files)
    assert "int vs;" in (repo / "kernel/fork.c").read_text()
    assert "row 28" in (repo / "kernel/fork.c").read_text()


def test_git_am_and_quilt_take_the_series_as_it_lies(bench: Bench, tmp_path: Path) -> None:
    normal(bench)
    names = [line for line in (bench.series / "series").read_text().split("\n") if line and line[0] != "#"]
    repo = tmp_path / "am"
    shutil.copytree(bench.tree, repo)
    git(repo, "init", "-q")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "mainline")
    git(repo, "am", "-q", *(str(bench.series / name) for name in names))
    api.apply(LINE, FakeTree(bench.tree))
    for name in ("kernel/fork.c", "kernel/vserver/core.c"):
        assert (repo / name).read_bytes() == (bench.tree / name).read_bytes()
    if shutil.which("quilt"):
        api.revert(LINE, FakeTree(bench.tree))
        subprocess.run(
            ["quilt", "--quiltrc", "-", "push", "-q", "-a", "--fuzz=0"],
            cwd=bench.tree,
            env={**os.environ, "QUILT_PATCHES": str(bench.series)},
            check=True,
            capture_output=True,
        )
        assert (repo / "kernel/fork.c").read_bytes() == (bench.tree / "kernel/fork.c").read_bytes()


def test_a_message_that_git_would_cut_is_noticed_not_written(bench: Bench) -> None:
    """A diff inside a commit message would become part of the patch; the proof of the export refuses it."""
    normal(bench)
    before = patches(bench)
    area = edit(bench).path
    message = "vserver: odd\n\n" + diff({"kernel/fork.c": FORK}, {"kernel/fork.c": FORK + "x\n"})
    git(area, "commit", "-q", "--amend", "-m", message)
    with pytest.raises(BuildError):
        export(bench)
    assert patches(bench) == before


def test_clean_keeps_work_that_is_nowhere_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "project", lambda: Project(root=bench.root, cache=bench.root / "cache"))
    build = bench.root / "build"
    normal(bench)
    api.apply(LINE, FakeTree(bench.tree))
    (bench.tree / "kernel/fork.c").write_text("by hand")
    api.apply(LINE, FakeTree(bench.tree))
    area = edit(bench).path
    (area / "kernel/fork.c").write_text("uncommitted")
    clean.clean(line="6.12")
    assert (area / "kernel/fork.c").read_text() == "uncommitted"
    assert [path.read_text() for path in (build / "6.12").rglob("changed-by-hand/*/kernel/fork.c")] == ["by hand"]
    assert not (build / "6.12/source").exists()
    git(area, "checkout", "-q", ".")
    shutil.rmtree(build / "6.12/changed-by-hand")
    clean.clean()
    assert not build.exists()


def test_patches_that_give_something_else_are_not_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    normal(bench)
    before = patches(bench)
    real = exporting.area_series

    def wrong(area: Area, folder: Path) -> Series:
        series = real(area, folder)
        last = series.patches[-1]
        other = replace(last, data=last.data.replace(b"+int vs_changed", b"+int vs_other"))
        return replace(series, patches=(*series.patches[:-1], other))

    monkeypatch.setattr(api, "area_series", wrong)
    with pytest.raises(BuildError, match=r"do not give kernel/vserver/core\.c as it is"):
        export(bench)
    assert patches(bench) == before
