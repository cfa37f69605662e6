# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of `shell`: bytes to and from a command in the machine, exact, with its exit status.

The frames are described in ``images/init/shell.c``. The guest grants credit for input, so that a
serial port without flow control loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloison_forge.core.errors import MachineError
from cloison_forge.machine.job import Window
from cloison_forge.machine.supervisor import Port

LONGEST = 4096
_ESCAPE = b"\x1d"  # Ctrl-], three times in a row ends the machine


def window() -> Window | None:
    """Return the terminal that this process runs on, or None when input or output is no terminal."""
    if not (os.isatty(0) and os.isatty(1)):
        return None
    columns, rows = os.get_terminal_size(1)
    term = "".join(letter for letter in os.environ.get("TERM", "") if letter.isprintable() and letter != " ")
    return Window(term[:60] or "dumb", rows, columns)


def frame(kind: bytes, data: bytes = b"") -> bytes:
    """Return one frame: a byte of type, two of length, the bytes."""
    return kind + struct.pack(">H", len(data)) + data


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take bytes as they come and give the frames that are complete."""
        self._rest += data
        while len(self._rest) >= 3:
            (length,) = struct.unpack_from(">H", self._rest, 1)
            if length > LONGEST:
                raise MachineError("the shell's channel is broken: a frame is too long", hint="run it again")
            if len(self._rest) < 3 + length:
                return
            kind, data, self._rest = self._rest[:1], self._rest[3 : 3 + length], self._rest[3 + length :]
            yield kind, data


class Session:
    """One command in a machine, tied to this process's standard input, output and error.

    `status` is the command's exit status once it has ended (128 + N for signal N), else None.
    """

    def __init__(self, *, interactive: bool, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self.interactive = interactive
        self.status: int | None = None
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._frames = Frames()
        self._credit = 0
        self._watching = False
        self._input_over = False
        self._begun = False
        self._escapes = 0

    def attach(self, line: socket.socket, add: Callable[[Port], None], remove: Callable[[int], bool]) -> None:
        """Begin to carry; the supervisor calls this with the host's end of the two-way channel."""
        self._line, self._add, self._remove = line, add, remove
        add(Port(line.fileno(), self._on_line))

    def running(self) -> bool:
        """Say whether the command has begun and not ended."""
        return self._begun and self.status is None

    def resize(self) -> None:
        """Tell the guest the size of the host's terminal."""
        columns, rows = os.get_terminal_size(self._stdout)
        self._line.sendall(frame(b"w", struct.pack(">HH", rows, columns)))

    def _on_line(self) -> None:
        data = self._line.recv(65536)
        if not data:
            self._remove(self._line.fileno())
            return
        for kind, body in self._frames.feed(data):
            if kind == b"o":
                _write(self._stdout, body)
            elif kind == b"e":
                _write(self._stderr, body)
            elif kind == b"x":
                self.status = int(body)
                self._stop_watching()
            elif kind == b"c":
                self._begin()
                self._credit += struct.unpack(">I", body)[0]
                self._want_input()

    def _begin(self) -> None:
        """Switch the host's terminal to single keys once the guest listens; until then Ctrl-C stops the boot."""
        if self.interactive and not self._begun:
            tty.setraw(self._stdin)
            self.resize()
        self._begun = True

    def _want_input(self) -> None:
        """Watch standard input while the guest can take more. Files cannot be watched: they are always ready."""
        if self._input_over or self._watching or not self._credit or self.status is not None:
            return
        try:
            self._add(Port(self._stdin, self._on_input))
            self._watching = True
        except PermissionError:
            while self._credit and not self._input_over:
                self._on_input()

    def _stop_watching(self) -> None:
        if self._watching:
            self._remove(self._stdin)
            self._watching = False

    def _on_input(self) -> None:
        try:
            data = os.read(self._stdin, min(self._credit, LONGEST))
        except OSError:
            data = b""  # a terminal that has gone away
        if not data:
            self._input_over = True
            self._line.sendall(frame(b"z"))
            self._stop_watching()
            return
        if self.interactive:
            self._count_escapes(data)
        self._credit -= len(data)
        self._line.sendall(frame(b"i", data))
        if not self._credit:
            self._stop_watching()

    def _count_escapes(self, data: bytes) -> None:
        trailing = len(data) - len(data.rstrip(_ESCAPE))
        self._escapes = self._escapes + trailing if trailing == len(data) else trailing
        if self._escapes >= 3:
            raise KeyboardInterrupt


@contextmanager
def lent_terminal(session: Session) -> Iterator[None]:
    """Lend the host's terminal to an interactive session, and take it back as it was whatever happens."""
    if not session.interactive:
        yield
        return
    settings = termios.tcgetattr(0)
    before = signal.signal(signal.SIGWINCH, lambda *_: _resize(session))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        termios.tcsetattr(0, termios.TCSADRAIN, settings)


def _resize(session: Session) -> None:
    with contextlib.suppress(OSError, AttributeError):
        session.resize()


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
