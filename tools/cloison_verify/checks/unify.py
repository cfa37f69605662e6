# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: whatever a guest does to one, only the guest sees it."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from cloison import inode
from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead, kernel_without
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.shared_files import ACL, BROKEN, KEPT, Operation, effect, folder, mark, pair, state, write_with
from cloison_verify.syscalls import syscall

KINDS = ("ext4", "tmpfs")
AT_EMPTY_PATH = 0x1000
FCHMODAT2 = 452

PLAIN = "ok, own changed, other changed, one file"
REFUSED = f"EPERM, {KEPT}"


def _changes(kind: str, operation: Operation, *, marked: bool, prepare: Operation | None, scene: Scene) -> Seen:
    with folder(kind) as where:
        both = pair(where, marked=False)
        if prepare:
            prepare(both.own)
        if marked:
            mark(both.own)
        before = state(both.own)
        seen = scene.attack(lambda: attempt(operation, both.own), inside=True)
        return combined(seen, effect(both, before))


def _change(
    name: str,
    vectors: Sequence[str],
    attack: str,
    operation: Operation,
    *,
    expected: str = BROKEN,
    control: str = PLAIN,
    prepare: Operation | None = None,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Register checks, one a file system, of one change; the control does it to an ordinary hard link."""
    for kind in kinds:

        def probe(scene: Scene, kind: str = kind) -> Seen:
            return _changes(kind, operation, marked=True, prepare=prepare, scene=scene)

        def plain(scene: Scene, kind: str = kind) -> Seen:
            return _changes(kind, operation, marked=False, prepare=prepare, scene=scene)

        check(
            f"unify.{name}-{kind}",
            title=f"{attack}: the other name's file stays what it is ({kind})",
            attack=f"{attack} on a shared file, in a context",
            expected=expected,
            control=instead(plain, control, "the same on an ordinary hard link, which changes for both names"),
            vectors=vectors,
        )(probe)


def _set(name: str, value: bytes) -> Operation:
    return lambda path: os.setxattr(path, name, value)


def _by_descriptor(change: Operation | None = None, **_: object) -> Operation:
    """Return an operation that opens a file for reading and changes it by the descriptor."""

    def operation(path: Path) -> object:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert change is not None
            return change(Path(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)

    return operation


def _with_descriptor(change: object) -> Operation:
    def operation(path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert callable(change)
            change(descriptor)
        finally:
            os.close(descriptor)

    return operation


def _no_dump(descriptor: int) -> None:
    """Set FS_NODUMP_FL, which nothing reads back here, so the owner is changed through it as well."""
    inode.set_flags(descriptor, inode.flags(descriptor) | 0x40)
    os.fchmod(descriptor, 0o600)


_change("write", ["F40"], "open(O_WRONLY), write", write_with(os.O_WRONLY))
_change("read-write", ["F40"], "open(O_RDWR), write", write_with(os.O_RDWR))
_change("append", ["F40"], "open(O_WRONLY | O_APPEND), write", write_with(os.O_WRONLY | os.O_APPEND))
_change("open-truncate", ["F40"], "open(O_WRONLY | O_TRUNC), write", write_with(os.O_WRONLY | os.O_TRUNC))
_change("create", ["F40"], "open(O_CREAT | O_TRUNC | O_RDWR), write", write_with(os.O_CREAT | os.O_TRUNC | os.O_RDWR))
_change("truncate", ["F40"], "truncate()", lambda path: os.truncate(path, 7))
_change("chmod", ["F41"], "chmod()", lambda path: path.chmod(0o600))
_change("chown", ["F41"], "chown()", lambda path: os.chown(path, 7, 8))
_change("utimes", ["F41"], "utimensat()", lambda path: os.utime(path, ns=(1, 1)))
_change("touch", ["F41"], "utimensat(NULL)", lambda path: os.utime(path))
_change("setxattr", ["F41", "F65"], "setxattr(user.x)", _set("user.x", b"y"))
_change(
    "removexattr",
    ["F41", "F65"],
    "removexattr(user.x)",
    lambda path: os.removexattr(path, "user.x"),
    prepare=_set("user.x", b"y"),
)
_change("acl", ["F41", "F65"], "setxattr(system.posix_acl_access)", _set("system.posix_acl_access", ACL))

# A descriptor is no name: nothing is copied, nothing is changed.
_change(
    "fchmod", ["F41"], "fchmod()", _with_descriptor(lambda fd: os.fchmod(fd, 0o600)), expected=REFUSED, kinds=["ext4"]
)
_change(
    "fchown", ["F41"], "fchown()", _with_descriptor(lambda fd: os.fchown(fd, 7, 8)), expected=REFUSED, kinds=["ext4"]
)
_change(
    "futimens",
    ["F41"],
    "futimens()",
    _with_descriptor(lambda fd: os.utime(fd, ns=(1, 1))),
    expected=REFUSED,
    kinds=["ext4"],
)
_change(
    "fsetxattr",
    ["F41", "F65"],
    "fsetxattr(user.x)",
    _with_descriptor(lambda fd: os.setxattr(fd, "user.x", b"y")),
    expected=REFUSED,
    kinds=["ext4"],
)
_change("setflags", ["F41"], "FS_IOC_SETFLAGS, fchmod()", _with_descriptor(_no_dump), expected=REFUSED, kinds=["ext4"])
_change(
    "fchmodat2",
    ["F41"],
    "fchmodat2(fd, '', AT_EMPTY_PATH)",
    _with_descriptor(lambda fd: syscall(FCHMODAT2, fd, _address(b""), 0o600, AT_EMPTY_PATH) or None),
    expected=REFUSED,
    kinds=["ext4"],
)
_change(
    "reopen",
    ["F40"],
    "open(/proc/self/fd/N, O_WRONLY) of a descriptor for reading",
    _by_descriptor(write_with(os.O_WRONLY)),
    expected=REFUSED,
    kinds=["ext4"],
)
_change(
    "fd-chmod",
    ["F41"],
    "chmod(/proc/self/fd/N)",
    _by_descriptor(lambda path: path.chmod(0o600)),
    expected=REFUSED,
    kinds=["ext4"],
)
_change(
    "fd-truncate",
    ["F40"],
    "truncate(/proc/self/fd/N)",
    _by_descriptor(lambda path: os.truncate(path, 7)),
    expected=REFUSED,
    kinds=["ext4"],
)


_kept: list[object] = []


def _address(text: bytes) -> int:
    """Return the address of a text that lives on."""
    import ctypes

    buffer = ctypes.create_string_buffer(text)
    _kept.append(buffer)
    return ctypes.addressof(buffer)


# Names: what immutability forbids, and sharing allows.


def _names(kind: str, operation: Operation, scene: Scene) -> Seen:
    with folder(kind) as where:
        both = pair(where)
        before = state(both.other)
        seen = scene.attack(lambda: attempt(operation, both.own), inside=True)
        return combined(seen, "other unchanged" if state(both.other) == before else "other changed")


def _names_plain(kind: str, operation: Operation, scene: Scene) -> Seen:
    with folder(kind) as where:
        both = pair(where, marked=False)
        mark(both.own, iunlink=False)
        return scene.attack(lambda: attempt(operation, both.own), inside=True)


def _new_over(path: Path) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(b"new version\n")
    fresh.rename(path)


for _name, _attack, _operation in (
    ("unlink", "unlink()", lambda path: path.unlink()),
    ("rename-over", "rename() of a new file over it", _new_over),
    ("rename", "rename() of it", lambda path: path.rename(path.with_name("moved")) and None),
    ("link", "link()", lambda path: os.link(path, path.with_name("second"))),
):
    for _kind in KINDS:

        def _probe(scene: Scene, kind: str = _kind, operation: Operation = _operation) -> Seen:
            return _names(kind, operation, scene)

        def _immutable(scene: Scene, kind: str = _kind, operation: Operation = _operation) -> Seen:
            return _names_plain(kind, operation, scene)

        check(
            f"unify.{_name}-{_kind}",
            title=f"{_attack}: the names of a shared file are free ({_kind})",
            attack=f"{_attack} of a shared file, in a context",
            expected="ok, other unchanged",
            control=instead(_immutable, "EPERM", "a file that is immutable only"),
            vectors=["F40"],
        )(_probe)


@check(
    "unify.kernel-without",
    title="it is the series that gives a writer a copy",
    attack="open(O_WRONLY), write on a shared file, on the host",
    expected=BROKEN,
    control=kernel_without(REFUSED),
    vectors=["F40"],
)
def kernel_matters(_scene: Scene) -> Seen:
    """Write on the host: sharing is not a matter of contexts."""
    with folder() as where:
        both = pair(where)
        before = state(both.own)
        return combined(attempt(write_with(os.O_WRONLY), both.own), effect(both, before))


# Contents through another file.

_FICLONE = 0x40049409
_FIDEDUPERANGE = 0xC0189436


def _source(path: Path) -> int:
    source = path.with_name("source")
    source.write_bytes(b"x" * 8192)
    return os.open(source, os.O_RDONLY)


def _clone(path: Path) -> object:
    source, aim = _source(path), os.open(path, os.O_RDONLY)
    return fcntl.ioctl(aim, _FICLONE, source)


def _range(path: Path) -> object:
    source, aim = _source(path), os.open(path, os.O_RDONLY)
    return os.copy_file_range(source, aim, 4096)


def _range_by_name(path: Path) -> None:
    os.copy_file_range(_source(path), os.open(path, os.O_WRONLY), 4096)


def _dedupe(path: Path) -> object:
    source, aim = _source(path), os.open(path, os.O_RDONLY)
    request = bytearray(struct.pack("=QQHHI", 0, 4096, 1, 0, 0) + struct.pack("=qQQiI", aim, 0, 0, 0, 0))
    fcntl.ioctl(source, _FIDEDUPERANGE, request)
    status = struct.unpack_from("=i", request, 48)[0]
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return None


def _through(name: str, attack: str, operation: Operation, expected: str | tuple[str, ...]) -> None:
    def probe(scene: Scene) -> Seen:
        return _changes("ext4", operation, marked=True, prepare=None, scene=scene)

    def by_name(scene: Scene) -> Seen:
        return _changes("ext4", _range_by_name, marked=False, prepare=None, scene=scene)

    check(
        f"unify.{name}",
        title=f"{attack} does not reach a shared file",
        attack=f"{attack} into a descriptor for reading of a shared file, in a context",
        expected=expected,
        control=instead(by_name, PLAIN, "copy_file_range() into an ordinary hard link, opened for writing"),
        vectors=["F46"],
    )(probe)


_SAFE = f", {KEPT}"
_through("ficlone", "FICLONE", _clone, ("EBADF" + _SAFE, "ENOTSUP" + _SAFE))
_through("copy-range", "copy_file_range()", _range, "EBADF" + _SAFE)
_through("dedupe", "FIDEDUPERANGE", _dedupe, ("EPERM" + _SAFE, "EINVAL" + _SAFE, "ENOTSUP" + _SAFE))
_change("copy-range-by-name", ["F46"], "copy_file_range() into it", _range_by_name, kinds=["ext4"])
