# SPDX-License-Identifier: GPL-2.0-or-later
"""The room's interface: fallbacks, errors for people, options that do not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.machine_fakes import NONCE, PLAN, ScriptLane, hello, stream

from cloison_forge.core.errors import ExitStatus, MachineError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.machine import api, inputs, kvm, runs, verification
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.job import Job
from cloison_forge.machine.judge import Expected
from cloison_forge.machine.lane import MachineSpec
from cloison_forge.machine.outcome import Limits, Outcome
from cloison_forge.machine.verification import Plan
from cloison_verify import catalogue

LIMITS = Limits(firmware=10, kernel=10, runner=10, check_grace=10, ending=10, power_off=10)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "project", lambda: Project(tmp_path, tmp_path))
    monkeypatch.delenv("CLOISON_BUILD", raising=False)


class Moody(ScriptLane):
    """A lane whose machine dies under KVM and boots under TCG."""

    def explain(self, spec: MachineSpec, folder: Path) -> Outcome | None:
        return Outcome.KVM_BROKEN if spec.accelerator == "kvm" else None


def test_a_kvm_that_breaks_later_is_remembered_and_tcg_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_bytes(stream(hello(())))
    remembered: list[kvm.Verdict] = []
    monkeypatch.setattr(inputs, "accelerator", lambda _: ("kvm", ""))
    monkeypatch.setattr(kvm, "remember", remembered.append)
    lane = Moody(f"echo 'Linux version 6.12'; cat '{tmp_path}/data' > /dev/fd/$CHANNEL", LIMITS, name="qemu")
    job = Job("boot", nonce=NONCE)
    run = api.run_machine(lane, MachineSpec(None, job), Expected(NONCE), "6.12")
    assert run.good
    assert run.accelerator == "tcg"
    assert [verdict.usable for verdict in remembered] == [False]
    assert capsys.readouterr().err.count("using QEMU's emulator (TCG)") == 1


def failing(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'Linux version 6.12'; echo 'VFS: no root'; echo 'Kernel panic - not syncing: VFS'"
    monkeypatch.setitem(inputs.LANES, lane, ScriptLane(script, LIMITS, name=lane))


def test_a_failed_boot_is_an_error_with_the_console_and_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    failing("uml", monkeypatch)
    with pytest.raises(MachineError) as caught:
        api.boot(api.BootOptions(lane="uml", inputs=Inputs(None)))
    assert caught.value.status is ExitStatus.MACHINE
    assert "lane uml: panic: Kernel panic" in caught.value.message
    assert "| VFS: no root" in caught.value.message
    assert "runs/uml/" in caught.value.hint


def test_a_shell_whose_machine_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing("uml", monkeypatch)
    with pytest.raises(MachineError, match="panic"):
        api.shell(api.ShellOptions(lane="uml", command=("true",), inputs=Inputs(None)))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (api.BootOptions(lane="vmware"), "no lane 'vmware'"),
        (api.BootOptions(lane="uml", way="bios"), "no way 'bios' on lane 'uml'"),
        (api.BootOptions(lane="qemu", way="coreboot"), "no way 'coreboot'"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_built(options: api.BootOptions, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        api.run_boot(options)


def test_a_lane_without_a_way_in_has_no_shell() -> None:
    with pytest.raises(UsageError, match="lane 'bochs' has no way in"):
        api.shell(api.ShellOptions(lane="bochs", command=("true",)))


def test_a_share_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        api.shell(api.ShellOptions(share=str(tmp_path / "missing")))


def test_a_plan_holds_what_the_lane_can_run_and_why_not_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    checks = {check.id: check for check in PLAN}
    checks["abi.version"] = replace(PLAN[2], not_on={"uml": "no such thing"})
    monkeypatch.setattr(catalogue, "load", lambda: checks)
    plan = verification.make_plan("uml")
    assert [check.id for check in plan.checks] == ["abi.ordinary-user", "abi.unknown-command"]
    assert [check.id for check in plan.left_out] == ["abi.version"]
    assert isinstance(plan, Plan)
    assert plan.for_control == ()
    assert [check.id for check in verification.make_plan("qemu").for_control] == ["abi.version"]
    checks["abi.version"] = replace(PLAN[2], not_on={"qemu-microvm": "one processor"})
    assert not verification.make_plan("qemu", way="direct").left_out
    [left_out] = verification.make_plan("qemu", way="microvm").left_out
    assert left_out.why_not_on("qemu", "microvm") == "one processor"
    checks["abi.version"] = replace(PLAN[2], not_on={"uml": "no such thing"})
    with pytest.raises(UsageError, match="no suite 'x'"):
        verification.make_plan("uml", "x")
    monkeypatch.setattr(catalogue, "load", lambda: {"abi.version": checks["abi.version"]})
    with pytest.raises(UsageError, match="no check of suite 'abi'"):
        verification.make_plan("uml", "abi")


def test_coverage_lists_open_rows(tmp_path: Path) -> None:
    import json

    assert api.coverage(str(tmp_path / "c.json")) == 0
    data = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert data["rows"] == 263
    assert 0 < len(data["unproven"]) <= 263
