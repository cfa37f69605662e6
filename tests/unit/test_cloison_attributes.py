# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes of files: the library and the subcommands, on a kernel that keeps them in a dictionary."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloison import abi, attributes
from cloison.abi import Command
from cloison.cli import main
from cloison.flags import ATTRIBUTE_WORDS, Change, FileAttributes, parse
from cloison.names import Registry
from cloison.syscall import Vserver, VserverError


@dataclass
class Files:
    """Attributes by path; `refuse` maps paths to errnos."""

    flags: dict[str, int] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)

    def __call__(self, command: int, ident: int, data: ctypes.Structure | None) -> int:
        if isinstance(data, abi.CtxFiattr):
            path = str(Path(f"/proc/self/fd/{ident}").readlink())
        else:
            assert isinstance(data, abi.CtxIattr)
            path = os.fsdecode(data.name)
        if path in self.refuse:
            return -self.refuse[path]
        if not os.path.lexists(path):
            return -errno.ENOENT
        if command in (Command.SET_IATTR, Command.FSET_IATTR):
            self.flags[path] = self.flags.get(path, 0) & ~data.mask | data.flags & data.mask
        else:
            data.flags, data.mask, data.tag = self.flags.get(path, 0) | 0x1000000, 0xF0000, 0xFFFFFFFF
        return 0


@pytest.fixture
def files() -> Files:
    return Files()


def run(files: Files, tmp_path: Path, *words: str) -> int:
    return main(words, kernel=Vserver(files), registry=Registry(tmp_path / "registry"))


def test_words_are_those_of_the_older_tools() -> None:
    assert parse("iunlink", ATTRIBUTE_WORDS) == Change(0x60000, 0x60000)
    assert parse("ixunlink,~barrier", ATTRIBUTE_WORDS) == Change(0x20000, 0x30000)
    assert "tag" not in ATTRIBUTE_WORDS


def test_get_tells_what_is_set_and_that_there_is_no_tag(files: Files, tmp_path: Path) -> None:
    files.flags[str(tmp_path)] = int(FileAttributes.BARRIER)
    found = attributes.get(Vserver(files), tmp_path)
    assert (found.words(), found.tag) == (["barrier"], None)


def test_open_files_are_named_by_descriptor(files: Files, tmp_path: Path) -> None:
    opened = os.open(tmp_path, os.O_RDONLY)
    attributes.change_open(Vserver(files), opened, Change(0x10000, 0x10000))
    assert attributes.get_open(Vserver(files), opened).words() == ["barrier"]
    os.close(opened)
    with pytest.raises(VserverError) as raised:
        attributes.get(Vserver(files), tmp_path / "nothing")
    assert raised.value.errno == errno.ENOENT


def test_none_clears_what_is_kept_with_a_file(files: Files, tmp_path: Path) -> None:
    files.flags[str(tmp_path)] = 0x10F0004
    assert run(files, tmp_path, "attr", "set", "none", str(tmp_path)) == 0
    assert files.flags[str(tmp_path)] == 0x1000004


def test_a_tag_goes_along_with_its_bit(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def raw(_command: int, _ident: int, data: ctypes.Structure | None) -> int:
        assert isinstance(data, abi.CtxIattr)
        seen.append((data.tag, data.flags, data.mask))
        return 0

    attributes.change(Vserver(raw), tmp_path, Change(), tag=7)
    assert seen == [(7, 0x1000000, 0x1000000)]


def test_set_and_get_by_the_command(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/link").symlink_to("/")
    assert run(files, tmp_path, "attr", "set", "-R", "iunlink,~cow", str(tmp_path / "a")) == 0
    assert {Path(path).name for path in files.flags} == {"a", "b", "link"}
    assert run(files, tmp_path, "attr", "get", "--json", str(tmp_path / "a")) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"path": str(tmp_path / "a"), "attributes": ["ixunlink", "immutable"], "tag": None}
    ]
    assert run(files, tmp_path, "attr", "get", "-R", str(tmp_path / "a")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EROFS])
def test_failures_are_one_line_and_a_hint(
    files: Files, tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    files.refuse[str(tmp_path)] = code
    assert run(files, tmp_path, "attr", "set", "barrier", str(tmp_path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"cloison: {tmp_path}: {os.strerror(code)}"
    assert lines[1].startswith("  hint: ")


@pytest.mark.parametrize("words", [("set", "barrier"), ("set", "nonsense", "/"), ("look", "/")])
def test_wrong_use_is_told(files: Files, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(files, tmp_path, "attr", *words) == 2


def test_unhide_clears_one_bit_and_passes_over_what_is_not_there(files: Files, tmp_path: Path) -> None:
    (tmp_path / "sysvipc").mkdir()
    for name in ("uptime", "sysvipc/shm"):
        (tmp_path / name).touch()
        files.flags[str(tmp_path / name)] = int(FileAttributes.HIDE | FileAttributes.ADMIN)
    done = attributes.unhide(Vserver(files), proc=str(tmp_path))
    assert done == [str(tmp_path / name) for name in ("sysvipc", "sysvipc/shm", "uptime")]
    assert files.flags[str(tmp_path / "uptime")] == FileAttributes.ADMIN


def test_unhide_stays_below_proc(files: Files, tmp_path: Path) -> None:
    assert run(files, tmp_path, "unhide", "../etc") == 2
    assert run(files, tmp_path, "unhide", "/etc") == 2
