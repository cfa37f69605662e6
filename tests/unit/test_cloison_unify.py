# SPDX-License-Identifier: GPL-2.0-or-later
"""``cloison unify``: what is found equal, what is left alone, and that nothing is believed twice.

The marks of shared files need a patched kernel and root; here a set stands in their place.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cloison_fakes import FakeKernel

from cloison import cli, inode, unify, unify_apply, unify_plan
from cloison.names import Registry
from cloison.syscall import Vserver
from cloison.unify_plan import Rules, Sums, Trees

TIME = 1_600_000_000_123_456_789
EVERYTHING = Rules(())


class Marks:
    """Which files are shared, by number, and what else the kernel would know of them."""

    def __init__(self) -> None:
        self.shared: set[int] = set()
        self.immutable: set[int] = set()
        self.writers: set[int] = set()
        self.extended: dict[int, tuple[tuple[str, bytes], ...]] = {}


def _number(fd: int) -> int:
    return os.fstat(fd).st_ino


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch) -> Marks:
    made = Marks()
    both = made.shared
    monkeypatch.setattr(inode, "is_shared", lambda fd: _number(fd) in both)
    monkeypatch.setattr(inode, "has_iunlink", lambda fd: _number(fd) in both)
    monkeypatch.setattr(inode, "flags", lambda fd: inode.IMMUTABLE * (_number(fd) in both | made.immutable))
    monkeypatch.setattr(inode, "share", lambda fd: both.add(_number(fd)))
    monkeypatch.setattr(inode, "unshare", lambda fd: both.discard(_number(fd)))
    monkeypatch.setattr(inode, "take_lease", lambda fd: _number(fd) not in made.writers)
    monkeypatch.setattr(inode, "drop_lease", lambda fd: None)
    monkeypatch.setattr(inode, "extended", lambda fd: made.extended.get(_number(fd), ()))
    return made


def put(path: Path, content: bytes, *, mode: int = 0o644, time: int = TIME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(time, time))
    return path


def opened(*roots: Path, references: int = 0) -> Trees:
    return Trees([str(root) for root in roots], references)


def unified(*roots: Path, references: int = 0, rules: Rules = EVERYTHING, sums: Sums | None = None) -> Any:
    skipped: Counter[str] = Counter()
    with opened(*roots, references=references) as trees:
        nodes = unify_plan.walk(trees, rules, skipped)
        found = unify_plan.classes(trees, nodes, rules, sums or Sums(None), skipped, lambda _: None)
        outcome = unify_apply.apply(trees, found, lambda _: None)
    outcome.skipped.update(skipped)
    return outcome


def one(*paths: Path) -> bool:
    return len({path.stat().st_ino for path in paths}) == 1


def test_equal_files_become_one_that_is_shared(tmp_path: Path, marks: Marks) -> None:
    a, b, c = (put(tmp_path / root / "usr/lib/x.so", b"same" * 5000) for root in "abc")
    other = put(tmp_path / "a/usr/lib/y.so", b"else" * 5000)
    outcome = unified(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert one(a, b, c)
    assert not one(a, other)
    assert a.stat().st_ino in marks.shared
    assert (outcome.files, len(outcome.names)) == (2, 2)
    assert outcome.saved >= 2 * 20000
    assert not list(tmp_path.rglob(unify_plan.TEMPORARY + "*"))


@pytest.mark.parametrize("differs", ["mode", "time", "attributes", "content"])
def test_what_differs_in_anything_stays_apart(tmp_path: Path, marks: Marks, differs: str) -> None:
    a = put(tmp_path / "a/x", b"same")
    b = put(
        tmp_path / "b/x",
        b"same" if differs != "content" else b"sane",
        mode=0o600 if differs == "mode" else 0o644,
        time=TIME + (differs == "time"),
    )
    if differs == "attributes":
        marks.extended[b.stat().st_ino] = (("security.capability", b"x"),)
    assert unified(tmp_path / "a", tmp_path / "b").names == []
    assert not one(a, b)
    assert marks.shared == set()


def test_times_can_be_left_out(tmp_path: Path) -> None:
    a, b = put(tmp_path / "a/x", b"same"), put(tmp_path / "b/x", b"same", time=5)
    unified(tmp_path / "a", tmp_path / "b", rules=Rules((), times=False))
    assert one(a, b)


def test_a_reference_lends_its_file_and_keeps_its_names(tmp_path: Path) -> None:
    lent = put(tmp_path / "ref/x", b"same")
    double = put(tmp_path / "ref/y", b"same")
    a = put(tmp_path / "a/x", b"same")
    before = lent.stat().st_ino, double.stat().st_ino
    unified(tmp_path / "ref", tmp_path / "a", references=1)
    assert (lent.stat().st_ino, double.stat().st_ino) == before
    assert a.stat().st_ino in before


def test_what_others_share_already_is_kept(tmp_path: Path, marks: Marks) -> None:
    kept = put(tmp_path / "elsewhere", b"same")
    (tmp_path / "a").mkdir()
    os.link(kept, tmp_path / "a/x")
    marks.shared.add(kept.stat().st_ino)
    b = put(tmp_path / "b/x", b"same")
    unified(tmp_path / "a", tmp_path / "b")
    assert one(kept, b)


def test_files_with_names_elsewhere_or_in_use_or_immutable_are_left_alone(tmp_path: Path, marks: Marks) -> None:
    for index, name in enumerate("pqr"):
        put(tmp_path / "a" / name, bytes([index]) * 100)
        put(tmp_path / "b" / name, bytes([index]) * 100)
    os.link(tmp_path / "b/p", tmp_path / "secret")
    marks.writers.add((tmp_path / "b/q").stat().st_ino)
    marks.immutable.add((tmp_path / "b/r").stat().st_ino)
    outcome = unified(tmp_path / "a", tmp_path / "b")
    assert outcome.skipped == {"other names": 1, "in use": 1, "immutable": 1}
    assert outcome.names == []
    assert marks.shared == set()


def test_a_keeper_in_use_is_not_shared(tmp_path: Path, marks: Marks) -> None:
    a, b = put(tmp_path / "a/x", b"same"), put(tmp_path / "b/x", b"same")
    marks.writers |= {a.stat().st_ino, b.stat().st_ino}
    assert unified(tmp_path / "a", tmp_path / "b").skipped == {"in use": 1}
    assert marks.shared == set()


def test_a_file_that_changes_after_it_was_read_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = put(tmp_path / "a/x", b"same"), put(tmp_path / "b/x", b"same")
    real = unify_plan.classes

    def then(*args: Any) -> Any:
        found = real(*args)
        put(b, b"sane")  # same size and time: only the bytes tell
        return found

    monkeypatch.setattr(unify_plan, "classes", then)
    outcome = unified(tmp_path / "a", tmp_path / "b")
    assert outcome.skipped == {"changed": 1}
    assert (a.read_bytes(), b.read_bytes()) == (b"same", b"sane")


def _while_exchanging(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    real = inode.exchange
    done: list[bool] = []

    def exchange(directory: int, one: str, other: str) -> None:
        if not done:
            done.append(True)
            act()
        real(directory, one, other)

    monkeypatch.setattr(inode, "exchange", exchange)


def test_a_name_that_is_replaced_at_the_last_moment_keeps_its_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a/x", b"same")
    b = put(tmp_path / "b/x", b"same")
    _while_exchanging(monkeypatch, lambda: put(b.with_name("new"), b"guest's own").replace(b))
    assert unified(tmp_path / "a", tmp_path / "b").skipped == {"changed": 1}
    assert b.read_bytes() == b"guest's own"
    assert [path.name for path in b.parent.iterdir()] == ["x"]


def test_a_file_that_the_guest_has_opened_for_writing_meanwhile_stays(
    tmp_path: Path, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a/x", b"same")
    b = put(tmp_path / "b/x", b"same")
    number = b.stat().st_ino
    _while_exchanging(monkeypatch, lambda: marks.shared.discard(number))
    assert unified(tmp_path / "a", tmp_path / "b").skipped == {"changed": 1}
    assert b.stat().st_ino == number


def test_a_directory_that_becomes_a_link_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = put(tmp_path / "a/d/x", b"same"), put(tmp_path / "b/d/x", b"same")
    victim = put(tmp_path / "victim/x", b"same")
    real = unify_plan.classes

    def then(*args: Any) -> Any:
        found = real(*args)
        b.parent.rename(tmp_path / "moved")
        (tmp_path / "b/d").symlink_to(victim.parent)
        return found

    monkeypatch.setattr(unify_plan, "classes", then)
    unified(tmp_path / "a", tmp_path / "b")
    assert victim.stat().st_nlink == 1
    assert a.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("path", "patterns", "out"),
    [
        ("etc/passwd", ["/etc"], False),
        ("etc", ["/etc"], True),
        ("usr/etc", ["/etc"], False),
        ("usr/lib/a.pyc", ["*.pyc"], True),
        ("opt/data", ["/opt/d*"], True),
        ("lost+found", ["lost+found"], True),
    ],
)
def test_exclusions(path: str, patterns: list[str], out: bool) -> None:
    assert unify_plan.excluded(path, patterns) is out


def test_excluded_directories_are_not_entered(tmp_path: Path) -> None:
    a, b = put(tmp_path / "a/etc/x", b"same"), put(tmp_path / "b/etc/x", b"same")
    unified(tmp_path / "a", tmp_path / "b", rules=Rules())
    assert not one(a, b)


def test_hashes_are_kept_between_runs(tmp_path: Path) -> None:
    cache = tmp_path / "cache/sums"
    for root in "ab":
        put(tmp_path / root / "x", b"one" if root == "a" else b"two")
    runs = []
    for _ in range(2):
        sums = Sums(cache)
        unified(tmp_path / "a", tmp_path / "b", sums=sums)
        sums.close()
        runs.append((sums.read, sums.known))
    assert runs == [(2, 0), (0, 2)]
    put(tmp_path / "a/x", b"six", time=TIME)
    sums = Sums(cache)
    unified(tmp_path / "a", tmp_path / "b", sums=sums)
    assert (sums.read, sums.known) == (1, 1)


def test_the_second_run_finds_nothing_to_do(tmp_path: Path) -> None:
    for root in "ab":
        put(tmp_path / root / "x", b"same")
    assert len(unified(tmp_path / "a", tmp_path / "b").names) == 1
    assert unified(tmp_path / "a", tmp_path / "b").names == []


def test_check_finds_and_removes_what_a_crash_left(tmp_path: Path, marks: Marks) -> None:
    left = put(tmp_path / "a/usr" / f"{unify_plan.TEMPORARY}99", b"x")
    put(tmp_path / "a/usr/y", b"y")
    with opened(tmp_path / "a") as trees:
        found = unify_apply.check(trees, Rules(()), repair=False)
        assert found.leftovers == [str(left)]
        assert left.exists()
        unify_apply.check(trees, Rules(()), repair=True)
    assert not left.exists()
    assert (tmp_path / "a/usr/y").exists()


def test_check_looks_into_the_work_directory_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / inode.WORK_DIRECTORY
    left = put(work / "4711", b"x")
    work.chmod(0o700)
    monkeypatch.setattr(unify_apply, "_work_directory", lambda _path: str(work))
    monkeypatch.setattr(unify_apply, "_is_ours", lambda _descriptor: True)
    put(tmp_path / "a/y", b"y")
    with opened(tmp_path / "a") as trees:
        assert unify_apply.check(trees, Rules(()), repair=True).leftovers == [str(left)]
    assert not left.exists()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(unify, "LOCK", tmp_path / "lock")
    kernel = FakeKernel()
    kernel.configuration |= unify.BREAKS_LINKS

    def run(*words: str) -> int:
        return cli.main(
            ["unify", "--no-default-exclude", "--no-cache", *words],
            kernel=Vserver(kernel),
            registry=Registry(tmp_path / "names"),
        )

    return run


def test_the_command_reports_to_people_and_programs(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    roots = [str(put(tmp_path / root / "x", b"same" * 3000).parent) for root in "ab"]
    assert command("--dry-run", *roots) == 0
    assert "would be unified   1 names of 1 files" in capsys.readouterr().out
    assert not one(*(Path(root, "x") for root in roots))
    assert command("--json", *roots) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["files"], data["saved"] >= 12000, data["skipped"]) == (1, True, {})
    assert one(*(Path(root, "x") for root in roots))


def test_bad_input_is_one_line(tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(tmp_path / "nowhere")) == 2
    assert "is no directory" in capsys.readouterr().err


def test_a_kernel_that_breaks_no_links_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["unify", "--no-cache", str(tmp_path)]
    assert cli.main(words, kernel=Vserver(FakeKernel()), registry=Registry(tmp_path / "names")) == 1
    assert "own copy" in capsys.readouterr().err
