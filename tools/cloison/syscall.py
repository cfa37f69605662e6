# SPDX-License-Identifier: GPL-2.0-or-later
"""The vserver system call: its number on this machine, and its errors as exceptions."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import ClassVar

from cloison.abi import Command

RawCall = Callable[[int, int, "ctypes.Structure | None"], int]
"""(command word, id, structure or None) → result ≥ 0, or −errno. Tests put their own in its place."""

_GENERIC = 250
_NUMBERS_64 = {
    "x86_64": 236,
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64": 257,
    "ppc64le": 257,
    "s390x": 263,
    "sparc64": 267,
    "mips64": 5236,
    "parisc64": 263,
    "alpha": 428,
}
_NUMBERS_32 = {
    "x86_64": 273,
    "i386": 273,
    "i486": 273,
    "i586": 273,
    "i686": 273,
    "armv6l": 313,
    "armv7l": 313,
    "armv8l": 313,
    "aarch64": 313,
    "riscv32": _GENERIC,
    "ppc": 257,
    "ppc64": 257,
    "s390x": 263,
    "sparc": 267,
    "sparc64": 267,
    "mips": 4277,
    "mips64": 4277,
    "parisc": 263,
    "m68k": 278,
    "sh4": 273,
    "microblaze": 273,
}


_SHARES = "the caller shares memory, descriptors or working directory with another thread or process"
_SPECIAL: dict[tuple[int, int], str] = {
    (Command.CTX_MIGRATE, errno.EINVAL): _SHARES,
    (Command.CTX_MIGRATE, errno.EACCES): "the context is private or sealed, or a debugger is at work on the caller",
    (Command.CTX_MIGRATE, errno.EFAULT): "the context is shutting down",
    (Command.CTX_CREATE, errno.EINVAL): f"the id is not from 2 to 65535, or {_SHARES}",
    (Command.CTX_CREATE, errno.EACCES): "a debugger is at work on the caller",
    (Command.CTX_KILL, errno.EINVAL): "there is no such signal",
    (Command.ADD_DLIMIT, errno.EEXIST): "the tag has a disk limit there already",
    (Command.ADD_DLIMIT, errno.EOPNOTSUPP): "the file system does not count for disk limits (ext4 and tmpfs do)",
    (Command.REM_DLIMIT, errno.ESRCH): "the tag has no disk limit there",
    (Command.SET_DLIMIT, errno.ESRCH): "the tag has no disk limit there",
    (Command.GET_DLIMIT, errno.ESRCH): "the tag has no disk limit there",
    (Command.SET_DLIMIT, errno.EINVAL): "more is used than the total allows, or the reserve is above 100 %",
}
"""What an errno means to one command, where that is more than it means in general."""


class VserverError(OSError):
    """A command failed; `errno` and `command` say how and which.

    Subclasses stand for one errno each, so that callers can tell them apart by type.
    """

    number: ClassVar[int] = 0
    meaning: ClassVar[str] = ""

    def __init__(self, code: int, command: int, ident: int) -> None:
        name = Command(command).name.lower() if command in Command._value2member_map_ else f"{command:#010x}"
        self.reason = _SPECIAL.get((command, code)) or self.meaning or os.strerror(code)
        """What the failure means, without the command's name."""
        super().__init__(code, f"{name} of {ident}: {self.reason}")
        self.command, self.ident = command, ident


class NotSupportedError(VserverError):
    """ENOSYS: the kernel has no such command, or the caller may not even ask."""

    number = errno.ENOSYS
    meaning = "the kernel does not offer this command (no CONFIG_VSERVER, too old, or no CAP_CONTEXT)"


class NotPermittedError(VserverError):
    """EPERM: the caller lacks a capability or is not on the host."""

    number = errno.EPERM
    meaning = "not permitted: this needs root on the host"


class NoSuchContextError(VserverError):
    """ESRCH: no context (or no matching process) has that id."""

    number = errno.ESRCH
    meaning = "no such context or process"


class SealedError(VserverError):
    """EACCES: the context was closed to the host's administrator, or to entry."""

    number = errno.EACCES
    meaning = "the context is private or no longer administrated by the host"


class ExistsError(VserverError):
    """EEXIST: the id is in use."""

    number = errno.EEXIST
    meaning = "the id is in use"


class BusyError(VserverError):
    """EBUSY: somebody is setting a context of that id up right now."""

    number = errno.EBUSY
    meaning = "a context of this id is being set up"


class InvalidError(VserverError):
    """EINVAL: an argument is out of range."""

    number = errno.EINVAL
    meaning = "invalid argument"


class AddressError(VserverError):
    """EFAULT: bad pointer, or (migrate) the context is shutting down."""

    number = errno.EFAULT
    meaning = "bad address, or the context is shutting down"


class HelperError(VserverError):
    """ENOEXEC: the host's helper program refused or could not run."""

    number = errno.ENOEXEC
    meaning = "the helper program (sysctl kernel.vshelper) failed"


class InterruptedCallError(VserverError):
    """EINTR: a signal arrived while waiting."""

    number = errno.EINTR
    meaning = "interrupted by a signal"


_BY_ERRNO: dict[int, type[VserverError]] = {kind.number: kind for kind in VserverError.__subclasses__()}


def number(machine: str | None = None, bits: int | None = None) -> int:
    """Return the call's number for a machine name as in uname(2) and a process of 32 or 64 bits.

    Without arguments: for this process. Raises NotImplementedError where no number is defined.
    """
    name = machine or os.uname().machine
    width = bits or 8 * ctypes.sizeof(ctypes.c_void_p)
    table = _NUMBERS_64 if width == 64 else _NUMBERS_32
    if name not in table:
        raise NotImplementedError(f"no vserver system call number is defined for {name} with {width} bits")
    return table[name]


def raw_call() -> RawCall:
    """Return the real call, bound to the C library's ``syscall()``."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = libc.syscall
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_long, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]
    nr = number()

    def call(command: int, ident: int, data: ctypes.Structure | None) -> int:
        address = ctypes.addressof(data) if data is not None else None
        result = int(function(nr, command & 0xFFFFFFFF, ident & 0xFFFFFFFF, address))
        return -ctypes.get_errno() if result == -1 else result

    return call


class Vserver:
    """The system call with typed errors. `raw` replaces the real one in tests."""

    def __init__(self, raw: RawCall | None = None) -> None:
        self._raw = raw if raw is not None else raw_call()

    def call(self, command: int, ident: int = 0, data: ctypes.Structure | None = None) -> int:
        """Issue a command and return its result (≥ 0); raises a subclass of `VserverError`."""
        result = self._raw(command, ident, data)
        if result < 0:
            raise _BY_ERRNO.get(-result, VserverError)(-result, command, ident)
        return result

    def version(self) -> int:
        """Return the interface version: high half major, low half minor."""
        return self.call(Command.GET_VERSION)

    def configuration(self) -> int:
        """Return the configuration word of the kernel (bits of ``get_vci``)."""
        return self.call(Command.GET_VCI)

    def task_xid(self, pid: int = 0) -> int:
        """Return the xid of a process by host pid; 0 is the caller. Raises `NoSuchContextError`."""
        return self.call(Command.TASK_XID, pid)

    def task_tag(self, pid: int = 0) -> int:
        """Return the file tag of a process by host pid; 0 is the caller. Raises `NoSuchContextError`."""
        return self.call(Command.TASK_TAG, pid)

    def take_tag(self, tag: int) -> None:
        """Let the calling thread have a file tag, 0 to 65535; only on the host. 0 and 1 reach all files."""
        self.call(Command.TAG_MIGRATE, tag)
