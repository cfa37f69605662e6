# SPDX-License-Identifier: GPL-2.0-or-later
"""PID 1 and the runner under checks that misbehave, in both lanes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloison_forge.machine import api, inputs
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.job import Job
from cloison_forge.machine.judge import Expected
from cloison_forge.machine.lane import MachineSpec
from cloison_forge.machine.outcome import Outcome
from cloison_forge.machine.supervisor import Run
from cloison_verify import catalogue

SOURCE = Path(__file__).with_name("selftest_checks.py")
Machines = Callable[..., Inputs]


def boot(machines: Machines, lane: str, job: Job, *, append: str = "") -> Run:
    what = machines(lane)
    spec = MachineSpec(what.kernel, job, what.root, what.disk, append=append)
    return api.run_machine(inputs.LANES[lane], spec, Expected(job.nonce, job.plan), "6.12")


@pytest.mark.parametrize("lane", ["uml", "qemu"])
def test_checks_that_misbehave_fail_alone(machines: Machines, lane: str) -> None:
    import tests.vm.selftest_checks  # noqa: F401 - registers the checks

    plan = [check for name, check in sorted(catalogue._checks.items()) if name.startswith("self.")]
    job = Job("verify", plan, extra={"lib/cloison_verify/checks/selftest.py": SOURCE.read_bytes()})
    run = boot(machines, lane, job)
    assert run.good, (run.ending, run.folder)
    seen = {name.split(".")[1]: (result.status, result.seen) for name, result in run.judge.results.items()}
    assert seen.pop("a-hang") == ("failed", "no answer within 2 s")
    assert seen.pop("c-kills-runner") == ("failed", "the runner ended in the middle of the check")
    assert seen.pop("i-kills-everything") == ("failed", "the runner ended in the middle of the check")
    assert seen == {
        "b-nothing-left": ("passed", "gone"),
        "d-after": ("passed", "ok"),
        "e-daemon": ("passed", "ok"),
        "f-daemon-gone": ("passed", "gone"),
        "g-forger": ("passed", "nowhere"),
        "h-root": ("passed", "ok"),
    }


@pytest.mark.parametrize("lane", ["uml", "qemu"])
def test_a_broken_suite_is_a_fault_of_the_job(machines: Machines, lane: str) -> None:
    plan = [check for name, check in catalogue.load().items() if name.startswith("abi.")]
    job = Job("verify", plan, extra={"lib/cloison_verify/checks/broken.py": b"raise RuntimeError('broken')\n"})
    run = boot(machines, lane, job)
    assert run.ending.outcome is Outcome.FAULT
    assert all(result.status == "not_reported" for result in run.judge.results.values())


@pytest.mark.parametrize("lane", ["uml", "qemu"])
def test_a_kernel_without_its_init_panics_by_name(machines: Machines, lane: str) -> None:
    run = boot(machines, lane, Job("boot"), append="init=/nonexistent")
    assert run.ending.outcome is Outcome.PANIC


def test_a_kernel_without_its_root_panics_by_name(machines: Machines) -> None:
    assert boot(machines, "qemu", Job("boot"), append="root=/dev/vdz").ending.outcome is Outcome.PANIC
