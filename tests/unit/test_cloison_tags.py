# SPDX-License-Identifier: GPL-2.0-or-later
"""Tags and disk limits against a kernel of a few lines: units, counting, and the two subcommands."""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.cloison_fakes import FakeKernel, RecordingSystem

from cloison import abi, cli, tags
from cloison.abi import Command
from cloison.context import Context
from cloison.disklimit import DiskLimits, Limit, Wish, restore, save, scale, structure
from cloison.errors import CloisonError, Exit
from cloison.flags import FileAttributes
from cloison.launch import Creation, Launch, creation_steps, steps
from cloison.names import Registry
from cloison.syscall import InvalidError, Vserver

KEEP, INFINITY, MOST = abi.DLIMIT_KEEP, abi.DLIMIT_INFINITY, abi.DLIMIT_KEEP - 1


@dataclass
class LimitKernel:
    """Keeps tags by path and limits by tag, in the kernel's own arithmetic."""

    tagged: dict[str, int] = field(default_factory=dict)
    limits: dict[int, Limit] = field(default_factory=dict)
    counted: Limit = field(default_factory=lambda: Limit(0, 0, 0, 0))

    def __call__(self, command: int, ident: int, data: ctypes.Structure | None) -> int:
        if isinstance(data, abi.CtxIattr):
            return self._attributes(command, data)
        if command == Command.ADD_DLIMIT:
            if ident in self.limits:
                return -errno.EEXIST
            self.limits[ident] = self.counted
            return 0
        if ident not in self.limits:
            return -errno.ESRCH
        if command == Command.REM_DLIMIT:
            del self.limits[ident]
            return 0
        assert isinstance(data, abi.DiskLimit)
        return self._get(ident, data) if command == Command.GET_DLIMIT else self._set(ident, data)

    def _attributes(self, command: int, data: abi.CtxIattr) -> int:
        path = data.name.decode()
        if not os.path.lexists(path):
            return -errno.ENOENT
        if command == Command.SET_IATTR:
            self.tagged[path] = data.tag
        data.tag, data.mask = self.tagged.get(path, 0), int(FileAttributes.TAG)
        return 0

    def _units(self, flags: int) -> tuple[int, int]:
        return (10 * (flags & 3), 10 * (flags >> 2 & 3)) if flags & abi.DLIMIT_UNITS else (10, 10)

    def _get(self, ident: int, data: abi.DiskLimit) -> int:
        used, total = self._units(data.flags)
        limit = self.limits[ident]
        data.space_used = min(limit.space_used >> used, MOST)
        data.space_total = INFINITY if limit.space_total is None else min(limit.space_total >> total, MOST)
        data.inodes_used, data.inodes_total, data.reserved = limit.inodes_used, limit.inodes_total, limit.reserved
        return 0

    def _set(self, ident: int, data: abi.DiskLimit) -> int:
        used, total = self._units(data.flags)
        new = self.limits[ident]
        if data.space_used != KEEP:
            new = replace(new, space_used=data.space_used << used)
        if data.space_total != KEEP:
            new = replace(new, space_total=None if data.space_total == INFINITY else data.space_total << total)
        if data.inodes_used != KEEP:
            new = replace(new, inodes_used=data.inodes_used)
        if data.inodes_total != KEEP:
            new = replace(new, inodes_total=data.inodes_total)
        if data.reserved != KEEP:
            new = replace(new, reserved=data.reserved)
        if data.space_used != KEEP and data.space_total not in (KEEP, INFINITY):
            assert new.space_total is not None
            if new.space_used > new.space_total:
                return -errno.EINVAL
        self.limits[ident] = new
        return 0


@pytest.mark.parametrize(
    ("value", "up", "wanted"),
    [
        (0, True, (0, 0)),
        (MOST, True, (MOST, 0)),
        (MOST + 1, False, ((MOST + 1) >> 10, 1)),
        (MOST + 1, True, (-(-(MOST + 1) >> 10), 1)),
        (5 << 40, False, (5 << 20, 2)),
        ((5 << 40) + 1, True, ((5 << 20) + 1, 2)),
        (1 << 62, True, (MOST, 3)),
    ],
)
def test_a_number_takes_the_smallest_unit_that_holds_it(value: int, up: bool, wanted: tuple[int, int]) -> None:
    assert scale(value, up=up) == wanted


