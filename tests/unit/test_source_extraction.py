# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees in place: the second call is free, a kill leaves nothing, two at once wait, damage is put aside."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.source_fakes import kernel_files, kernel_tar, line_for, live_in, sha256, xz

from cloison_forge.core.errors import BuildError
from cloison_forge.core.lines import Line
from cloison_forge.core.paths import Project
from cloison_forge.source import cache, extraction, local, tarball
from cloison_forge.source.api import FetchOptions, ensure_tree, fetch
from cloison_forge.source.model import Origin, RefusedError
from cloison_forge.source.tree import STAMP, tree_sha256

TAR = kernel_tar("6.12.7")
LINE = line_for("6.12.7", TAR)
TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return live_in(tmp_path, monkeypatch)


def warm(tar: bytes = TAR, line: Line = LINE) -> Origin:
    """Put the reference of a line into the cache."""
    path = cache.folder(line, "debian") / "linux.tar.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(xz(tar))
    return cache.store(Origin("debian", line.version, line.package_version, path, sha256(tar), {"origin": "debian"}))


def in_build(place: Project) -> list[str]:
    """What lies in the line's folder, work in progress included, locks not."""
    found = [path for path in place.line("6.12").rglob("*") if path.name != ".lock"]
    top = {path.relative_to(place.line("6.12")).parts[0] for path in found}
    work = [path.name for path in found if path.parent.name.endswith(".work")]
    return sorted(top | set(work))


