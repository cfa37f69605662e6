# SPDX-License-Identifier: GPL-2.0-or-later
"""KUnit counts only on a machine that came up and ended well, and only when every line of it is good."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.machine_fakes import NONCE, ScriptLane, hello, stream

from cloison_forge.core.errors import ExitStatus, MachineError
from cloison_forge.core.paths import Project
from cloison_forge.machine import inputs, kunit, runs
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.outcome import Limits
from cloison_forge.pipeline import Request

CONSOLE = """\
[    0.000000] Linux version 6.12.117-cloison
[    0.100000] KTAP version 1
[    0.100000] 1..1
[    0.100000]     KTAP version 1
[    0.100000]     # Subtest: vserver
[    0.100000]     1..2
[    0.100000]     ok 1 words
[    0.100000]     ok 2 rules
[    0.100000] ok 1 vserver
[    0.200000] reboot: Power down
"""
LIMITS = Limits(firmware=10, kernel=10, runner=10, check_grace=10, ending=10, power_off=10)
Play = Callable[[str], int]


@pytest.fixture(name="play")
def fixture_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setattr(runs, "project", lambda: Project(tmp_path, tmp_path))
    monkeypatch.setattr(secrets, "token_hex", lambda _: NONCE)
    (tmp_path / "data").write_bytes(stream(hello(())))

    def play(console: str) -> int:
        (tmp_path / "console").write_text(console, encoding="utf-8")
        script = f"cat '{tmp_path}/console'; cat '{tmp_path}/data' > /dev/fd/$CHANNEL"
        monkeypatch.setitem(inputs.LANES, "uml", ScriptLane(script, LIMITS))
        return kunit.kunit(Request(), str(tmp_path / "k.json"), Inputs(None))

    return play


def test_tests_that_all_pass(play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert play(CONSOLE) == ExitStatus.GOOD
    assert "2 passed, 0 failed, 0 skipped" in capsys.readouterr().err
    assert '"status": "passed"' in (tmp_path / "k.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "console",
    [
        CONSOLE.replace("    ok 2 rules", "    not ok 2 rules"),
        CONSOLE.replace("[    0.100000] ok 1 vserver\n", ""),
        CONSOLE.replace("    ok 2 rules\n", ""),
        "Linux version 6.12.117-cloison\n",
    ],
)
def test_tests_that_do_not(play: Play, console: str) -> None:
    assert play(console) == ExitStatus.CHECK


def test_an_oops_outweighs_tests_that_pass(play: Play) -> None:
    with pytest.raises(MachineError, match="oops"):
        play(CONSOLE.replace("[    0.2", "[    0.15] BUG: sleeping function called from invalid context\n[    0.2"))
