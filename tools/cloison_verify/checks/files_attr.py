# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes of files: what they keep members from, who changes them, and where they cannot be kept."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison import attributes
from cloison.context import Context
from cloison.flags import Change, ContextCaps, FileAttributes
from cloison.syscall import Vserver
from cloison_verify.acts import call
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.places import folder, mounted
from cloison_verify.scene import Scene, Seen, attempt

NAME = "trusted.vserver"
BARRIER = FileAttributes.BARRIER
UNIFIED = FileAttributes.IXUNLINK | FileAttributes.IMMUTABLE
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x80086601, 0x40086602, 0x801C581F, 0x401C5820
NODUMP = 0x40


def put(path: Path, bits: FileAttributes, *, on: bool = True) -> None:
    """Set or clear attributes on the host."""
    attributes.change(Vserver(), path, Change(int(bits) if on else 0, int(bits)))


@contextmanager
def _behind(*, barrier: bool) -> Iterator[Path]:
    """Make a folder, with a barrier or not, that has a file in it."""
    with folder("barrier") as made:
        (made / "file").write_text("text", encoding="ascii")
        if barrier:
            put(made, BARRIER)
        try:
            yield made
        finally:
            put(made, BARRIER, on=False)


def _sights(*operations: Callable[[], object]) -> Seen:
    return Seen(", ".join(attempt(operation).text for operation in operations))


def _walk(*, barrier: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        with _behind(barrier=barrier) as top:

            def look() -> Seen:
                return _sights(
                    lambda: (top / "file").stat() and None,
                    lambda: (top / "file").stat() and None,
                    lambda: os.listdir(top) and None,  # noqa: PTH208
                    lambda: os.chdir(top),
                    lambda: (top / "new").mkdir(),
                )

            return scene.attack(look, inside=True)

    return probe


check(
    "files.barrier",
    title="no member walks through a barrier",
    attack="stat(), twice, getdents(), chdir() and mkdir() behind a folder with the attribute",
    expected="EACCES, EACCES, EACCES, EACCES, EACCES",
    control=instead(_walk(barrier=False), "ok, ok, ok, ok, ok", "without the attribute"),
    vectors=["F01"],
)(_walk(barrier=True))


def _named(scene: Scene, *, member: bool) -> Seen:
    """Write the attribute by its name on the host, and look from inside after each step."""
    with _behind(barrier=False) as top:

        def look() -> str:
            return scene.attack(lambda: attempt(lambda: (top / "file").stat() and None), inside=member).text

        seen = [look()]
        os.setxattr(top, NAME, struct.pack("<II", 1, int(BARRIER)))
        seen.append(look())
        os.removexattr(top, NAME)
        return Seen(", ".join([*seen, look()]))


check(
    "files.barrier-by-name",
    title="the attribute holds at once, also when it is written by its name",
    attack="setxattr() and removexattr() of trusted.vserver on the host, stat() behind it inside",
    expected="ok, EACCES, ok",
    control=instead(lambda scene: _named(scene, member=False), "ok, ok, ok", "stat() on the host"),
)(lambda scene: _named(scene, member=True))


def _strip(*, inside: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        with _behind(barrier=True) as top:

            def change() -> Seen:
                return _sights(
                    lambda: top.chmod(0o700),
                    lambda: os.chown(top, 1, 1),
                    lambda: os.utime(top),
                    lambda: put(top, BARRIER, on=False),
                )

            return scene.attack(change, inside=inside)

    return probe


check(
    "files.barrier-strip",
    title="no member changes a folder with a barrier",
    attack="chmod(), chown(), utimes() and set_iattr on it",
    expected="EPERM, EPERM, EPERM, EPERM",
    control=instead(_strip(inside=False), "ok, ok, ok, ok", "on the host"),
    vectors=["F05", "F07"],
)(_strip(inside=True))


def _by_name(*, inside: bool) -> Probe:
    """Grant what trusted attributes need, so that only the name is in the way."""

    def probe(scene: Scene) -> Seen:
        bits = int(ContextCaps.FS_TRUSTED | ContextCaps.FS_SECURITY)
        Context(scene.xid, Vserver()).set_caps(Change(bits, bits))
        with folder("name") as top:
            mark = struct.pack("<II", 1, int(BARRIER))
            os.setxattr(top, NAME, struct.pack("<II", 1, 0))

            def change() -> Seen:
                return _sights(lambda: os.setxattr(top, NAME, mark), lambda: os.removexattr(top, NAME))

            return scene.attack(change, inside=inside)

    return probe


check(
    "files.attribute-by-name",
    title="no member writes the extended attribute behind the attributes",
    attack="setxattr() and removexattr() of trusted.vserver with FS_TRUSTED",
    expected="EPERM, EPERM",
    control=instead(_by_name(inside=False), "ok, ok", "on the host"),
    vectors=["F05", "F07"],
)(_by_name(inside=True))


def _set_flags(descriptor: int) -> None:
    """Set a harmless flag, as chattr +d does."""
    word = array.array("l", [0])
    fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, word)
    word[0] |= NODUMP
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, word)


def _set_extended(descriptor: int) -> None:
    words = array.array("I", [0] * 7)
    fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, words)
    words[0] |= 0x80
    fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, words)


