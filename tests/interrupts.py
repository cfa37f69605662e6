# SPDX-License-Identifier: GPL-2.0-or-later
"""For tests that interrupt a program."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """Undo what the background of a script leaves to all that it starts: SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
