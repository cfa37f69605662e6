# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices and mounts of contexts: the command against a fake kernel, and the table that the kernel shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cloison_fakes import FakeKernel, Model

from cloison import cli, devices
from cloison.devices import DeviceRights, Rule
from cloison.errors import CloisonError, Exit
from cloison.flags import ContextCaps, ContextFlags
from cloison.names import Registry

TABLE = "c 10:229 2\nb * 3\nc 1:3 0\n"


class Bench:
    """The command on a fake kernel with one context, 7, called web."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kernel = FakeKernel(contexts={7: Model(int(ContextFlags.PERSISTENT), name=b"web")})
        self._registry = Registry(folder)
        with self._registry.locked():
            self._registry.register("web", 7)
        self._capsys = capsys

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = cli.main(argv, kernel=self.kernel.vserver(), registry=self._registry)
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path / "run", capsys)


def test_map_and_unmap_a_device_by_its_path(bench: Bench) -> None:
    assert bench("device", "map", "web", "/dev/null") == (0, "", "")
    assert bench("device", "map", "all", "/dev/zero", "--rights", "open,create") == (0, "", "")
    assert bench.kernel.mapped == [(7, b"/dev/null", None, 2), (0, b"/dev/zero", None, 3)]
    assert bench("device", "unmap", "web", "/dev/null") == (0, "", "")
    status, _, err = bench("device", "unmap", "web", "/dev/null")
    assert (status, err.splitlines()[0]) == (1, "cloison: web has no rule for /dev/null")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("map", "web"), Exit.USAGE, "no device is given"),
        (("map", "web", "null"), Exit.USAGE, "'null' is no device"),
        (("map", "web", "/etc/passwd"), Exit.FAILED, "no device node"),
        (("map", "nobody", "/dev/null"), Exit.ABSENT, "nobody"),
        (("map", "web", "/dev/null", "--rights", "all-of-it"), Exit.USAGE, "no flag is called"),
        (("paint", "web", "/dev/null"), Exit.USAGE, "paint"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(bench: Bench, words: tuple[str, ...], status: Exit, said: str) -> None:
    seen, out, err = bench("device", *words)
    assert (seen, out) == (status, "")
    assert said in err.splitlines()[0]
    assert len(err.splitlines()) <= 2
    assert not bench.kernel.mapped


def test_the_table_of_a_context(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "virtual" / "7").mkdir(parents=True)
    (tmp_path / "virtual" / "7" / "devices").write_text(TABLE, encoding="ascii")
    (tmp_path / "virtual" / "devices").write_text("", encoding="ascii")
    read = devices.rules
    monkeypatch.setattr(devices, "rules", lambda xid: read(xid, tmp_path))
    status, out, _ = bench("device", "list", "web")
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["KIND", "NUMBER", "RIGHTS"],
        ["b", "*", "create,open"],
        ["c", "10:229", "open"],
        ["c", "1:3", "none"],
    ]
    assert json.loads(bench("device", "list", "web", "--json")[1])[2] == {"kind": "c", "number": "1:3", "rights": []}
    assert "from the start: null" in bench("device", "list", "all")[1]
    monkeypatch.setattr(devices, "rules", lambda xid: read(xid, tmp_path / "none"))
    assert bench("device", "list", "web")[0] == 1


def test_rules_are_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "virtual").mkdir()
    source = tmp_path / "virtual" / "devices"
    source.write_text(TABLE, encoding="ascii")
    assert devices.rules(devices.ALL, tmp_path)[0] == Rule("b", "*", DeviceRights.OPEN | DeviceRights.CREATE)
    source.write_text("something else\n", encoding="ascii")
    with pytest.raises(ValueError, match="no rule"):
        devices.rules(devices.ALL, tmp_path)


def test_a_path_that_is_no_device_is_refused_before_the_kernel_is_asked() -> None:
    with pytest.raises(CloisonError, match="no device node"), devices.paths("/etc"):
        pass


def test_what_a_context_may_mount(bench: Bench) -> None:
    status, out, _ = bench("mount", "web", "mount,binary")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["mount", "yes"],
        ["binary", "yes"],
        ["remount", "no"],
        ["devices", "no"],
    ]
    assert bench.kernel.contexts[7].ccaps == ContextCaps.SECURE_MOUNT | ContextCaps.BINARY_MOUNT
    bench.kernel.contexts[7].ccaps |= ContextCaps.SYSLOG
    assert json.loads(bench("mount", "web", "none", "--json")[1]) == dict.fromkeys(devices.MOUNT_WORDS, False)
    assert bench.kernel.contexts[7].ccaps == ContextCaps.SYSLOG
