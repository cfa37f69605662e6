# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs Bochs with terminals for its screen and its serial ports: ``bochs_terminals.py CHANNEL PROGRAM WORD...``.

Bochs draws its screen on a terminal or not at all, and writes its serial ports through a buffer of 4 KiB, in which the
last words of a kernel that died would stay; on a terminal the buffer ends with each line. What comes from the first
port (``$CLOISON_CONSOLE`` in the configuration) goes to standard output, what comes from the second
(``$CLOISON_RESULTS``) to the descriptor CHANNEL.
"""

from __future__ import annotations

import ctypes
import os
import pty
import select
import signal
import subprocess
import sys
import tty
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _carry(source: int, target: int | None) -> bool:
    """Carry what is there; False at the end."""
    try:
        data = os.read(source, 65536)
    except OSError:  # EIO: nobody has the other end any more
        return False
    if target is not None:
        _write(target, data)
    return bool(data)


def run(words: Sequence[str], targets: Mapping[str, int]) -> int:
    """Run a program with a terminal as its own and one for each of `targets` (variable name to descriptor)."""
    screen, own = pty.openpty()
    routes: dict[int, int | None] = {screen: None}
    others, variables = [own], dict(os.environ)
    for name, target in targets.items():
        here, there = pty.openpty()
        tty.setraw(there)
        routes[here], variables[name] = target, os.ttyname(there)
        others.append(there)
    process = subprocess.Popen(
        words, stdin=own, stdout=own, stderr=subprocess.DEVNULL, env=variables, preexec_fn=_die_with_parent
    )
    ended = os.pidfd_open(process.pid)
    while True:
        ready, _, _ = select.select([ended, *routes], [], [])
        for source in ready:
            if source in routes:
                _carry(source, routes[source])
        if ready == [ended]:
            break
    for descriptor in others:
        os.close(descriptor)
    for source in routes:
        while _carry(source, routes[source]):
            pass
    return process.wait()


def main(channel: str, *words: str) -> int:
    """Run Bochs and return its status."""
    status = run(words, {"CLOISON_CONSOLE": sys.stdout.fileno(), "CLOISON_RESULTS": int(channel)})
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