def test_what_is_not_named_stays() -> None:
    data = structure("/x", Wish())
    assert (data.space_used, data.space_total, data.inodes_used, data.inodes_total, data.reserved) == (KEEP,) * 5
    assert structure("/x", Wish(space_total=-1)).space_total == INFINITY


@pytest.mark.parametrize(
    "limit", [Limit(0, 0, 0, 0), Limit(3, 4097, 1, 2, 99), Limit(5 << 30, 7 << 40, 0, MOST), Limit(0, None, 4, 5, 100)]
)
def test_limits_read_back(limit: Limit) -> None:
    limits = DiskLimits(Vserver(LimitKernel()), "/x")
    limits.add(5)
    total = -1 if limit.space_total is None else limit.space_total
    limits.set(5, Wish(limit.space_used, total, limit.inodes_used, limit.inodes_total, limit.reserved))
    assert limits.get(5) == limit
    assert list(limits.all(range(10))) == [(5, limit)]


def test_saved_limits_are_restored() -> None:
    rows = [("/srv", 5, Limit(1, None, 2, 3, 4)), ("/home", 6, Limit(1, 2, 3, 4))]
    assert restore(save(rows)) == rows
    for text in ("", "[]", '{"format": 2, "limits": []}', '{"format": 1, "limits": [{"path": "/"}]}'):
        with pytest.raises(CloisonError, match="no list of disk limits"):
            restore(text)


@pytest.mark.parametrize(("text", "wanted"), [("4096", 4096), ("10M", 10 << 20), ("1.5GiB", 3 << 29), ("2kb", 2048)])
def test_sizes(text: str, wanted: int) -> None:
    assert tags.size(text) == wanted


