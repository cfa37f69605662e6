# SPDX-License-Identifier: GPL-2.0-or-later
"""What a context is shown of mounts, and what is mounted on its way."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextFlags
from cloison.syscall import Vserver
from cloison_verify.acts import call, combined
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.mounting import (
    MOUNT,
    MS_BIND,
    MS_REC,
    NOTHING,
    PLACE,
    each,
    folder,
    grant,
    guest,
    mount,
    own_mounts,
    unmount,
)
from cloison_verify.scene import Link, Scene, Seen, attempt

AT_FDCWD = -100
STATX_MNT_ID_UNIQUE = 0x4000
STATMOUNT_MNT_BASIC = 2
LSMT_ROOT = (1 << 64) - 1
NS_GET_MNTNS_ID = 0x8008B705
NS_MNT_GET_PREV = 0x8010B70C
TABLES = ("mounts", "mountinfo", "mountstats")
ROOT = f"{PLACE}/root"


def _guest_root() -> None:
    """Make a root directory with its own /proc, and two more mounts: one below it and one outside."""
    root = Path(ROOT)
    mount("guest-root", folder("root"), "tmpfs")
    for name in ("proc", "below"):
        (root / name).mkdir()
    mount("/proc", f"{ROOT}/proc", None, MS_BIND | MS_REC)
    mount("guest-below", f"{ROOT}/below", "tmpfs")
    mount("host-beside", folder("beside"), "tmpfs")


def _tables() -> str:
    """Return how many mounts of the host and of the guest each table shows."""
    shown = []
    for table in TABLES:
        text = Path("/proc/self", table).read_text(encoding="utf-8")
        shown.append(f"{table} {text.count('host-beside')} and {text.count('guest-below')}")
    return ", ".join(shown)


def _look(*, inside: bool) -> Callable[[Scene], Seen]:
    def before() -> None:
        _guest_root()
        if inside:
            os.chroot(ROOT)
            os.chdir("/")

    return lambda scene: guest(scene, _tables, before=before, inside=inside)


check(
    "mounts.table",
    title="a context sees the mounts below its root and no others",
    attack="/proc/self/{mounts,mountinfo,mountstats} below a root of one's own",
    expected=", ".join(f"{table} 0 and 1" for table in TABLES),
    control=instead(_look(inside=False), ", ".join(f"{table} 1 and 1" for table in TABLES), "the host's root"),
    vectors=["F67"],
)(_look(inside=True))


def _hidden(*, hidden: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        if hidden:
            bit = int(ContextFlags.HIDE_MOUNT)
            Context(scene.xid, Vserver()).set_flags(Change(bit, bit))

        def look() -> str:
            tables = [table for table in TABLES if Path("/proc/self", table).read_bytes()]
            own = attempt(lambda: _list(0) and None).text
            return f"{' '.join(tables) or 'nothing'}, listmount {own}"

        return scene.attack(lambda: attempt(look), inside=True)

    return probe


check(
    "mounts.hidden-table",
    title="a context with HIDE_MOUNT sees no mounts at all",
    attack="/proc/self/{mounts,mountinfo,mountstats} and listmount with the flag HIDE_MOUNT",
    expected="nothing, listmount ENOENT",
    control=instead(_hidden(hidden=False), f"{' '.join(TABLES)}, listmount ok", "a context without the flag"),
    vectors=["F67"],
)(_hidden(hidden=True))


def _request(mount_id: int, parameter: int, namespace: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("<IIQQQ", 32, 0, mount_id, parameter, namespace), 32)


def _list(namespace: int, mount_id: int = LSMT_ROOT) -> int:
    """Return how many mounts listmount shows below one."""
    request, found = _request(mount_id, 0, namespace), (ctypes.c_uint64 * 256)()
    return call("listmount", ctypes.addressof(request), ctypes.addressof(found), 256, 0)


def _state(mount_id: int) -> None:
    request, answer = _request(mount_id, STATMOUNT_MNT_BASIC, 0), ctypes.create_string_buffer(4096)
    call("statmount", ctypes.addressof(request), ctypes.addressof(answer), 4096, 0)


def _mount_id(path: str) -> int:
    """Return the number of the mount of a path that is never used again."""
    name, answer = ctypes.create_string_buffer(path.encode()), ctypes.create_string_buffer(256)
    call("statx", AT_FDCWD, ctypes.addressof(name), 0, STATX_MNT_ID_UNIQUE, ctypes.addressof(answer))
    return int(struct.unpack_from("<Q", answer.raw, 0x90)[0])


def _calls(*, inside: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        context = grant(scene, NOTHING) if inside else None

        def body() -> Seen:
            own_before = os.open("/proc/self/ns/mnt", os.O_RDONLY)
            number = array.array("Q", [0])
            fcntl.ioctl(own_before, NS_GET_MNTNS_ID, number)
            os.close(own_before)
            own_mounts()
            _guest_root()
            outside, below = _mount_id(f"{PLACE}/beside"), _mount_id(f"{ROOT}/below")
            os.chroot(ROOT)
            os.chdir("/")
            if context is not None:
                context.enter()
            return attempt(lambda: _sights(outside, below, number[0]))

        return scene.attack(body, inside=False)

    return probe


def _sights(outside: int, below: int, namespace: int) -> str:
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    return each(
        below=lambda: _state(below),
        outside=lambda: _state(outside),
        listed=lambda: None if _list(0) else 0,
        beside=lambda: (_list(0, outside) and None) or None,
        namespace=lambda: None if _list(namespace) else 0,
        another=lambda: os.close(fcntl.ioctl(own, NS_MNT_GET_PREV, 0)),
    )


check(
    "mounts.table-calls",
    title="statmount, listmount and NS_MNT_GET_PREV end at the root of the context",
    attack="the calls with mounts outside of the root, and for other mount namespaces, with every capability",
    expected="below ok, outside EPERM, listed ok, beside EPERM, namespace ENOENT, another ENOENT",
    control=instead(
        _calls(inside=False),
        "below ok, outside ok, listed ok, beside ok, namespace ok, another ok",
        "the host below the same root",
    ),
    vectors=["F68"],
)(_calls(inside=True))

# Automounts

AUTOFS_FAIL = 0x9361


@contextmanager
def _autofs(asked: list[str]) -> Iterator[str]:
    """Be the daemon of an autofs at a path: a child answers every question with "no", and says that it was asked."""
    place = folder("auto")
    reading, writing = os.pipe()
    telling, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            mount("auto", place, "autofs", 0, f"fd={writing},pgrp={os.getpid()},minproto=5,maxproto=5,indirect")
            root = os.open(place, os.O_RDONLY)
            os.write(told, b"r")
            while packet := os.read(reading, 4096):
                os.write(told, b"a")
                fcntl.ioctl(root, AUTOFS_FAIL, struct.unpack_from("<I", packet, 8)[0])
        finally:
            os._exit(0)
    os.close(told)
    os.close(writing)
    try:
        if os.read(telling, 1) == b"r":
            yield place
        os.set_blocking(telling, False)
        with os.fdopen(telling, "rb", buffering=0) as stream:
            asked.append("asked" if b"a" in (stream.read(100) or b"") else "not asked")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        unmount(place, 2)


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _automount(*, inside: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        context = grant(scene, MOUNT) if inside else None
        asked: list[str] = []

        def body(link: Link) -> None:
            while True:
                place = link.receive()
                link.send(attempt(_open, f"{place}/x/y").text)

        own_mounts()
        walker = scene.insider(body) if context is not None else scene.outsider(body)
        with _autofs(asked) as place:
            walker.link.send(place)
            seen = Seen(walker.link.receive())
        return combined(seen, *asked)

    return probe


check(
    "mounts.automount",
    title="no daemon of the host mounts anything because a context looks",
    attack="open(AUTOFS/x/y), where autofs waits for a daemon of the host",
    expected="EACCES, not asked",
    control=instead(_automount(inside=False), "ENOENT, asked", "a process of the host, which the daemon tells no"),
    vectors=["F74"],
)(_automount(inside=True))

# Locks

F_OFD_SETLK, F_OFD_GETLK = 37, 36


def _locks(scene: Scene) -> Seen:
    """Look for a lock that belongs to an open file, in /proc/locks."""
    path = f"/run/cloison/lock-{os.getpid()}"
    held: list[int] = []

    def hold(link: Link) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.fcntl(descriptor, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        held.append(descriptor)
        link.send("ready")
        link.receive()

    def look() -> str:
        inode = Path(path).stat().st_ino
        text = Path("/proc/locks").read_text(encoding="ascii")
        return "listed" if f":{inode} " in text else "not listed"

    holder = scene.victim(hold)
    holder.link.receive()
    try:
        return scene.attack(lambda: attempt(look))
    finally:
        Path(path).unlink()


check(
    "mounts.locks",
    title="/proc/locks does not list the locks of open files of others",
    attack="/proc/locks, for a lock made with F_OFD_SETLK",
    expected="not listed",
    control=same_context("listed"),
    vectors=["L17"],
)(_locks)


def _ask_for_lock() -> str:
    """Ask for the lock of another open file description, each way; return whom the answer names."""
    path = f"/run/cloison/asked-{os.getpid()}"
    holder, asker = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    Path(path).unlink()
    wish = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    told = [struct.unpack("hhqqi4x", fcntl.fcntl(asker, way, wish)) for way in (fcntl.F_GETLK, F_OFD_GETLK)]
    fcntl.fcntl(holder, F_OFD_SETLK, wish)
    told += [struct.unpack("hhqqi4x", fcntl.fcntl(asker, way, wish)) for way in (fcntl.F_GETLK, F_OFD_GETLK)]
    return " ".join("free" if kind == fcntl.F_UNLCK else str(pid) for kind, _whence, _start, _length, pid in told)


check(
    "mounts.lock-query",
    title="the answer about a lock of an open file names nobody, and harms nobody",
    attack="F_GETLK and F_OFD_GETLK, before and after F_OFD_SETLK, in a context",
    expected="free free -1 -1",
    control=instead(
        lambda scene: scene.attack(lambda: attempt(_ask_for_lock), inside=False), "free free -1 -1", "host"
    ),
    vectors=["L17"],
)(lambda scene: scene.attack(lambda: attempt(_ask_for_lock), inside=True))
