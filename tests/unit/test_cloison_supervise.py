# SPDX-License-Identifier: GPL-2.0-or-later
"""The parent's side with real processes and terminals; only the kernel's contexts are a fake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from tests.unit.cloison_fakes import FakeKernel, Model

from cloison import procfs, supervise
from cloison.abi import Command
from cloison.context import Context
from cloison.errors import CloisonError
from cloison.launch import Launch
from cloison.syscall import ExistsError

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="contexts are Linux's")


def launch(kernel: FakeKernel, *argv: str, **options: str) -> int:
    return supervise.run(
        Launch(argv, {"PATH": os.environ["PATH"], "MARK": "inside"}, **options),  # type: ignore[arg-type]
        Context(42, kernel.vserver()),
    )


@pytest.fixture(autouse=True)
def _no_thread_of_the_test_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count threads beyond those that the runner (a worker of pytest-xdist has two) came with."""
    count, own = procfs.threads, procfs.threads()
    monkeypatch.setattr(procfs, "threads", lambda: count() - own + 1)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel({42: Model(0, tasks=1)})


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
def test_status_of_the_command(kernel: FakeKernel, script: str, status: int) -> None:
    assert launch(kernel, "sh", "-c", script) == status


def test_descriptors_session_and_environment(kernel: FakeKernel, tmp_path: Path) -> None:
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    target = tmp_path / "seen"
    script = f"exec > {target}; ls /proc/$$/fd; ps -o pid=,sid= -p $$; env; grep SigBlk /proc/self/status"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        assert launch(kernel, "sh", "-c", script) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        os.close(inherited)
    lines = target.read_text(encoding="utf-8").split("\n")
    numbers = [line for line in lines if line.isdecimal()]
    assert numbers == ["0", "1", "2"]
    pid, sid = next(line.split() for line in lines if len(line.split()) == 2 and line.split()[0].isdecimal())
    assert pid == sid
    assert {line.split("=")[0] for line in lines if "=" in line} <= {"MARK", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert "SigBlk:\t0000000000000000" in lines


@pytest.mark.parametrize(("argv0", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_run(kernel: FakeKernel, argv0: str, status: int) -> None:
    with pytest.raises(CloisonError, match=argv0) as caught:
        launch(kernel, argv0)
    assert caught.value.status == status


def test_refusal_of_the_kernel_is_named(kernel: FakeKernel) -> None:
    kernel.refuse[Command.CTX_MIGRATE] = 13
    with pytest.raises(supervise.LaunchError, match="enter the context: the context is private or sealed") as caught:
        launch(kernel, "true")
    assert caught.value.status == 125
    assert caught.value.cause is not None
    assert caught.value.cause.command == Command.CTX_MIGRATE


def test_a_process_with_threads_is_refused(kernel: FakeKernel) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(CloisonError, match="one thread"):
            launch(kernel, "true")
    finally:
        stop.set()
        thread.join()


def test_in_child_returns_bytes_or_raises_the_same_type() -> None:
    assert supervise.in_child(lambda: b"x" * 200_000) == b"x" * 200_000

    def refuse() -> bytes:
        raise ExistsError(17, Command.CTX_CREATE, 9)

    with pytest.raises(ExistsError, match="ctx_create of 9"):
        supervise.in_child(refuse)
    with pytest.raises(CloisonError, match="ZeroDivisionError"):
        supervise.in_child(lambda: bytes([1 // 0]))


DRIVER = """
import os, sys
sys.path[:0] = [{tools!r}, {root!r}]
from cloison import procfs, supervise
from cloison.context import Context
from cloison.launch import Launch
from tests.unit.cloison_fakes import FakeKernel, Model
kernel = FakeKernel({{42: Model(0, tasks=1)}})
def on_kill(model, sig): os.kill(kernel.killed[-1][1], sig)
kernel.on_kill = on_kill
os.write(2, b"outside " + os.ttyname(0).encode() + b"\\n") if os.isatty(0) else None
status = supervise.run(
    Launch(("sh", "-c", sys.argv[1]), {{"PATH": os.environ["PATH"]}}), Context(42, kernel.vserver()),
    own_terminal=len(sys.argv) < 3)
print("status", status, flush=True)
"""


def driver(*arguments: str) -> list[str]:
    code = textwrap.dedent(DRIVER).format(tools=str(ROOT / "tools"), root=str(ROOT))
    return [sys.executable, "-c", code, *arguments]


def on_terminal(script: str, typed: bytes, *more: str) -> str:
    """Run the driver with a terminal as its standard streams and return everything it printed."""
    master, slave = os.openpty()
    process = subprocess.Popen(driver(script, *more), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    printed = b""
    sent = False
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        printed += part
        if b"ready" in printed and not sent:
            os.write(master, typed)
            sent = True
    process.wait(timeout=20)
    os.close(master)
    return printed.decode()


def test_the_host_s_terminal_does_not_go_in() -> None:
    printed = on_terminal("tty; tty <&2; echo ready; read line; echo got $line", b"hello\n")
    outside = printed.split("outside ")[1].split()[0]
    inside = [word for word in printed.split() if word.startswith("/dev/pts/") and word != outside]
    assert len(inside) == 2
    assert "got hello" in printed
    assert "status 0" in printed


def test_with_no_pty_it_does() -> None:
    printed = on_terminal("tty; echo ready", b"", "no-pty")
    outside = printed.split("outside ")[1].split()[0]
    assert printed.count(outside) == 2


def test_control_c_goes_to_the_command_and_the_status_comes_back() -> None:
    printed = on_terminal("trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done", b"\x03")
    assert "status 5" in printed


def test_pipes_pass_through_and_only_the_terminal_is_replaced() -> None:
    done = subprocess.run(
        driver("cat; test -t 0 || echo no terminal"), input=b"data\n", capture_output=True, check=True
    )
    assert done.stdout == b"data\nno terminal\nstatus 0\n"


def test_signals_are_passed_on_by_ctx_kill() -> None:
    process = subprocess.Popen(
        driver("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.read() == b"status 9\n"
    process.wait()
    process.stdout.close()
