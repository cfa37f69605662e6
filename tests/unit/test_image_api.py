# SPDX-License-Identifier: GPL-2.0-or-later
"""The room's interface: what lands in the image, nothing done twice, and how it gets its rights."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.image_fakes import small_tar

from cloison_forge.core import lines
from cloison_forge.core.errors import BuildError, CommandError, ToolMissingError
from cloison_forge.core.paths import Project, project
from cloison_forge.image import api, companion, recipe, rootfs
from cloison_forge.image.lockfile import Package
from cloison_forge.image.rights import may_own

LINE = lines.get("6.12")


@dataclass(frozen=True)
class FakeKernel:
    image: Path
    release: str = "6.12.117-cloison"
    key: str = "k"
    provenance: Mapping[str, object] = field(default_factory=lambda: {"series": "s"})


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the build folder and give a small Debian tree in place of the real one."""
    monkeypatch.setenv("CLOISON_BUILD", str(tmp_path / "build"))
    tar = rootfs.RootTar(small_tar(tmp_path / "debian.tar"), "t", (Package("bash", "1", "amd64", 1, "0" * 64),), ())
    monkeypatch.setattr(rootfs, "ensure", lambda *_, **__: tar)
    return tmp_path / "build" / "6.12" / "image"


def debugfs(image: Path, request: str) -> str:
    return subprocess.run(["/sbin/debugfs", "-R", request, image], check=True, capture_output=True, text=True).stdout


def test_the_root_holds_tools_pid_1_and_settings_and_is_made_once(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = api.root(LINE)
    assert root.path == built / "root" / "root.ext4"
    assert "Mode:  0755" in debugfs(root.path, "stat /usr/lib/cloison/init")
    assert "User:     0" in debugfs(root.path, "stat /usr/lib/cloison/cloison/__init__.py")
    assert debugfs(root.path, "cat /usr/sbin/cloison").startswith("#!/usr/bin/python3 -I")
    assert root.uuid in debugfs(root.path, "cat /etc/fstab")
    assert "localhost" in debugfs(root.path, "cat /etc/hosts")
    assert "__pycache__" not in debugfs(root.path, "ls /usr/lib/cloison/cloison")
    assert sorted(path.name for path in root.path.parent.iterdir()) == [".stamp.json", "manifest.json", "root.ext4"]
    written = root.path.stat().st_mtime_ns
    capsys.readouterr()
    assert api.root(LINE) == root
    assert root.path.stat().st_mtime_ns == written
    assert "up to date" in capsys.readouterr().err


def test_the_disk_follows_kernel_and_root(built: Path, tmp_path: Path) -> None:
    root = api.root(LINE)
    image = tmp_path / "bzImage"
    image.write_bytes(os.urandom(100000))
    first = api.disk(LINE, FakeKernel(image), root)
    assert first.path == built / "disk" / "disk.raw"
    written = first.path.stat().st_mtime_ns
    assert api.disk(LINE, FakeKernel(image), root) == first
    assert first.path.stat().st_mtime_ns == written
    other = api.disk(LINE, FakeKernel(image, key="l"), root)
    assert other.key != first.key
    assert '"series": "s"' in (first.path.parent / "manifest.json").read_text(encoding="utf-8")
    assert other.root_partuuid == recipe.load().disk.root_guid
    assert (built / "root" / "root.ext4").is_file()


def test_an_interrupted_stage_leaves_nothing_behind(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(companion, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            api.root(LINE)
    assert [path.name for path in built.iterdir()] == [".lock"]
    closed = built / ".root.killed" / "tree" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.chmod(0)
    assert api.root(LINE).path.is_file()
    assert not (built / ".root.killed").exists()


def test_a_full_disk_while_writing_is_one_line(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(companion, "write", full)
    with pytest.raises(BuildError, match="root file system: no space left on the disk of"):
        api.root(LINE)


def test_a_full_disk_below_a_program_is_one_line(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise CommandError("tar failed with status 2\n | tar: x: Cannot write: No space left on device")

    monkeypatch.setattr("cloison_forge.image.ext4.run", full)
    with pytest.raises(BuildError, match="root file system: no space left on the disk of") as caught:
        api.root(LINE)
    assert "\n" not in caught.value.message


def test_pid_1_that_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "images" / "init"
    shutil.copytree(project().images / "init", source)
    (source / "broken.c").write_text("int x = ;\n", encoding="utf-8")
    monkeypatch.setattr(companion, "project", lambda: Project(root=tmp_path, cache=tmp_path / "cache"))
    with pytest.raises(BuildError, match=r"images/init does not compile: broken\.c:1:9: error") as caught:
        companion.compile_init(tmp_path)
    assert "\n" not in caught.value.message


def test_pid_1_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = companion.compile_init(tmp_path).read_bytes()
    shutil.copytree(project().images / "init", tmp_path / "elsewhere" / "images" / "init")
    monkeypatch.setattr(companion, "project", lambda: Project(root=tmp_path / "elsewhere", cache=tmp_path))
    assert companion.compile_init(tmp_path).read_bytes() == first


def test_rights_are_tried_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "mknod", refused)
    assert not may_own(tmp_path)
    monkeypatch.setattr(os, "mknod", lambda path, *_: Path(path).touch())
    monkeypatch.setattr(os, "chown", lambda *_: None)
    assert may_own(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not may_own(tmp_path)


@pytest.mark.parametrize(
    ("user", "working", "programs", "chosen"),
    [
        (0, {"--pid"}, set(), "root"),
        (0, set(), {"fakechroot", "fakeroot"}, "fakechroot"),
        (1000, {"--user"}, {"newuidmap", "fakechroot", "fakeroot"}, "unshare"),
        (1000, set(), {"newuidmap", "fakechroot", "fakeroot"}, "fakechroot"),
        (1000, {"--user"}, {"fakechroot", "fakeroot"}, "fakechroot"),
    ],
)
def test_the_mode_follows_the_rights(
    monkeypatch: pytest.MonkeyPatch, user: int, working: set[str], programs: set[str], chosen: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(rootfs, "may_own", lambda _: user == 0)
    monkeypatch.setattr(rootfs, "_works", lambda words: bool(working & set(words)))
    monkeypatch.setattr(rootfs, "_has_subuids", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name, **_: name if name in programs else None)
    assert rootfs.mode() == chosen


def test_without_any_rights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolMissingError) as caught:
        rootfs.mode()
    assert "apt-get install fakechroot" in caught.value.hint
