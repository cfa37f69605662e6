# SPDX-License-Identifier: GPL-2.0-or-later
"""The few operating system calls of entering a context, behind one object that tests replace."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import termios
import warnings
from collections.abc import Mapping, Sequence

_LOADED_EARLY = (warnings,)  # os.execvpe imports it: that must not happen below the context's root
_PR_SET_DUMPABLE = 4
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_LAST_DESCRIPTOR = 0xFFFFFFFF


class System:
    """What a child does to itself before it runs a command. Every method raises OSError on failure."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _check(self, result: int) -> None:
        if result == -1:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def new_session(self, terminal: int | None) -> None:
        """Leave the caller's session; `terminal` becomes the controlling terminal of the new one."""
        os.setsid()
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    def standard_streams(self, streams: Mapping[int, int]) -> None:
        """Put descriptors in the place of 0, 1, 2: ``{0: fd, …}``; those not named stay."""
        for target, source in streams.items():
            os.dup2(source, target, inheritable=True)

    def keep_only(self, report: int) -> int:
        """Close every descriptor but 0 to 2 and `report`; returns its new number, closed by exec."""
        kept = 3
        os.dup2(report, kept, inheritable=False) if report != kept else os.set_inheritable(kept, False)
        self._check(self._libc.close_range(ctypes.c_uint(kept + 1), ctypes.c_uint(_LAST_DESCRIPTOR), 0))
        return kept

    def harden(self) -> None:
        """Default signal actions, nothing blocked, umask 022, no core image and no /proc access for others.

        The last lasts until exec: what of the host is still in memory is not for the context.
        """
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33) and number in signal.valid_signals():
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        self._check(self._libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))

    def unshare(self, flags: int) -> None:
        """Get new namespaces; a new mount namespace passes nothing back to the host."""
        self._check(self._libc.unshare(ctypes.c_int(flags)))
        if flags & 0x20000:
            self._check(self._libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))

    def change_root(self, root: str) -> None:
        """Change the root directory, and into it."""
        os.chroot(root)
        os.chdir("/")

    def change_directory(self, directory: str) -> None:
        """Change the working directory."""
        os.chdir(directory)

    def become(self, uid: int, gid: int, groups: Sequence[int]) -> None:
        """Take on a user for good."""
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def execute(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a program, looked for in the environment's PATH; returns only by OSError."""
        os.execvpe(argv[0], list(argv), dict(environment))
