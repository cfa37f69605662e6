# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that Python has no function for. All raise `OSError` as Python's own do."""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# The slot of the x86 table; architectures of the generic table have a number of the project's own.
VSERVER = 236 if platform.machine() == "x86_64" else 250

CAPABILITY_VERSION_3 = 0x20080522


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_uint32] | None) -> int:
    """Make the system call `number` and return its result."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    ctypes.set_errno(0)
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result == -1 and ctypes.get_errno():
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def vserver(command: int, identifier: int = 0, data: int | None = None) -> int:
    """Call ``vserver(command, identifier, data)``; `data` is an address or None."""
    return syscall(VSERVER, command, identifier, data)


def capset(effective: int, permitted: int, inheritable: int = 0) -> None:
    """Set the capability masks of the calling thread (bit N is capability N)."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    body = (ctypes.c_uint32 * 6)(
        effective & low, permitted & low, inheritable & low, effective >> high, permitted >> high, inheritable >> high
    )
    syscall(_numbers()["capset"], header, body)


def _numbers() -> dict[str, int]:
    """Return numbers of plain system calls on this architecture."""
    return {"capset": 126} if platform.machine() == "x86_64" else {"capset": 91}