def _ioctl(*, bits: FileAttributes | None) -> Probe:
    def probe(scene: Scene) -> Seen:
        with folder("flags") as top:
            if bits:
                put(top, BARRIER)
            file = top / "file"
            file.touch()
            if bits:
                put(file, bits)
            opened = [os.open(path, os.O_RDONLY) for path in (file, top)]
            try:
                return scene.attack(
                    lambda: _sights(
                        lambda: _set_flags(opened[0]),
                        lambda: _set_extended(opened[0]),
                        lambda: _set_flags(opened[1]),
                    ),
                    inside=True,
                    keep=opened,
                )
            finally:
                for descriptor in opened:
                    os.close(descriptor)
                put(top, BARRIER, on=False)

    return probe


check(
    "files.attribute-ioctl",
    title="no member changes the flags of a file with attributes",
    attack="FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR on a file with IXUNLINK, and on a barrier, by descriptors",
    expected="EPERM, EPERM, EPERM",
    control=instead(_ioctl(bits=None), "ok, ok, ok", "on files without attributes"),
    vectors=["F07"],
)(_ioctl(bits=FileAttributes.IXUNLINK))


def _round(_scene: Scene) -> Seen:
    """Set attributes by path and by descriptor and read them back both ways."""
    kernel = Vserver()
    with folder("round") as top:
        file = top / "file"
        file.touch()
        opened = os.open(file, os.O_RDONLY)
        attributes.change(kernel, file, Change(int(UNIFIED), int(UNIFIED)))
        by_path = "+".join(attributes.get_open(kernel, opened).words())
        changed = attempt(os.fchmod, opened, 0o600).text
        attributes.change_open(kernel, opened, Change(0, int(FileAttributes.IMMUTABLE)))
        by_descriptor = "+".join(attributes.get(kernel, file).words())
        attributes.change_open(kernel, opened, Change(int(BARRIER), int(BARRIER | FileAttributes.IXUNLINK)))
        rest = "+".join(attributes.get(kernel, file).words()) or "none"
        names = [name for name in os.listxattr(file) if name == NAME]
        os.close(opened)
    return Seen(f"{by_path}, {changed}, {by_descriptor}, {rest}, {len(names)}")


def _absent(_scene: Scene) -> Seen:
    kernel = Vserver()
    return _sights(
        lambda: attributes.get(kernel, "/run/cloison/nothing") and None,
        lambda: attributes.get_open(kernel, 999) and None,
    )


check(
    "files.attributes",
    title="attributes are set and read by path and by descriptor; a barrier is for folders",
    attack="set_iattr, fset_iattr, get_iattr, fget_iattr on the host",
    expected="ixunlink+immutable, EPERM, ixunlink, none, 0",
    control=instead(_absent, "ENOENT, EBADF", "files that are not there"),
)(_round)


def _unable(_scene: Scene) -> Seen:
    """Set what a file system cannot hold, and what only /proc has."""
    with mounted("ramfs", "unable") as top:
        file = top / "file"
        file.touch()
        return _sights(
            lambda: put(file, FileAttributes.IXUNLINK),
            lambda: put(file, FileAttributes.IMMUTABLE),
            lambda: put(file, FileAttributes.HIDE),
        )


def _able(_scene: Scene) -> Seen:
    with mounted("tmpfs", "able") as top:
        file = top / "file"
        file.touch()
        seen = _sights(
            lambda: put(file, FileAttributes.IXUNLINK),
            lambda: put(file, FileAttributes.IMMUTABLE),
            lambda: put(Path("/proc/uptime"), FileAttributes.HIDE, on=False),
        )
        put(file, UNIFIED, on=False)
        return seen


check(
    "files.attributes-unable",
    title="what a file system cannot hold is an error",
    attack="set_iattr of IXUNLINK, IMMUTABLE and HIDE on a file system without them",
    expected="ENOTSUP, ENOTSUP, EINVAL",
    control=instead(_able, "ok, ok, ok", "on tmpfs, and on an entry of /proc"),
)(_unable)


def _lease(*, unified: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        with folder("lease") as top:
            file = top / "file"
            file.touch()
            if unified:
                put(file, UNIFIED)

            def lease() -> None:
                opened = os.open(file, os.O_RDONLY)
                fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                os.close(opened)

            try:
                return scene.attack(lambda: attempt(lease), inside=True)
            finally:
                put(file, UNIFIED, on=False)

    return probe


check(
    "files.lease",
    title="no member makes others wait for a unified file",
    attack="fcntl(F_SETLEASE) on a file with IXUNLINK and IMMUTABLE",
    expected="EPERM",
    control=instead(_lease(unified=False), "ok", "on a file of its own"),
    vectors=["F70"],
)(_lease(unified=True))


IN_OPEN, FAN_CLASS_NOTIF, FAN_MARK_ADD, FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD = 0x20, 0, 1, 0x10, 0x20, -100


def _watch(path: Path) -> None:
    name = ctypes.create_string_buffer(bytes(path))
    listener = call("inotify_init1", 0)
    try:
        call("inotify_add_watch", listener, ctypes.addressof(name), IN_OPEN)
    finally:
        os.close(listener)


def _watched(*, unified: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        with folder("watch") as top:
            file = top / "file"
            file.touch()
            if unified:
                put(file, UNIFIED)
            try:
                return scene.attack(lambda: _sights(lambda: _watch(file), lambda: _watch(top)), inside=True)
            finally:
                put(file, UNIFIED, on=False)

    return probe


check(
    "files.watch-unified",
    title="no member learns what others do with a unified file",
    attack="inotify_add_watch() on a file with IXUNLINK and IMMUTABLE, and on its folder",
    expected="EPERM, ok",
    control=instead(_watched(unified=False), "ok, ok", "on a file of its own"),
    vectors=["F32"],
)(_watched(unified=True))
