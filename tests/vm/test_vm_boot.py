# SPDX-License-Identifier: GPL-2.0-or-later
"""The image boots by its own loaders, and a kernel without the series proves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.vm.conftest import Task

from cloison_forge.core.errors import ExitStatus
from cloison_forge.machine import api
from cloison_forge.machine.inputs import Inputs

Machines = Callable[..., Inputs]


@pytest.mark.parametrize("way", ["bios", "uefi", "microvm"])
def test_the_checks_run_however_the_machine_boots(machines: Machines, tmp_path: Path, way: str) -> None:
    """The disk through its own boot loader, and a machine without PCI."""
    options = api.VerifyOptions(lane="qemu", way=way, suite="abi", json=str(tmp_path / "r"), inputs=machines("qemu"))
    assert api.verify(options) == ExitStatus.GOOD
    report = json.loads((tmp_path / "r").read_text(encoding="utf-8"))
    assert (report["lane"], report["way"], report["outcome"]) == ("qemu", way, "ready")
    assert report["passed"] == report["planned"] > 0


def test_a_kernel_without_the_series_fails_every_check(machines: Machines, tmp_path: Path) -> None:
    without = machines("uml", "off")
    options = api.VerifyOptions(lane="uml", suite="abi", json=str(tmp_path / "r"), inputs=without, control=without)
    assert api.verify(options) == ExitStatus.CHECK
    report = json.loads((tmp_path / "r").read_text(encoding="utf-8"))
    assert report["passed"] == 0
    assert report["failed"] == report["planned"] > 0


def test_a_main_kernel_as_control_fails_what_it_controls(machines: Machines, tmp_path: Path) -> None:
    on = machines("uml")
    options = api.VerifyOptions(lane="uml", suite="abi", json=str(tmp_path / "r"), inputs=on, control=on)
    assert api.verify(options) == ExitStatus.CHECK
    report = json.loads((tmp_path / "r").read_text(encoding="utf-8"))
    version = next(check for check in report["checks"] if check["id"] == "abi.version")
    assert version["status"] == "failed"
    assert version["control"]["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "--lane", "vmware"], b"no lane 'vmware'"),
        (["verify", "--suite", "nonsense"], b"no suite 'nonsense'"),
        (["boot", "--lane", "uml", "--way", "bios"], b"no way 'bios' on lane 'uml'"),
        (["verify", "--lane", "qemu", "--way", "coreboot"], b"no way 'coreboot'"),
    ],
)
def test_bad_input_is_one_clear_line(invoke: Task, words: list[str], message: bytes) -> None:
    result = invoke(*words)
    assert result.returncode == ExitStatus.USAGE
    assert message in result.stderr
    assert b"hint" in result.stderr
    assert b"Traceback" not in result.stderr
