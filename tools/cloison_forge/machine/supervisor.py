# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine from start to end: a watchdog for each stage, never a hang, nothing left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cloison_forge.core.errors import MachineError
from cloison_forge.core.run import command_line
from cloison_forge.machine.console import Console
from cloison_forge.machine.judge import Expected, Judge
from cloison_forge.machine.lane import Lane, MachineSpec, Wires
from cloison_forge.machine.outcome import Ending, Limits, Outcome, Stage
from cloison_forge.machine.protocol import Stream

_PR_SET_PDEATHSIG = 1
_AFTER_PANIC = 3.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Run:
    """What became of one machine.

    `ending.outcome` is READY when it spoke, did all of its job and powered off. Times are in
    seconds from the start of the machine's process; `ready` is None if it never spoke.
    """

    lane: str
    folder: Path
    ending: Ending
    judge: Judge
    console: Console
    ready: float | None = None
    took: float = 0.0
    command: str = ""
    accelerator: str = ""
    exit_code: int | None = None

    @property
    def good(self) -> bool:
        """Say whether the machine itself did all it had to."""
        return self.ending.outcome is Outcome.READY


@dataclass
class Port:
    """A descriptor that the supervisor watches; `on_ready` reads it (its result is for the caller's own use)."""

    descriptor: int
    on_ready: Callable[[], object]


