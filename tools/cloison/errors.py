# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of the command and of the library above the system call; all end in one clear line."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of ``cloison``. 125 to 127 belong to exec, enter and run, like those of env(1)."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    ABSENT = 3
    TIMEOUT = 4
    OWN = 125
    CANNOT_RUN = 126
    NOT_FOUND = 127


class CloisonError(Exception):
    """An expected failure: one line, a hint, and the exit status that stands for it."""

    def __init__(self, message: str, *, hint: str = "", status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message, self.hint, self.status = message, hint, status
