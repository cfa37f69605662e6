# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system writer: the same bytes twice, owners and devices kept, complaints in one line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.unit.image_fakes import EPOCH, GEOMETRY, small_tar

from cloison_forge.core.errors import BuildError, ToolMissingError
from cloison_forge.image import ext4


def make(folder: Path, tars: list[Path], *, fake: bool = True) -> Path:
    folder.mkdir()
    target = folder / "root.ext4"
    ext4.make(target, tars, GEOMETRY, folder, folder / "log", fake=fake)
    assert not list(folder.glob("tree.*"))
    return target


def debugfs(image: Path, request: str) -> str:
    return subprocess.run(["/sbin/debugfs", "-R", request, image], check=True, capture_output=True, text=True).stdout


def test_opposite_orders_give_the_same_bytes_and_every_attribute(tmp_path: Path) -> None:
    first = make(tmp_path / "a", [small_tar(tmp_path / "a.tar")])
    second = make(tmp_path / "b", [small_tar(tmp_path / "b.tar", turned=True)])
    assert first.read_bytes() == second.read_bytes()
    shadow = debugfs(first, "stat /etc/shadow")
    assert re.search(r"Mode:  0640", shadow)
    assert re.search(r"User:     0   Group:    42", shadow)
    assert re.search(r"Mode:  04755", debugfs(first, "stat /bin/su"))
    assert 'Fast link dest: "su"' in debugfs(first, "stat /bin/link")
    assert "Device major/minor number: 01:03" in debugfs(first, "stat /dev/null")
    user = debugfs(first, 'stat "/home/user/a file, with blanks"')
    assert "User:  1000" in user
    times = re.findall(r"^[ ]*(\w+): 0x([0-9a-f]+):00000000", user, re.M)
    assert {name: int(value, 16) for name, value in times} == {
        "ctime": EPOCH,
        "atime": EPOCH,
        "mtime": EPOCH - 1000,
        "crtime": EPOCH,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="compares with what root gets")
def test_root_and_fakeroot_give_the_same_bytes(tmp_path: Path) -> None:
    tar = small_tar(tmp_path / "a.tar")
    assert make(tmp_path / "a", [tar]).read_bytes() == make(tmp_path / "b", [tar], fake=False).read_bytes()


def test_a_later_tar_wins(tmp_path: Path) -> None:
    tar = small_tar(tmp_path / "a.tar")
    over = small_tar(tmp_path / "b.tar", extra={"./etc/new": b"second\n"})
    image = make(tmp_path / "a", [tar, over])
    assert debugfs(image, "cat /etc/new") == "second\n"


def test_a_damaged_file_system_is_named(tmp_path: Path) -> None:
    image = make(tmp_path / "a", [small_tar(tmp_path / "a.tar")])
    ext4.check(image)
    with image.open("r+b") as stream:
        stream.seek(1024 + 0x10)
        stream.write(b"\xff\xff")
    with pytest.raises(BuildError, match=r"e2fsck is not content with root\.ext4"):
        ext4.check(image)


def test_a_tar_cut_short_is_one_line(tmp_path: Path) -> None:
    tar = small_tar(tmp_path / "a.tar")
    os.truncate(tar, 12000)
    with pytest.raises(BuildError) as caught:
        make(tmp_path / "a", [tar])
    assert "\n" not in caught.value.message


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4, "free_bytes", lambda _: 5 * 10**6)
    with pytest.raises(BuildError, match="no space left on the disk of") as caught:
        make(tmp_path / "a", [small_tar(tmp_path / "a.tar")])
    assert "CLOISON_BUILD" in caught.value.hint
    assert not (tmp_path / "a" / "root.ext4").exists()


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ToolMissingError, match="mke2fs is not installed") as caught:
        make(tmp_path / "a", [small_tar(tmp_path / "a.tar")])
    assert "e2fsprogs" in caught.value.hint


def test_used_inodes_reads_every_group() -> None:
    listing = (
        "Inode count:              32\nFirst inode:              11\n  Free inodes: 14-15\n  Free inodes: 20, 22-32\n"
    )
    assert ext4.used_inodes(listing) == [2, 11, 12, 13, 16, 17, 18, 19, 21]


def test_the_size_has_room_for_content_and_journal(tmp_path: Path) -> None:
    tar = small_tar(tmp_path / "a.tar")
    assert ext4.size_mib([tar], 8) == 128
    assert ext4.size_mib([tar], 512) % 64 == 0