@dataclass
class Supervisor:
    """Starts a machine and stays with it. Use `run` once.

    `on_console` sees console bytes as they come. While `patient` says so, no limit runs (a command in a
    shell has none). `attach` is called with the host's end of the two-way channel and
    returns the descriptors to watch for it.
    """

    lane: Lane
    spec: MachineSpec
    expected: Expected
    folder: Path
    on_console: Callable[[bytes], None] | None = None
    on_progress: Callable[[Judge], None] | None = None
    attach: Callable[[socket.socket, Callable[[Port], None], Callable[[int], bool]], None] | None = None
    patient: Callable[[], bool] = lambda: False

    _stage: Stage = Stage.FIRMWARE
    _stage_begun: float = 0.0
    _ready: float | None = None
    _panicked: float | None = None
    _exited: bool = False
    _stream: Stream = field(default_factory=Stream)
    _console: Console = field(default_factory=Console)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> Run:
        """Start the machine and watch it to its end; whatever happens, no process of it is left."""
        self._judge = Judge(self.expected)
        self._limits: Limits = self.lane.limits(self.spec)
        channel_in, channel_out = os.pipe()
        ours, theirs = socket.socketpair() if self.attach else (None, None)
        wires = Wires(self.folder, self.folder / "job.tar", channel_out, theirs.fileno() if theirs else None)
        process: subprocess.Popen[bytes] | None = None
        begun = time.monotonic()
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, channel_in)
            outgoing = closing.enter_context(os.fdopen(channel_out, "wb"))
            closing.callback(self._selector.close)
            for end in (ours, theirs):
                if end is not None:
                    closing.enter_context(end)
            # A signal must not fall between the start of the machine and the moment it is known here.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
            try:
                process, command = self._start(wires)
                begun = self._stage_begun = time.monotonic()
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                outgoing.close()
                if theirs is not None:
                    theirs.close()
                ending = self._watch(process, channel_in, ours, closing)
            finally:
                if process is not None:
                    _end(process)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        took = time.monotonic() - begun
        ready = None if self._ready is None else self._ready - begun
        accelerator = self.spec.accelerator
        return Run(
            self.lane.name,
            self.folder,
            ending,
            self._judge,
            self._console,
            ready,
            took,
            command,
            accelerator,
            process.returncode,
        )

    def _start(self, wires: Wires) -> tuple[subprocess.Popen[bytes], str]:
        """Write the job disk and start the machine's program in its folder."""
        lane = self.lane
        self.spec.job.write(wires.job_disk, channel=lane.channel, terminal=lane.terminal, ending=lane.ending)
        launch = lane.launch(self.spec, wires)
        text = command_line(launch.argv)
        (self.folder / "command").write_text(text + "\n", encoding="utf-8")
        inherited = [wires.channel] + ([wires.terminal] if wires.terminal is not None else [])
        try:
            with (self.folder / "machine.log").open("wb") as errors:
                process = subprocess.Popen(
                    list(launch.argv),
                    cwd=self.folder,
                    env={**os.environ, **launch.env, "CLOISON_STARTED_BY": str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    pass_fds=inherited,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            raise MachineError(
                f"the machine's program does not start: {error}", hint=f"the command is in {self.folder / 'command'}"
            ) from None
        return process, text

    def _watch(
        self, process: subprocess.Popen[bytes], channel: int, ours: socket.socket | None, closing: contextlib.ExitStack
    ) -> Ending:
        """Read everything that the machine says until it has ended or must be ended."""
        assert process.stdout is not None
        output = closing.enter_context(process.stdout)
        console_log = closing.enter_context((self.folder / "console.log").open("wb"))
        channel_log = closing.enter_context((self.folder / "channel.raw").open("wb"))
        watch = os.pidfd_open(process.pid)
        closing.callback(os.close, watch)
        os.set_blocking(output.fileno(), False)
        os.set_blocking(channel, False)

        def read_console() -> bool:
            more = _read(output.fileno(), lambda data: self._take_console(data, console_log))
            return more or self._remove(output.fileno())

        def read_channel() -> bool:
            more = _read(channel, lambda data: self._take_channel(data, channel_log))
            return more or self._remove(channel)

        def exited() -> bool:
            self._exited = True
            return True

        self._add(Port(output.fileno(), read_console))
        self._add(Port(channel, read_channel))
        self._add(Port(watch, exited))
        if self.attach is not None and ours is not None:
            self.attach(ours, self._add, self._remove)
        ending = self._loop()
        process.poll()
        if not self._exited:
            _end(process)
        while not _quiet(output.fileno()) and read_console():
            pass
        while not _quiet(channel) and read_channel():
            pass
        self._console.close()
        if self._exited:
            self._stream.close()
            if self._stream.fault:
                self._judge.stream_fault(self._stream.fault)
        return ending or self._ending(process)

    def _add(self, port: Port) -> None:
        self._selector.register(port.descriptor, selectors.EVENT_READ, port.on_ready)

    def _remove(self, descriptor: int) -> bool:
        """Watch a descriptor no longer; always False, the value of a reader that has come to the end."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)
        return False

    def _loop(self) -> Ending | None:
        """Serve the descriptors until the machine has ended (None) or a limit has passed (the ending)."""
        while not self._exited:
            now = time.monotonic()
            limit = self._deadline()
            if limit is not None and now >= limit:
                return self._overdue()
            wait = None if limit is None else min(limit - now, 5.0)
            for key, _ in self._selector.select(wait):
                key.data()
        return None

    def _deadline(self) -> float | None:
        if self._panicked is not None:
            return self._panicked + _AFTER_PANIC
        if self._judge.fault is not None and self._judge.fault.outcome is not Outcome.OOPS:
            return self._stage_begun  # nothing that comes now could be believed
        if self.patient():
            self._stage_begun = time.monotonic()
            return None
        seconds = self._judge.current.seconds if self._judge.current else 0
        return self._stage_begun + self._limits.of(self._stage, seconds)

    def _overdue(self) -> Ending:
        if self._panicked is not None:
            return Ending(Outcome.PANIC, self._console.panic, self._stage)
        if self._judge.fault is not None:
            return self._judge.fault
        seconds = self._judge.current.seconds if self._judge.current else 0
        detail = f"no progress for {self._limits.of(self._stage, seconds):.0f} s"
        if self._judge.current is not None:
            detail += f" in {self._judge.current.id}"
        if self._console.complaints:
            return Ending(Outcome.OOPS, f"{self._console.complaints[0]}; then {detail}", self._stage)
        if self._stage is Stage.FIRMWARE:
            special = self.lane.explain(self.spec, self.folder)
            return Ending(special or Outcome.FIRMWARE_STUCK, detail, self._stage)
        return Ending(Outcome.TIMEOUT, detail, self._stage)

    def _enter(self, stage: Stage) -> None:
        self._stage, self._stage_begun = stage, time.monotonic()

    def _take_console(self, data: bytes, log: BinaryIO) -> None:
        log.write(data)
        if self.on_console is not None:
            self.on_console(data)
        self._console.feed(data)
        if self._stage is Stage.FIRMWARE and self._console.started:
            self._enter(Stage.KERNEL)
        if self._console.panic and self._panicked is None:
            self._panicked = time.monotonic()

    def _take_channel(self, data: bytes, log: BinaryIO) -> None:
        log.write(data)
        for record in self._stream.feed(data):
            self._judge.hear(record)
            self._follow(record.kind)
        if self._stream.fault:
            self._judge.stream_fault(self._stream.fault)
        if self.on_progress is not None:
            self.on_progress(self._judge)

    def _follow(self, kind: str) -> None:
        """Enter the stage that a record announces."""
        if self._judge.fault is not None and self._judge.fault.outcome is not Outcome.OOPS:
            return
        if kind == "hello":
            self._ready = time.monotonic()
            self._enter(Stage.ENDING if self.spec.job.mode == "boot" else Stage.RUNNER)
        elif kind == "begin":
            self._enter(Stage.CHECKS)
        elif kind == "end":
            # Between two checks the runner may have to be started anew.
            left = any(result.status == "not_reported" for result in self._judge.results.values())
            self._enter(Stage.RUNNER if left else Stage.ENDING)
        elif kind == "bye":
            self._enter(Stage.POWER_OFF)

    def _ending(self, process: subprocess.Popen[bytes]) -> Ending:
        """Name what happened to a machine that has ended by itself."""
        code = process.wait()
        if self._console.panic:
            return Ending(Outcome.PANIC, self._console.panic, self._stage)
        special = self.lane.explain(self.spec, self.folder)
        if special is not None:
            return Ending(special, _last_line(self.folder / "machine.log"), self._stage)
        if self._console.complaints:
            return Ending(Outcome.OOPS, self._console.complaints[0], self._stage)
        if self._judge.fault is not None:
            return self._judge.fault
        if self._judge.ended:
            if code == 0:
                return Ending(Outcome.READY)
            return Ending(Outcome.EXITED, f"the machine's program ended with status {code} after the job", self._stage)
        if code != 0:
            last = _last_line(self.folder / "machine.log") or (self._console.tail[-1] if self._console.tail else "")
            how = f"signal {-code}" if code < 0 else f"status {code}"
            return Ending(Outcome.EXITED, f"{how}: {last}", self._stage)
        return Ending(Outcome.NO_RESULT, f"ended at stage {self._stage.value} without bye", self._stage)


def _die_with_parent() -> None:
    """Make the kernel kill the machine's program when this process dies (runs in the child)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING_SIGNALS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the machine's whole session and wait for its program."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(descriptor: int, take: Callable[[bytes], None]) -> bool:
    """Read what is there; False at the end of the file."""
    try:
        data = os.read(descriptor, 65536)
    except BlockingIOError:
        return True
    except OSError:
        return False
    if data:
        take(data)
    return bool(data)


def _quiet(descriptor: int) -> bool:
    """Say that nothing is waiting in a pipe, and that it has not ended."""
    return not select.select([descriptor], [], [], 0)[0]


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
