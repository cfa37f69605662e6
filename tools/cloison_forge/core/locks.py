# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks between processes: two builds at once wait for each other, cleanly and visibly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison_forge.core import ui


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of `folder` (file ``.lock`` in it); say so once when another process has it.

    The lock is the kernel's (flock): it is gone with the process that held it, however that ended.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        ui.note("wait", f"another process is using {what} ({folder}); waiting for it to finish")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
