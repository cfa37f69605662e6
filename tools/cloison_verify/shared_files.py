# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files for the checks: one inode with a name for the attacker and one for somebody else."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloison import inode
from cloison_verify import mounting
from cloison_verify.scene import SceneError, Seen, attempt
from cloison_verify.volumes import new_device

CONTENT = b"what everybody shares\n" * 300
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)
"""An access list as setxattr(2) takes it: user 1234 may read."""
CAPABILITIES = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service, effective and permitted."""
MEBIBYTE = 1 << 20
BROKEN = "ok, own changed, other unchanged, two files"
"""What is seen of a `Pair` when the writer has got a copy."""
KEPT = "own unchanged, other unchanged, one file"
"""What is seen of a `Pair` to which nothing has happened."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount something; raises `SceneError`."""
    try:
        mounting.mount(source, str(target), kind, flags, options)
    except OSError as error:
        raise SceneError(f"mount {kind} on {target}: {os.strerror(error.errno or 0)}") from None


@contextmanager
def folder(kind: str = "ext4", options: str = "") -> Iterator[Path]:
    """Make a folder on a file system: the machine's own ext4, a new XFS, or a new tmpfs with these options."""
    top = Path(tempfile.mkdtemp(prefix="unify-", dir="/var/lib"))
    made = top / "on"
    made.mkdir()
    top.chmod(0o755)
    with new_device(top, "tmpfs" if kind == "ext4" else kind) as source:
        try:
            if kind != "ext4":
                mount(source, made, kind, 0, options)
            yield made
        finally:
            _open_up(made)
            if kind != "ext4" and _libc.umount2(os.fsencode(made), 0 if kind == "xfs" else 2):
                raise SceneError(f"umount {made}: {os.strerror(ctypes.get_errno())}")
    shutil.rmtree(top)


def _open_up(folder: Path) -> None:
    """Let everything be removed, also by a kernel that keeps immutable files."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            inode.unshare(descriptor)
            os.close(descriptor)


@dataclass
class Pair:
    """Two names of one file."""

    own: Path
    other: Path

    @property
    def one(self) -> bool:
        """Are both still names of one file?"""
        return self.own.stat().st_ino == self.other.stat().st_ino


def mark(path: Path, *, iunlink: bool = True) -> None:
    """Make a file shared, or merely immutable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if iunlink:
            inode.share(descriptor)
        else:
            inode.set_flags(descriptor, inode.flags(descriptor) | inode.IMMUTABLE)
    finally:
        os.close(descriptor)


def pair(where: Path, content: bytes = CONTENT, *, marked: bool = True) -> Pair:
    """Make a file with two names, each in a directory of its own; `marked`: shared, else an ordinary one."""
    made = Pair(where / "own" / "file", where / "other" / "file")
    for path in (made.own, made.other):
        path.parent.mkdir()
    made.own.write_bytes(content)
    made.own.chmod(0o644)
    os.utime(made.own, ns=(1_500_000_000_111_111_111, 1_600_000_000_222_222_222))
    os.link(made.own, made.other)
    if marked:
        mark(made.own)
    return made


def state(path: Path) -> tuple[object, ...]:
    """Return all that a change could change, except the number of the inode and what makes it shared."""
    found = path.stat()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        extended = inode.extended(descriptor)
    finally:
        os.close(descriptor)
    owner = (found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns)
    return (*owner, extended, contents(path))


def contents(path: Path) -> bytes:
    """Read a file without changing its times."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def effect(both: Pair, before: tuple[object, ...]) -> str:
    """Say what became of the two names since both were in the state `before`."""

    def word(path: Path) -> str:
        return "unchanged" if state(path) == before else "changed"

    return f"own {word(both.own)}, other {word(both.other)}, {'one file' if both.one else 'two files'}"


def leftovers(where: Path) -> list[str]:
    """Return what stands in the work directory of the file system that `where` is on."""
    top = where
    while top.parent != top and not os.path.ismount(top):
        top = top.parent
    work = top / inode.WORK_DIRECTORY
    return [path.name for path in work.iterdir()] if work.exists() else []


Operation = Callable[[Path], object]


def write_with(flags: int) -> Operation:
    """Return the operation that opens a file with these flags and writes to it."""

    def operation(path: Path) -> None:
        descriptor = os.open(path, flags)
        try:
            os.write(descriptor, b"mine\n")
        finally:
            os.close(descriptor)

    return operation


def write_as_user(path: Path) -> Seen:
    """Become user 1000, and try to write to a file."""
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return attempt(write_with(os.O_WRONLY), path)


def open_to_write(path: Path) -> None:
    """Open a file for writing, and leave it at that."""
    os.close(os.open(path, os.O_WRONLY))
