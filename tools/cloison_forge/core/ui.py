# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees: steps, progress, tables, one-line errors. Plain lines when output is no terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from cloison_forge.core.errors import ForgeError

_COLOURS = {"bold": "1", "grey": "90", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def interactive(stream: TextIO | None = None) -> bool:
    """Say whether `stream` (standard error by default) is a terminal that may be redrawn."""
    out = stream or sys.stderr
    return out.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def paint(text: str, colour: str) -> str:
    """Colour `text` if standard error is a terminal and ``NO_COLOR`` is unset."""
    if not interactive() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def say(text: str) -> None:
    """Print one line of news on standard error (standard output belongs to results)."""
    print(text, file=sys.stderr, flush=True)


def note(stage: str, text: str) -> None:
    """Print one line that belongs to a stage, such as 'kernel   up to date'."""
    say(f"{paint(f'{stage:<9}', 'cyan')} {text}")


def warn(text: str) -> None:
    """Print one line that the user should not miss."""
    say(f"{paint('warning', 'yellow')}   {text}")


def report_error(error: ForgeError) -> None:
    """Print an expected failure: what is wrong, then what to do."""
    say(f"{paint('error', 'red')}     {error.message}")
    if error.hint:
        say(f"{paint('hint', 'grey')}      {error.hint}")


def seconds(value: float) -> str:
    """Format a duration in seconds for people: '0.4 s', '3 min 5 s'."""
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


@contextmanager
def step(stage: str, text: str) -> Iterator[None]:
    """Announce a step, and how long it took when it is done."""
    note(stage, text + " …")
    begun = time.monotonic()
    yield
    note(stage, f"{text}: done in {seconds(time.monotonic() - begun)}")


class Progress:
    """A counter with a known end: a redrawn bar on a terminal, a line every tenth elsewhere.

    Units are the caller's (objects, bytes, checks). `total` of 0 means unknown.
    """

    def __init__(self, stage: str, what: str, total: int) -> None:
        self.stage, self.what, self.total = stage, what, total
        self.done = 0
        self._begun = time.monotonic()
        self._drawn = 0.0
        self._tenth = 0
        self._live = interactive()

    def advance(self, by: int = 1, detail: str = "") -> None:
        """Count `by` more units."""
        self.update(self.done + by, detail)

    def update(self, done: int, detail: str = "") -> None:
        """Set the number of finished units."""
        self.done = done
        if self.total and done > self.total:
            self.total = done
        now = time.monotonic()
        if self._live and now - self._drawn > 0.1:
            self._drawn = now
            self._draw(detail)
        elif not self._live and self.total and done * 10 // self.total > self._tenth:
            self._tenth = done * 10 // self.total
            note(self.stage, f"{self.what}: {self._tenth * 10} %")

    def finish(self) -> None:
        """Remove the bar; the caller prints the result."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self, detail: str) -> None:
        width = 30
        elapsed = time.monotonic() - self._begun
        if self.total:
            share = min(1.0, self.done / self.total)
            bar = "█" * int(width * share) + "░" * (width - int(width * share))
            left = f" {seconds(elapsed / share - elapsed)} left" if 0.02 < share < 1 else ""
            line = f"{bar} {100 * share:3.0f} % {self.what}{left}"
        else:
            line = f"{self.done} {self.what} {seconds(elapsed)}"
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        text = f"{self.stage:<9} {line} {detail}"[: columns - 1]
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; long cells wrap on a terminal."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", header_style="bold", show_lines=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(drawn)
