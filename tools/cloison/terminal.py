# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal of its own for what runs in a context: the host's terminal never goes in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field

CHUNK = 65536


@dataclass
class Terminal:
    """A pseudo terminal between the caller's streams (`outside`) and the child's (`streams`).

    `streams` maps 0, 1, 2 to the slave where the caller's descriptor is a terminal; pipes and
    files are left alone. `source` and `sink` are the caller's descriptors to relay.
    """

    master: int
    slave: int
    streams: dict[int, int]
    source: int | None
    sink: int
    pending: bytearray = field(default_factory=bytearray)

    @staticmethod
    def open(descriptors: tuple[int, ...] = (0, 1, 2)) -> Terminal | None:
        """Make a pseudo terminal if any of `descriptors` is one; None otherwise."""
        terminals = [number for number, fd in enumerate(descriptors) if os.isatty(fd)]
        if not terminals:
            return None
        master, slave = pty.openpty()
        made = Terminal(
            master,
            slave,
            dict.fromkeys(terminals, slave),
            descriptors[0] if 0 in terminals else None,
            next(descriptors[number] for number in (1, 2, 0) if number in terminals),
        )
        made.copy_size()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(made.sink))
        os.set_blocking(master, False)
        return made

    def copy_size(self) -> None:
        """Give the child's terminal the size of the caller's."""
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(self.sink, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Let every key of the caller's terminal through; put its mode back at the end."""
        if self.source is None:
            yield
            return
        before = termios.tcgetattr(self.source)
        try:
            tty.setraw(self.source)
            yield
        finally:
            termios.tcsetattr(self.source, termios.TCSADRAIN, before)

    def to_caller(self) -> bool:
        """Pass on what the child printed; False when its terminal is closed."""
        try:
            data = os.read(self.master, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        while data:
            data = data[os.write(self.sink, data) :]
        return True

    def drain(self) -> None:
        """Pass on what is left; what still runs in the background is not waited for."""
        while True:
            try:
                data = os.read(self.master, CHUNK)
            except OSError:
                return
            while data:
                data = data[os.write(self.sink, data) :]

    def from_caller(self) -> bool:
        """Take what the caller typed; False at its end."""
        assert self.source is not None
        try:
            data = os.read(self.source, CHUNK)
        except OSError:
            return False
        self.pending += data
        self.flush()
        return bool(data)

    def flush(self) -> None:
        """Write what the child has not taken yet, as much as it takes now."""
        while self.pending:
            try:
                del self.pending[: os.write(self.master, self.pending)]
            except OSError:
                return