@pytest.mark.parametrize("text", ["", "M", "-1", "ten", "1X", "nan", "inf", "9e30"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        tags.size(text)


def test_human_sizes() -> None:
    assert [tags.human(value) for value in (None, 0, 1023, 1024, 10 << 20, 3 << 40)] == [
        *("none", "0", "1023", "1.0K", "10.0M", "3.0T"),
    ]


def test_usage_counts_files_of_the_tag_and_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    mine = tmp_path / "sub" / "mine"
    mine.write_bytes(b"x" * 10000)
    (tmp_path / "link").hardlink_to(mine)
    (tmp_path / "other").write_bytes(b"x" * 50000)
    (tmp_path / "soft").symlink_to("mine")
    wanted = {str(mine), str(tmp_path / "link"), str(tmp_path / "sub")}
    found = tags.usage(str(tmp_path), 5, lambda name: 5 if name in wanted else None)
    assert found == tags.Usage((mine.stat().st_blocks + (tmp_path / "sub").stat().st_blocks) * 512, 2)


class Bench:
    """The command on the fake kernel."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kernel, self.folder, self._capsys = LimitKernel(), folder, capsys

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = cli.main(argv, kernel=Vserver(self.kernel), registry=Registry(self.folder / "names"))
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("cloison.cli_tags.mount_point", lambda path: path)
    return Bench(tmp_path, capsys)


def test_tag_set_and_get(bench: Bench) -> None:
    folder = bench.folder / "tree"
    folder.mkdir()
    (folder / "file").touch()
    assert bench("tag", "set", "200", "--recursive", str(folder)) == (0, "", "")
    assert bench.kernel.tagged == {str(folder): 200, str(folder / "file"): 200}
    status, out, _ = bench("tag", "get", str(folder / "file"), "--json")
    assert (status, json.loads(out)) == (0, [{"path": str(folder / "file"), "tag": 200}])


def test_tag_says_what_is_wrong(bench: Bench) -> None:
    assert bench("tag", "set", "200")[0] == Exit.USAGE
    assert bench("tag", "set", "web", "/")[0] == Exit.USAGE
    status, _, err = bench("tag", "set", "70000", "/")
    assert (status, "70000 is no file tag" in err) == (1, True)
    status, _, err = bench("tag", "get", str(bench.folder / "nothing"))
    assert (status, "nothing: No such file" in err) == (1, True)


def test_a_new_limit_counts_what_is_there(bench: Bench) -> None:
    place = bench.folder / "fs"
    place.mkdir()
    (place / "file").write_bytes(b"x" * 9000)
    bench.kernel.tagged[str(place / "file")] = 200
    used = (place / "file").stat().st_blocks * 512
    assert bench("disk-limit", "set", str(place), "--tag", "200", "--space", "1M", "--reserve", "5")[0] == 0
    assert bench.kernel.limits == {200: Limit(used, 1 << 20, 1, MOST, 5)}
    assert bench("disk-limit", "set", str(place), "--tag", "200", "--space", "none", "--inodes", "9")[0] == 0
    assert bench.kernel.limits == {200: Limit(used, None, 1, 9, 5)}
    status, out, _ = bench("disk-limit", "show", str(place), "--tag", "200")
    assert (status, "none" in out) == (0, True)
    assert bench("disk-limit", "remove", str(place), "--tag", "200")[0] == 0
    assert bench.kernel.limits == {}


def test_what_the_kernel_has_counted_is_taken(bench: Bench) -> None:
    bench.kernel.counted = Limit(4096, 0, 3, 0)
    assert bench("disk-limit", "set", str(bench.folder), "--tag", "200", "--space", "1M")[0] == 0
    assert bench.kernel.limits == {200: Limit(4096, 1 << 20, 3, MOST)}


def test_a_limit_below_what_is_used_is_refused_and_not_left_closed(bench: Bench) -> None:
    bench.kernel.counted = Limit(2 << 20, 0, 3, 0)
    status, _, err = bench("disk-limit", "set", str(bench.folder), "--tag", "200", "--space", "1M")
    assert (status, "use 2.0M and 3 inodes" in err) == (1, True)
    assert bench.kernel.limits == {}


def test_limits_go_over_a_reboot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.kernel.limits = {200: Limit(5, 1 << 20, 6, 7, 8), 201: Limit(0, None, 0, 9)}
    before = dict(bench.kernel.limits)
    status, out, _ = bench("disk-limit", "save", str(bench.folder))
    assert status == 0
    bench.kernel.limits = {}
    monkeypatch.setattr("sys.stdin", io.StringIO(out))
    assert bench("disk-limit", "restore") == (0, "", "")
    assert bench.kernel.limits == before


def test_disk_limit_says_what_is_wrong(bench: Bench) -> None:
    assert bench("disk-limit", "set", "/srv")[0] == Exit.USAGE
    assert bench("disk-limit", "show")[0] == Exit.USAGE
    assert bench("disk-limit", "show", "/srv", "--tag", "9")[0] == Exit.ABSENT
    assert bench("disk-limit", "set", "/srv", "--tag", "9", "--reserve", "101")[0] == Exit.USAGE
    status, _, err = bench("disk-limit", "remove", "/srv", "--tag", "9")
    assert (status, "the tag has no disk limit there" in err) == (1, True)


def test_the_tag_is_taken_before_the_context() -> None:
    kernel = FakeKernel(refuse={Command.TAG_MIGRATE: errno.EPERM})
    context = Context(5, kernel.vserver())
    names = [name for name, _ in creation_steps(Creation(tag=300), context)]
    assert names[:2] == ["file tag 300", "create the context"]
    launch = Launch(("true",), {}, tag=300)
    names = [name for name, _ in steps(launch, context, RecordingSystem(kernel.log))]  # type: ignore[arg-type]
    assert names.index("file tag 300") == names.index("enter the context") - 1
    assert "file tag 0" not in [name for name, _ in creation_steps(Creation(), context)]


def test_an_impossible_tag_is_an_error_of_the_kernel_with_a_reason() -> None:
    error = InvalidError(errno.EINVAL, Command.SET_DLIMIT, 5)
    assert "more is used" in str(error)
