# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a file shared: the immutable flag and the attribute IXUNLINK, by descriptor."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

ATTRIBUTES = "trusted.vserver"
"""The extended attribute that holds what set_iattr stores: a version and flags, 32 bits each."""
IXUNLINK = 0x20000
"""The flag in it that frees the names of an immutable file."""
WORK_DIRECTORY = ".vserver-work"
"""Where the kernel names a copy for a moment: a directory at the root of the file system."""
IMMUTABLE = 0x10
"""FS_IMMUTABLE_FL"""
APPEND = 0x20
"""FS_APPEND_FL"""

_LONG = ctypes.sizeof(ctypes.c_long)
_GET_FLAGS = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_SET_FLAGS = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
_SET_LEASE = 1024
_GET_LEASE = 1025
_EXCHANGE = 2
_VERSION = 1


def flags(fd: int) -> int:
    """Return the flags of a file as chattr(1) knows them; 0 where the file system has none."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _GET_FLAGS, buffer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return 0
        raise
    return int(struct.unpack_from("=I", buffer)[0])


def set_flags(fd: int, value: int) -> None:
    """Set the flags of a file; raises OSError where the file system has none."""
    fcntl.ioctl(fd, _SET_FLAGS, bytearray(struct.pack("=II", value, 0)))


def _stored(fd: int) -> int:
    """Return the flags in our extended attribute; 0 where there are none, or of a later version."""
    try:
        value = os.getxattr(fd, ATTRIBUTES)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return 0
        raise
    version, found = struct.unpack("<II", value) if len(value) == 8 else (0, 0)
    return int(found) if version == _VERSION else 0


def has_iunlink(fd: int) -> bool:
    """Has a file the attribute IXUNLINK?"""
    return bool(_stored(fd) & IXUNLINK)


def is_shared(fd: int) -> bool:
    """Is a file shared: its content immutable, its names free?"""
    return bool(flags(fd) & IMMUTABLE) and has_iunlink(fd)


def share(fd: int) -> None:
    """Make a file shared. The attribute goes first: an immutable file takes none."""
    stored = _stored(fd)
    if not stored & IXUNLINK:
        os.setxattr(fd, ATTRIBUTES, struct.pack("<II", _VERSION, stored | IXUNLINK))
    set_flags(fd, flags(fd) | IMMUTABLE)


def unshare(fd: int) -> None:
    """Make a file an ordinary one, whatever was done of `share`."""
    now = flags(fd)
    if now & IMMUTABLE:
        set_flags(fd, now & ~IMMUTABLE)
    stored = _stored(fd)
    if stored & ~IXUNLINK:
        os.setxattr(fd, ATTRIBUTES, struct.pack("<II", _VERSION, stored & ~IXUNLINK))
    elif stored:
        os.removexattr(fd, ATTRIBUTES)


def take_lease(fd: int) -> bool:
    """Take a read lease by a descriptor opened for reading; False when somebody has the file open for writing.

    A writable mapping counts as open, also after its descriptor has been closed.
    """
    try:
        fcntl.fcntl(fd, _SET_LEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def drop_lease(fd: int) -> None:
    """Give a lease back."""
    fcntl.fcntl(fd, _SET_LEASE, fcntl.F_UNLCK)


def extended(fd: int) -> tuple[tuple[str, bytes], ...]:
    """Return all extended attributes but our own, in order: access lists and capabilities are among them."""
    try:
        names = sorted(os.listxattr(fd))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    return tuple((name, os.getxattr(fd, name)) for name in names if name != ATTRIBUTES)


def exchange(directory: int, one: str, other: str) -> None:
    """Exchange two names of a directory, in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(directory, os.fsencode(one), directory, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


def open_directory(root: int, path: str) -> int:
    """Open a directory below `root` step by step, through no symbolic link: who lives there may move things."""
    at = os.dup(root)
    for part in path.split("/"):
        if part in ("", "."):
            continue
        try:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = deeper
    return at


def open_file(directory: int, name: str) -> int:
    """Open a regular file for reading, without waiting for a FIFO or following a link."""
    mode = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
    return os.open(name, mode, dir_fd=directory)
