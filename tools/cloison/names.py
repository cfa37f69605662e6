# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of contexts: an optional registry under ``/run/cloison`` that maps names to xids.

The kernel knows numbers only. A name is a small file ``names/NAME`` that holds the xid. It is
written by whoever creates a context and dropped when the context is found to have ended, so a
stale name is repaired by its next use. One lock serialises writers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloison.abi import MAX_XID, MIN_XID
from cloison.errors import CloisonError, Exit

RUN = Path("/run/cloison")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def check(name: str) -> str:
    """Return `name` if it can be a context's name, else raise `CloisonError`."""
    if not _NAME.fullmatch(name):
        raise CloisonError(
            f"'{name}' is no name for a context",
            hint="a letter or '_', then up to 63 letters, digits, '_', '.' or '-'",
            status=Exit.USAGE,
        )
    return name


@dataclass(frozen=True)
class Registry:
    """The names of one host; `root` is ``/run/cloison`` but in tests."""

    root: Path = RUN

    @property
    def _names(self) -> Path:
        return self.root / "names"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the writers' lock; also around "look for a free xid and create"."""
        self._names.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def all(self) -> dict[str, int]:
        """Return every name and its xid; files that are not ours are left out."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in self._names.iterdir():
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError, ValueError):
                        found[entry.name] = self._read(entry)
        return dict(sorted(found.items()))

    def by_xid(self) -> dict[int, str]:
        """Return the name of each xid that has one."""
        return {xid: name for name, xid in self.all().items()}

    def lookup(self, text: str) -> int:
        """Return the xid that `text` means: a number, or a registered name. Raises `CloisonError`."""
        if text.isascii() and text.isdecimal():
            xid = int(text)
            if not MIN_XID <= xid <= MAX_XID:
                raise CloisonError(
                    f"{text} is no context id", hint=f"ids go from {MIN_XID} to {MAX_XID}", status=Exit.USAGE
                )
            return xid
        source = self._names / check(text)
        try:
            return self._read(source)
        except FileNotFoundError:
            known = ", ".join(self.all()) or "none"
            raise CloisonError(
                f"no context is called '{text}'", hint=f"known names: {known}", status=Exit.ABSENT
            ) from None
        except (OSError, ValueError) as error:
            raise CloisonError(f"{source} cannot be read: {error}", hint="remove the file, or use the number") from None

    def register(self, name: str, xid: int) -> None:
        """Give a context a name, which replaces older names of that xid. Call it with the lock held."""
        for other, number in self.all().items():
            if number == xid:
                self.drop(other)
        target = self._names / check(name)
        beside = self._names / f".{name}.new"
        beside.write_text(f"{xid}\n", encoding="ascii")
        beside.rename(target)

    def drop(self, name: str) -> None:
        """Forget a name; unknown names are no error."""
        with contextlib.suppress(FileNotFoundError):
            (self._names / check(name)).unlink()

    @staticmethod
    def _read(path: Path) -> int:
        xid = int(path.read_text(encoding="ascii"))
        if not MIN_XID <= xid <= MAX_XID:
            raise ValueError(f"{xid} is no context id")
        return xid
