# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine is watched at every stage, ends by name, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.interrupts import heed_interrupts
from tests.unit.machine_fakes import PLAN, SHORT, end, good_records, hello, play, stream

from cloison_forge.core.errors import MachineError
from cloison_forge.machine.outcome import Limits, Outcome, Stage

BEGIN = {"t": "begin", "id": PLAN[0].id}
BANNER = "echo 'Linux version 6.12.117-cloison (x)'; "
HANG = "sleep 1000 & echo $! > child; wait"
LONG = Limits(firmware=20, kernel=20, runner=20, check_grace=20, ending=20, power_off=20)


@pytest.fixture(name="send")
def fixture_send(tmp_path: Path) -> object:
    """Return a function that makes the shell command which sends bytes over the channel."""

    def send(data: bytes) -> str:
        (tmp_path / "data").write_bytes(data)
        return f"cat '{tmp_path}/data' >/dev/fd/$CHANNEL; "

    return send


def gone(pid: int) -> bool:
    """Say whether a process has ended (a zombie that its new parent has not reaped yet has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(pid: int) -> bool:
    for _ in range(1000):
        if gone(pid):
            return True
        time.sleep(0.02)
    return False


def short(stage: Stage) -> Limits:
    """Return limits that are short for one stage only, so that a busy host does not end another one."""
    name = "check_grace" if stage is Stage.CHECKS else stage.name.lower()
    return replace(LONG, **{name: -19.6 if stage is Stage.CHECKS else 0.4})


HANGS = [
    ("", b"", Outcome.FIRMWARE_STUCK, Stage.FIRMWARE),
    (BANNER, b"", Outcome.TIMEOUT, Stage.KERNEL),
    (BANNER, stream(hello(), bye=False), Outcome.TIMEOUT, Stage.RUNNER),
    (BANNER, stream(hello(), BEGIN, bye=False), Outcome.TIMEOUT, Stage.CHECKS),
    (BANNER, stream(hello(), BEGIN, end(PLAN[0]), bye=False), Outcome.TIMEOUT, Stage.RUNNER),
    (BANNER, stream(*good_records(), bye=False), Outcome.TIMEOUT, Stage.ENDING),
    (BANNER, stream(*good_records()), Outcome.TIMEOUT, Stage.POWER_OFF),
]


@pytest.mark.parametrize(("banner", "data", "outcome", "stage"), HANGS)
def test_a_hang_at_each_stage_is_named_and_ended(
    tmp_path: Path, send: object, banner: str, data: bytes, outcome: Outcome, stage: Stage
) -> None:
    assert callable(send)
    run = play(tmp_path, banner + send(data) + HANG, limits=short(stage))
    assert (run.ending.outcome, run.ending.stage) == (outcome, stage)
    assert wait_until_gone(int((tmp_path / "child").read_text(encoding="ascii")))


def test_a_good_machine_is_ready(tmp_path: Path, send: object) -> None:
    assert callable(send)
    run = play(tmp_path, BANNER + send(stream(*good_records())), limits=LONG)
    assert run.good, run.ending
    assert run.ready is not None
    assert 0 < run.ready <= run.took
    assert (tmp_path / "console.log").read_text(encoding="utf-8").startswith("Linux version")
    assert (tmp_path / "channel.raw").read_bytes() == stream(*good_records())


@pytest.mark.parametrize(
    ("console", "outcome"),
    [
        ("Kernel panic - not syncing: Attempted to kill init!", Outcome.PANIC),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", Outcome.OOPS),
        ("[    1.0] WARNING: CPU: 0 PID: 1 at kernel/fork.c:1", Outcome.OOPS),
        ("[    1.0] WARNING: possible circular locking dependency detected", Outcome.OOPS),
        ("[    1.0] BUG: KASAN: slab-use-after-free in vx_free", Outcome.OOPS),
        ("[    1.0] UBSAN: shift-out-of-bounds in kernel/vserver/core.c", Outcome.OOPS),
        ("[    1.0] WARNING: suspicious RCU usage", Outcome.OOPS),
        ("[    1.0] Oops: general protection fault", Outcome.OOPS),
        ("[    1.0] kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", Outcome.OOPS),
        ("[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Outcome.OOPS),
        ("[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!", Outcome.OOPS),
        ("[    1.0] refcount_t: underflow; use-after-free.", Outcome.OOPS),
    ],
)
def test_a_kernel_that_complains_fails_a_run_that_is_good_otherwise(
    tmp_path: Path, send: object, console: str, outcome: Outcome
) -> None:
    assert callable(send)
    run = play(tmp_path, BANNER + f"echo '{console}'; " + send(stream(*good_records())), limits=LONG)
    assert run.ending.outcome is outcome
    assert not run.good
    assert "1.0" not in console or run.ending.detail == console


def test_a_panicked_machine_that_hangs_is_ended_soon(tmp_path: Path) -> None:
    run = play(tmp_path, BANNER + "echo 'Kernel panic - not syncing: VFS'; " + HANG, limits=LONG)
    assert run.ending.outcome is Outcome.PANIC


def test_a_machine_that_ends_without_a_result(tmp_path: Path, send: object) -> None:
    assert callable(send)
    silent = play(tmp_path, BANNER, limits=LONG)
    assert silent.ending.outcome is Outcome.NO_RESULT
    half = play(tmp_path, BANNER + send(stream(*good_records(), bye=False)), limits=LONG)
    assert half.ending.outcome is Outcome.NO_RESULT


def test_a_machine_whose_program_fails(tmp_path: Path, send: object) -> None:
    assert callable(send)
    run = play(tmp_path, "echo 'cannot open disk' >&2; exit 3", limits=LONG)
    assert run.ending.outcome is Outcome.EXITED
    assert run.ending.detail == "status 3: cannot open disk"
    late = play(tmp_path, BANNER + send(stream(*good_records())) + "exit 9", limits=LONG)
    assert late.ending.outcome is Outcome.EXITED
    assert play(tmp_path, "exit 1", reason=Outcome.KVM_BROKEN, limits=LONG).ending.outcome is Outcome.KVM_BROKEN


def test_a_broken_stream_ends_the_machine_at_once(tmp_path: Path, send: object) -> None:
    assert callable(send)
    run = play(tmp_path, BANNER + send(b"0 00000000 {}\n") + HANG, limits=LONG)
    assert run.ending.outcome is Outcome.BAD_STREAM


def test_half_a_line_at_the_end_is_a_fault(tmp_path: Path, send: object) -> None:
    assert callable(send)
    run = play(tmp_path, BANNER + send(stream(*good_records()) + b"9 "), limits=LONG)
    assert run.ending.outcome is Outcome.BAD_STREAM


def test_a_program_that_is_not_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "linux")

    monkeypatch.setattr(subprocess, "Popen", missing)
    with pytest.raises(MachineError, match="does not start"):
        play(tmp_path, "")


SCRIPT = """
import sys
sys.path[:0] = [{tools!r}, {root!r}]
from pathlib import Path
from cloison_forge.machine import api
from tests.unit.machine_fakes import SHORT, play
with api._orderly_end():
    play(Path({folder!r}), {script!r}, limits=api_limits)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_machine_dies_with_the_program_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).resolve().parents[2]
    script = "echo $$ > main; " + HANG if number is not signal.SIGKILL else "echo $$ > main; exec sleep 1000"
    code = SCRIPT.format(tools=str(root / "tools"), root=str(root), folder=str(tmp_path), script=script)
    code = code.replace("limits=api_limits", "limits=type(SHORT)()")
    host = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, preexec_fn=heed_interrupts)
    names = ["main"] if number is signal.SIGKILL else ["main", "child"]
    for _ in range(250):
        if all((tmp_path / name).exists() and (tmp_path / name).read_text(encoding="ascii") for name in names):
            break
        time.sleep(0.02)
    os.kill(host.pid, number)
    assert host.wait(timeout=10) != 0
    for name in names:
        assert wait_until_gone(int((tmp_path / name).read_text(encoding="ascii"))), name


def test_limits_of_a_check_are_its_own_plus_grace() -> None:
    assert Limits(check_grace=3).of(Stage.CHECKS, 20) == 23
    assert SHORT.of(Stage.KERNEL) == 0.4


def test_a_shell_that_never_begins_is_a_hang_too(tmp_path: Path, send: object) -> None:
    assert callable(send)
    data = stream(hello(()), bye=False)
    run = play(tmp_path, BANNER + send(data) + HANG, mode="shell", limits=short(Stage.RUNNER))
    assert (run.ending.outcome, run.ending.stage) == (Outcome.TIMEOUT, Stage.RUNNER)
