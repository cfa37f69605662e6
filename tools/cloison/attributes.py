# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes of files: the barrier, unlink inversion, immutability, and who sees an entry of /proc."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloison import abi
from cloison.abi import Command
from cloison.errors import CloisonError
from cloison.flags import ATTRIBUTE_WORDS, Change, FileAttributes, describe
from cloison.syscall import Vserver, VserverError

STORED = FileAttributes.BARRIER | FileAttributes.IXUNLINK | FileAttributes.IMMUTABLE | FileAttributes.COW
"""Attributes that are kept with a file; the others belong to entries of /proc, or are the tag."""
_HINTS = {
    errno.EINVAL: "admin, watch and hide belong to entries of /proc that are not about a process",
    errno.EOPNOTSUPP: "the file system cannot hold it (no extended attributes, no immutable flag, or no tags)",
    errno.EPERM: "this needs root on the host, with the capability linux_immutable",
    errno.EROFS: "the file system is mounted read-only",
    errno.EUCLEAN: "a newer kernel has written trusted.vserver",
}


@dataclass(frozen=True)
class Attributes:
    """What the kernel says of a file: bits that are set, bits that this file can have, and its tag if it has one."""

    flags: FileAttributes
    mask: FileAttributes
    tag: int | None = None

    def words(self) -> list[str]:
        """Return the names of what is set and has a meaning for this file."""
        return describe(int(self.flags & self.mask & ~FileAttributes.TAG), ATTRIBUTE_WORDS)


def _found(data: abi.CtxIattr | abi.CtxFiattr) -> Attributes:
    mask = FileAttributes(data.mask)
    return Attributes(FileAttributes(data.flags), mask, data.tag if FileAttributes.TAG in mask else None)


def _with_tag(wanted: Change, tag: int | None) -> tuple[int, int]:
    """Return value and mask in 32 bits; the tag's bit is there if and only if a tag is given."""
    bit = int(FileAttributes.TAG)
    every = 0xFFFF_FFFF & ~bit
    value, mask = wanted.value & every, wanted.mask & every
    return (value, mask) if tag is None else (value | bit, mask | bit)


def get(kernel: Vserver, path: str | Path) -> Attributes:
    """Return the attributes of a file; a symbolic link is not followed. Raises `VserverError`."""
    data = abi.CtxIattr(name=os.fsencode(path))
    kernel.call(Command.GET_IATTR, 0, data)
    return _found(data)


def get_open(kernel: Vserver, descriptor: int) -> Attributes:
    """Return the attributes of an open file. Raises `VserverError`."""
    data = abi.CtxFiattr()
    kernel.call(Command.FGET_IATTR, descriptor, data)
    return _found(data)


def change(kernel: Vserver, path: str | Path, wanted: Change, tag: int | None = None) -> None:
    """Change attributes of a file, and its tag if one is given. Raises `VserverError`."""
    value, mask = _with_tag(wanted, tag)
    data = abi.CtxIattr(os.fsencode(path), tag or 0, value, mask)
    kernel.call(Command.SET_IATTR, 0, data)


def change_open(kernel: Vserver, descriptor: int, wanted: Change, tag: int | None = None) -> None:
    """Change attributes of an open file, and its tag if one is given. Raises `VserverError`."""
    value, mask = _with_tag(wanted, tag)
    data = abi.CtxFiattr(tag or 0, value, mask)
    kernel.call(Command.FSET_IATTR, descriptor, data)


def explain(error: VserverError, path: str | Path) -> CloisonError:
    """Return a failure as people want to read it."""
    code = error.errno or 0
    return CloisonError(f"{path}: {os.strerror(code)}", hint=_HINTS.get(code, ""))


def walk(path: str, *, one_file_system: bool = False) -> Iterator[str]:
    """Yield a path and, if it is a directory, all below it; symbolic links are not followed."""
    yield path
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in found:
        if one_file_system and entry.stat(follow_symlinks=False).st_dev != status.st_dev:
            continue
        yield from walk(entry.path, one_file_system=one_file_system)


VISIBLE = (
    *("cpuinfo", "crypto", "devices", "execdomains", "filesystems", "loadavg", "locks", "meminfo", "misc", "modules"),
    *("stat", "swaps", "sys", "sysvipc/", "tty/", "uptime", "version"),
    *("net/dev", "net/if_inet6", "net/ipv6_route", "net/netstat", "net/protocols", "net/route", "net/snmp"),
    *("net/snmp6", "net/sockstat", "net/sockstat6"),
)
"""Entries of /proc that programs ask for and that tell little of others; a slash means all below as well."""


def unhide(kernel: Vserver, entries: tuple[str, ...] = VISIBLE, proc: str = "/proc") -> list[str]:
    """Let contexts see entries of /proc; return those that this kernel has. Raises `VserverError`."""
    done = []
    for entry in entries:
        top = f"{proc}/{entry.rstrip('/')}"
        for path in walk(top) if entry.endswith("/") else [top]:
            try:
                change(kernel, path, Change(0, int(FileAttributes.HIDE)))
            except VserverError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
            else:
                done.append(path)
    return done
