# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke shell`: exact bytes, exit statuses, a shared folder, a terminal, nothing left behind."""

from __future__ import annotations

import hashlib
import os
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest
from tests.interrupts import heed_interrupts
from tests.vm.conftest import ROOT, Task

from cloison_forge.machine.inputs import Inputs

LANES = ["uml", "qemu"]
Machines = Callable[..., Inputs]


@pytest.mark.parametrize("lane", LANES)
def test_bytes_pass_unchanged_both_ways(invoke: Task, lane: str) -> None:
    data = random.Random(7).randbytes(200_000)
    result = invoke("shell", "--lane", lane, "--", "sh", "-c", "cat; echo 'on the  side' >&2; exit 7", data=data)
    assert result.returncode == 7, result.stderr
    assert result.stdout == data
    assert b"on the  side\n" in result.stderr


@pytest.mark.parametrize("lane", LANES)
def test_a_shared_folder_is_at_mnt_share(invoke: Task, lane: str, tmp_path: Path) -> None:
    (tmp_path / "from host").write_bytes(b"hello")
    script = 'cat "/mnt/share/from host"; id -u; echo back > /mnt/share/to-host'
    result = invoke("shell", "--lane", lane, "--share", str(tmp_path), "--", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, b"hello0\n"), result.stderr
    assert (tmp_path / "to-host").read_text(encoding="utf-8") == "back\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [(["true"], 0), (["sh", "-c", "kill -9 $$"], 137), (["no-such-command"], 127), (["/etc/passwd"], 126)],
)
def test_exit_statuses(invoke: Task, words: list[str], status: int) -> None:
    assert invoke("shell", "--lane", "uml", "--", *words).returncode == status


def test_a_command_that_does_not_read_its_input_ends(invoke: Task) -> None:
    assert invoke("shell", "--lane", "uml", "--", "true", data=b"x" * 300_000).returncode == 0


def test_a_script_on_standard_input_is_run(invoke: Task) -> None:
    result = invoke("shell", "--lane", "uml", data=b"echo $((6 * 7))\nexit 9\n")
    assert (result.returncode, result.stdout) == (9, b"42\n")


def test_what_the_guest_writes_is_gone_and_the_image_is_as_before(invoke: Task, machines: Machines) -> None:
    root = machines("uml").root
    assert root is not None
    before = hashlib.sha256(root.read_bytes()).hexdigest()
    assert invoke("shell", "--lane", "uml", "--", "sh", "-c", "echo x > /root/trace && sync").returncode == 0
    assert invoke("shell", "--lane", "uml", "--", "test", "-e", "/root/trace").returncode == 1
    assert hashlib.sha256(root.read_bytes()).hexdigest() == before


def test_a_folder_that_is_not_there_is_one_clear_line(invoke: Task) -> None:
    result = invoke("shell", "--lane", "uml", "--share", "/nonexistent", "--", "true")
    assert result.returncode == 2
    assert b"is no folder" in result.stderr
    assert b"Traceback" not in result.stderr


def test_two_machines_at_once_do_not_meet() -> None:
    command = [sys.executable, "-m", "invoke", "shell", "--lane", "uml", "--", "sh", "-c", "sleep 1; cat"]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for number, process in enumerate(running):
        out, err = process.communicate(f"machine {number}".encode(), timeout=120)
        assert (process.returncode, out) == (0, f"machine {number}".encode()), err


class Terminal:
    """A task on a pseudo terminal of 33 rows and 101 columns."""

    def __init__(self, *words: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.environ.update(TERM="xterm", PS1="")
            os.execv(sys.executable, [sys.executable, "-m", "invoke", *words])
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self.seen = b""

    def until(self, text: bytes, seconds: float = 120) -> None:
        limit = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{text!r} did not come; seen: {self.seen[-2000:]!r}"
            self.seen += os.read(self.master, 65536)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def status(self) -> int:
        while True:
            try:
                if not os.read(self.master, 65536):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("lane", LANES)
def test_a_terminal_is_a_terminal(lane: str) -> None:
    terminal = Terminal("shell", "--lane", lane)
    terminal.until(b"# ")
    before = termios.tcgetattr(terminal.master)
    terminal.type(b"tty; stty size; echo $TERM; echo a''b\r")
    terminal.until(b"ab\r\n")
    assert b"/dev/pts/" in terminal.seen
    assert b"33 101" in terminal.seen
    assert b"xterm" in terminal.seen
    ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    time.sleep(0.5)
    terminal.type(b"stty size\r")
    terminal.until(b"50 140")
    terminal.type(b"sleep 1000\r")
    time.sleep(0.5)
    terminal.type(b"\x03echo c''d\r")
    terminal.until(b"cd\r\n")
    terminal.type(b"exit 5\r")
    assert terminal.status() == 5
    assert before[3] & termios.ICANON == 0, "keys pass one by one while the guest has the terminal"


def test_ctrl_c_ends_the_machine_and_leaves_nothing() -> None:
    command = [sys.executable, "-m", "invoke", "shell", "--lane", "uml", "--", "sh", "-c", "echo up; sleep 1000"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert uml_processes(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    time.sleep(0.3)
    assert not uml_processes(process.pid)


def uml_processes(starter: int) -> list[str]:
    """Return the command lines of machines that a task has started: they carry its environment mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CLOISON_STARTED_BY={starter}".encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found
