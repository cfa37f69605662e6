# SPDX-License-Identifier: GPL-2.0-or-later
"""The parent's side: fork first, stay on the host, relay the terminal, return the child's status.

A process that has entered a context cannot come back, so the entering is always done by a child.
The parent waits for it (waiting crosses contexts) and passes signals on by ``ctx_kill``, because
the host's kill(2) does not reach into a context.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from cloison import procfs
from cloison.context import Context
from cloison.errors import CloisonError, Exit
from cloison.launch import Failure, Launch, run_child
from cloison.syscall import VserverError
from cloison.system import System
from cloison.terminal import Terminal

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def require_single_thread() -> None:
    """Refuse to fork from a process with threads: a lock held by another would stay held in the child."""
    count = procfs.threads()
    if count != 1:
        raise CloisonError(f"entering a context needs a process with one thread, this one has {count}", status=Exit.OWN)


class LaunchError(CloisonError):
    """A command was not started. `cause` is the failed command of the system call, if it was one."""

    def __init__(self, message: str, *, hint: str, status: Exit, cause: VserverError | None) -> None:
        super().__init__(message, hint=hint, status=status)
        self.cause = cause


def failure_of(data: bytes) -> CloisonError:
    """Turn what a child reported into an error for people."""
    try:
        failure = Failure.decode(data)
    except ValueError:
        return CloisonError(f"the child ended with a report that cannot be read: {data[:80]!r}", status=Exit.OWN)
    status = Exit.OWN
    if failure.step.startswith("run "):
        status = Exit.NOT_FOUND if failure.errno == errno.ENOENT else Exit.CANNOT_RUN
    hint = "the program is looked for inside the context's root and PATH" if status is not Exit.OWN else ""
    cause = _typed(failure) if failure.command >= 0 else None
    return LaunchError(f"{failure.step}: {failure.text}", hint=hint, status=status, cause=cause)


def in_child(action: Callable[[], bytes]) -> bytes:
    """Run `action` in a child and return its bytes; a `VserverError` of it is raised here, same type."""
    require_single_thread()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _run_action(action, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if data[:1] == b"=":
        return data[1:]
    if data[:1] != b"!":
        raise CloisonError(f"a helper process ended with {os.waitstatus_to_exitcode(status)} and said nothing")
    failure = Failure.decode(data[1:])
    if failure.command >= 0:
        raise _typed(failure)
    raise CloisonError(f"{failure.step}: {failure.text}")


def _run_action(action: Callable[[], bytes], report: int) -> NoReturn:
    try:
        answer = b"=" + action()
    except VserverError as error:
        answer = b"!" + Failure("", error.errno or 0, error.reason, error.command, error.ident).encode()
    except BaseException as error:
        answer = b"!" + Failure(type(error).__name__, 0, str(error)[:500]).encode()
    try:
        with os.fdopen(report, "wb") as stream:
            stream.write(answer)
    finally:
        os._exit(0)


def _typed(failure: Failure) -> VserverError:
    kinds = {kind.number: kind for kind in VserverError.__subclasses__()}
    return kinds.get(failure.errno, VserverError)(failure.errno, failure.command, failure.ident)


@contextlib.contextmanager
def _signals(wanted: tuple[int, ...]) -> Iterator[int]:
    """Turn signals into bytes on a pipe; yields its read end and restores everything afterwards."""

    def nothing(_number: int, _frame: FrameType | None) -> None:
        return None

    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, nothing) for number in wanted}
    old = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield read_end
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


def run(launch: Launch, context: Context, *, own_terminal: bool = True, system: System | None = None) -> int:
    """Run a command in a context and return its exit status (128 + n when signal n killed it).

    With `own_terminal` each standard stream that is a terminal is replaced by one of the context's
    own. Raises `CloisonError` (status 125 to 127) when the command could not be started.
    """
    require_single_thread()
    made = Terminal.open() if own_terminal else None
    read_end, write_end = os.pipe()
    with _signals((signal.SIGCHLD, signal.SIGWINCH, *FORWARDED)) as wakeup:
        child = os.fork()
        if child == 0:
            try:
                streams = made.streams if made else {}
                os._exit(
                    run_child(
                        launch,
                        context,
                        system or System(),
                        report=write_end,
                        streams=streams,
                        terminal=made.slave if made else None,
                    )
                )
            finally:
                os._exit(Exit.OWN)
        os.close(write_end)
        if made:
            os.close(made.slave)
        with contextlib.ExitStack() as stack:
            if made:
                stack.enter_context(made.raw())
            status = _Relay(child, context, made, wakeup).loop()
    with os.fdopen(read_end, "rb") as stream:
        data = stream.read()
    if data:
        raise failure_of(data)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class _Relay:
    """Waits for one child while its terminal and the caller's signals are passed on."""

    def __init__(self, child: int, context: Context, terminal: Terminal | None, wakeup: int) -> None:
        self.child, self.context, self.terminal, self.wakeup = child, context, terminal, wakeup
        self.typing = terminal is not None and terminal.source is not None
        self.printing = terminal is not None

    def loop(self) -> int:
        """Return the child's wait status."""
        while True:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                if self.terminal:
                    self.terminal.drain()
                    os.close(self.terminal.master)
                return status
            self._once()

    def _once(self) -> None:
        readers, writers = [self.wakeup], []
        if self.terminal is not None:
            if self.typing and self.terminal.source is not None:
                readers.append(self.terminal.source)
            if self.printing:
                readers.append(self.terminal.master)
            if self.terminal.pending:
                writers.append(self.terminal.master)
        ready, writable, _ = select.select(readers, writers, [], 5.0)
        if self.wakeup in ready:
            self._signalled(os.read(self.wakeup, 512))
        if self.terminal is None:
            return
        if self.terminal.master in ready:
            self.printing = self.terminal.to_caller()
        if self.terminal.source in ready:
            self.typing = self.terminal.from_caller()
        if writable:
            self.terminal.flush()

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH and self.terminal is not None:
                self.terminal.copy_size()
            elif number in FORWARDED:
                self._forward(number)

    def _forward(self, number: int) -> None:
        """Send a signal to the child: across contexts, or, before it has entered, on the host."""
        try:
            self.context.kill(number, self.child)
        except VserverError:
            with contextlib.suppress(OSError):
                os.kill(self.child, number)