def test_a_tree_is_extracted_once_and_then_only_looked_at(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    warm()
    tree = ensure_tree(LINE, FetchOptions())
    assert tree.path == place.line("6.12") / "source"
    assert tree.reference
    assert tree.key == tree_sha256(tree.path)
    assert (tree.path / "scripts/run.sh").stat().st_mode & 0o777 == 0o755
    assert (tree.path / "Kconfig").read_bytes() == kernel_files("6.12.7")["Kconfig"][0]
    monkeypatch.setattr(tarball, "stream", None)
    monkeypatch.setattr("cloison_forge.source.tree.tree_sha256", None)
    (tree.path / "Kconfig").write_text("patched\n", encoding="ascii")
    begun = time.perf_counter()
    again = ensure_tree(LINE, FetchOptions())
    assert time.perf_counter() - begun < 0.03
    assert again == tree
    assert (tree.path / "Kconfig").read_text(encoding="ascii") == "patched\n"


def test_another_request_for_the_same_tar_keeps_the_tree(place: Project) -> None:
    warm()
    first = ensure_tree(LINE, FetchOptions())
    (first.path / "Kconfig").write_text("patched\n", encoding="ascii")
    second = ensure_tree(LINE, FetchOptions("debian"))
    assert (second.key, second.made) == (first.key, first.made)
    assert (first.path / "Kconfig").read_text(encoding="ascii") == "patched\n"


def test_a_task_that_names_no_origin_goes_on_with_the_tree_that_is_there(place: Project, tmp_path: Path) -> None:
    warm()
    own = tmp_path / "own.tar"
    own.write_bytes(kernel_tar("6.12.9"))
    local_tree = ensure_tree(LINE, FetchOptions(origin="local", value=str(own)))
    assert ensure_tree(LINE, FetchOptions(origin="")) == local_tree
    assert ensure_tree(LINE, FetchOptions(origin="auto")).reference
    assert ensure_tree(LINE, FetchOptions(origin="")).reference


def test_another_source_replaces_the_tree_whole(place: Project, tmp_path: Path) -> None:
    warm()
    first = ensure_tree(LINE, FetchOptions())
    (first.path / "left-over.c").touch()
    mine = tmp_path / "mine.tar"
    mine.write_bytes(kernel_tar("6.12.7", extra="mine"))
    second = ensure_tree(LINE, FetchOptions("local", str(mine)))
    assert not second.reference
    assert second.key != first.key
    assert second.made != first.made
    assert not (second.path / "left-over.c").exists()
    assert in_build(place) == [".source.work", "source"]
    assert ensure_tree(LINE, FetchOptions()).key == first.key


def test_a_changed_local_tree_is_noticed(place: Project, tmp_path: Path) -> None:
    own = tmp_path / "own"
    tarball.extract(warm().tar, "t", _made(own), LINE.tar_sha256)
    options = FetchOptions("local", str(own))
    first = ensure_tree(LINE, options)
    assert ensure_tree(LINE, options).made == first.made
    os.utime(own / "Kconfig", (1, 1))
    assert ensure_tree(LINE, options).made == first.made
    (own / "Kconfig").write_text("other\n", encoding="ascii")
    second = ensure_tree(LINE, options)
    assert second.key != first.key
    assert (second.path / "Kconfig").read_text(encoding="ascii") == "other\n"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_second_folder_is_extracted_beside(place: Project) -> None:
    warm()
    first = ensure_tree(LINE, FetchOptions())
    second = ensure_tree(LINE, FetchOptions(), folder="absent")
    assert second.path == place.line("6.12") / "absent"
    assert second.key == first.key


def test_a_new_pin_is_a_new_request(place: Project) -> None:
    warm()
    first = ensure_tree(LINE, FetchOptions())
    tar = kernel_tar("6.12.8")
    newer = line_for("6.12.8", tar)
    warm(tar, newer)
    assert ensure_tree(newer, FetchOptions()).key != first.key


def test_a_damaged_cached_tarball_is_put_aside_and_the_next_run_is_fine(place: Project) -> None:
    origin = warm()
    data = bytearray(origin.tar.read_bytes())
    data[len(data) // 2] ^= 1
    origin.tar.write_bytes(data)
    with pytest.raises(RefusedError, match=r"linux\.tar\.xz is refused") as caught:
        ensure_tree(LINE, FetchOptions())
    assert "quarantine" in caught.value.hint
    assert cache.cached(LINE) == []
    assert in_build(place) == [".source.work"]
    warm()
    assert ensure_tree(LINE, FetchOptions()).reference


def test_an_exchanged_cached_tarball_is_never_used(place: Project) -> None:
    origin = warm()
    origin.tar.write_bytes(xz(kernel_tar("6.12.7", extra="evil")))
    with pytest.raises(RefusedError, match="the SHA-256 of the uncompressed tar"):
        ensure_tree(LINE, FetchOptions())
    assert not (place.line("6.12") / "source").exists()
    assert cache.cached(LINE) == []


def test_a_tree_of_another_line_is_refused(place: Project, tmp_path: Path) -> None:
    mine = tmp_path / "mine.tar"
    mine.write_bytes(kernel_tar("5.10.1"))
    with pytest.raises(RefusedError, match=r"it is Linux 5\.10\.1, not of the line 6\.12"):
        ensure_tree(LINE, FetchOptions("local", str(mine)))
    assert mine.exists()


def test_a_file_system_that_changes_the_tree_is_noticed(place: Project) -> None:
    warm()
    pinned = line_for("6.12.7", TAR, tree="0" * 64)
    with pytest.raises(RefusedError, match="the extracted tree is not the pinned one"):
        ensure_tree(pinned, FetchOptions())
    assert not (place.line("6.12") / "source").exists()


@pytest.mark.parametrize("name", ["Makefile", STAMP])
def test_a_tree_without_makefile_or_stamp_is_extracted_again(place: Project, name: str) -> None:
    warm()
    first = ensure_tree(LINE, FetchOptions())
    (first.path / name).unlink()
    second = ensure_tree(LINE, FetchOptions())
    assert second.made != first.made
    assert (second.path / name).exists()


def test_too_little_space_is_said_before_anything_is_written(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    warm()
    monkeypatch.setattr(extraction, "free_bytes", lambda _: 5_000_000)
    with pytest.raises(BuildError, match="5 MB free for the source tree, 1900 MB needed"):
        ensure_tree(LINE, FetchOptions())
    assert in_build(place) == [".source.work"]


def test_a_disk_that_fills_up_ends_in_one_line(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    warm()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tarball, "extract", full)
        with pytest.raises(BuildError, match="the source tree: no space left on the disk") as caught:
            ensure_tree(LINE, FetchOptions())
    assert "\n" not in caught.value.message
    assert in_build(place) == [".source.work"]
    assert ensure_tree(LINE, FetchOptions()).reference


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_tar_on_a_really_full_disk_is_named(place: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = warm(kernel_tar("6.12.7", extra="x" * 3_000_000))
    small = _made(place.root / "small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(BuildError, match=r"extraction of linux: no space left on the disk of"):
            tarball.extract(origin.tar, "linux", small, origin.tar_sha256)
    finally:
        subprocess.run(["umount", small], check=True)


SCRIPT = """
import sys, time
from pathlib import Path
from cloison_forge.core.lines import Line
from cloison_forge.source import tarball
from cloison_forge.source.api import FetchOptions, ensure_tree
line = Line(**{line!r})
slow = tarball.stream
def stream(*words):
    Path(sys.argv[1]).touch()
    for data in slow(*words):
        yield data[:1024]
        time.sleep(float(sys.argv[2]))
        yield data[1024:]
tarball.stream = stream
print(ensure_tree(line, FetchOptions()).made)
"""


def start(place: Project, mark: Path, seconds: float) -> subprocess.Popen[str]:
    """Extract in another process, which stops for a while in the middle, after touching `mark`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOOLS),
        "CLOISON_CACHE": str(place.cache),
        "CLOISON_BUILD": str(place.build),
    }
    text = textwrap.dedent(SCRIPT).replace("{line!r}", repr(vars(LINE)))
    argv = [sys.executable, "-c", text, str(mark), str(seconds)]
    process = subprocess.Popen(argv, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while not mark.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return process


def test_a_kill_in_the_middle_leaves_nothing_that_counts(place: Project, tmp_path: Path) -> None:
    warm()
    process = start(place, tmp_path / "mark", 60)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (place.line("6.12") / "source").exists()
    assert [name for name in in_build(place) if name.startswith("new.")]
    tree = ensure_tree(LINE, FetchOptions())
    assert tree.key == tree_sha256(tree.path)
    assert in_build(place) == [".source.work", "source"]


def test_two_at_once_make_one_tree_and_the_second_waits(place: Project, tmp_path: Path) -> None:
    warm()
    first = start(place, tmp_path / "one", 1.0)
    second = start(place, tmp_path / "one", 1.0)
    made, _ = first.communicate(timeout=60)
    same, told = second.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    assert made == same != ""
    assert told.count("waiting for it to finish") == 1


def test_the_cache_is_swept_of_what_killed_runs_left(place: Project) -> None:
    origin = warm()
    left = origin.tar.parent / f"{cache.SCRATCH}abc"
    (left / "x").mkdir(parents=True)
    fetch(LINE, FetchOptions())
    assert not left.exists()
    assert origin.tar.exists()


def test_the_local_fingerprint_is_taken_before_the_tree_is_read(place: Project, tmp_path: Path) -> None:
    """A tree that changes while it is packed is packed again the next time."""
    own = _made(tmp_path / "own")
    tarball.extract(warm().tar, "t", own, LINE.tar_sha256)
    options = FetchOptions("local", str(own))
    pack = local._packed

    def changing(tree: Path, work: Path) -> Path:
        tar = pack(tree, work)
        (own / "Kconfig").write_text("changed meanwhile\n", encoding="ascii")
        return tar

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_packed", changing)
        ensure_tree(LINE, options)
    tree = ensure_tree(LINE, options)
    assert (tree.path / "Kconfig").read_text(encoding="ascii") == "changed meanwhile\n"
