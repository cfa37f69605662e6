# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error family. Every error says what is wrong in one line and, as a hint, what to do."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every task; stable, so that scripts may rely on them."""

    GOOD = 0
    CHECK = 1
    USAGE = 2
    MACHINE = 3
    BUILD = 4


class ForgeError(Exception):
    """Base of all expected failures: printed as one line and a hint, never as a traceback."""

    status = ExitStatus.BUILD

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ForgeError):
    """The caller asked for something that does not exist or does not fit together."""

    status = ExitStatus.USAGE


class BuildError(ForgeError):
    """A stage between fetch and image failed."""

    status = ExitStatus.BUILD


class MachineError(ForgeError):
    """A machine did not start, hung, or ended before it had answered."""

    status = ExitStatus.MACHINE


class CheckError(ForgeError):
    """A check ran and found what must not be."""

    status = ExitStatus.CHECK


class ToolMissingError(BuildError):
    """A program that a stage needs is not installed."""


class CommandError(BuildError):
    """An external command failed; carries the command line, its status and its log."""

    def __init__(self, message: str, *, hint: str = "", status_code: int | None = None, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status_code = status_code
        self.log = log
