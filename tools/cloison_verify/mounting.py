# SPDX-License-Identifier: GPL-2.0-or-later
"""Mount namespaces and the calls of the mount interface, for the checks of mounts and devices."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextCaps
from cloison.syscall import Vserver
from cloison_verify.acts import call
from cloison_verify.scene import Scene, Seen, attempt

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_MOVE = 1, 2, 4, 32, 4096, 8192
MS_REC, MS_PRIVATE, MS_SHARED = 16384, 1 << 18, 1 << 20
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWIPC = 0x20000, 0x2000000, 0x8000000
OPEN_TREE_CLONE = 1
AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 1
PLACE = "/run/cloison/place"
"""A tmpfs of its own in the mount namespace of whoever has called `own_mounts`; nodes of devices work on it."""

MOUNT = ContextCaps.SECURE_MOUNT
BINARY = MOUNT | ContextCaps.BINARY_MOUNT
NOTHING = ContextCaps(0)

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Call mount(2)."""
    encoded = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    _checked(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def unmount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _checked(_libc.umount2(target.encode(), flags))


def unshare(flags: int) -> None:
    """Call unshare(2)."""
    _checked(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    """Call setns(2)."""
    _checked(_libc.setns(descriptor, kind))


def own_mounts() -> None:
    """Get a mount namespace that shares nothing with the host's, with `PLACE` in it."""
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    Path(PLACE).mkdir(exist_ok=True)
    mount("place", PLACE, "tmpfs")


def folder(name: str) -> str:
    """Make a folder in `PLACE`."""
    path = Path(PLACE, name)
    path.mkdir(exist_ok=True)
    return str(path)


def node(kind: str, major: int, minor: int) -> str:
    """Make a node in `PLACE`, as it would come out of an archive; `kind` is "b" or "c"."""
    path = Path(PLACE, f"{kind}-{major}-{minor}")
    if not path.exists():
        os.mknod(path, (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o600, os.makedev(major, minor))
    return str(path)


def _pointer(text: str) -> int:
    """Return the address of a C string, which lives as long as the process."""
    buffer = ctypes.create_string_buffer(text.encode())
    _kept.append(buffer)
    return ctypes.addressof(buffer)


_kept: list[object] = []


def fsopen(kind: str) -> int:
    """Call fsopen(2)."""
    return call("fsopen", _pointer(kind), 1)


def fsconfig_create(context: int) -> None:
    """Let fsconfig(2) make the superblock."""
    call("fsconfig", context, FSCONFIG_CMD_CREATE, 0, 0, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """Call fsmount(2)."""
    return call("fsmount", context, 1, attributes)


def fspick(path: str) -> int:
    """Call fspick(2)."""
    return call("fspick", AT_FDCWD, _pointer(path), 1)


def open_tree(path: str, flags: int = OPEN_TREE_CLONE) -> int:
    """Call open_tree(2)."""
    return call("open_tree", AT_FDCWD, _pointer(path), flags)


def move_mount(tree: int, target: str) -> None:
    """Let move_mount(2) attach a detached tree."""
    call("move_mount", tree, _pointer(""), AT_FDCWD, _pointer(target), MOVE_MOUNT_F_EMPTY_PATH)


def mount_setattr(path: str, add: int, clear: int, *, tree: int | None = None, identities: int = 0) -> None:
    """Call mount_setattr(2) on a path, or on a detached tree; `identities` is the user namespace of an id mapping."""
    attributes = (ctypes.c_uint64 * 4)(add, clear, 0, identities)
    start, flags = (AT_FDCWD, 0) if tree is None else (tree, AT_EMPTY_PATH)
    call("mount_setattr", start, _pointer(path), flags, ctypes.addressof(attributes), ctypes.sizeof(attributes))


def grant(scene: Scene, caps: ContextCaps) -> Context:
    """Give the scene's context capabilities; return it."""
    context = Context(scene.xid, Vserver())
    if caps:
        context.set_caps(Change(int(caps), int(caps)))
    return context


def guest(
    scene: Scene,
    operation: Callable[[], object],
    caps: ContextCaps = NOTHING,
    *,
    before: Callable[[], object] | None = None,
    private: bool = True,
    inside: bool = True,
) -> Seen:
    """Attack from a guest with a mount namespace of its own, in which `before` has been done by the host."""
    context = grant(scene, caps) if inside else None

    def body() -> Seen:
        if private:
            own_mounts()
        if before is not None:
            before()
        if context is not None:
            context.enter()
        return attempt(operation)

    return scene.attack(body, inside=False)


def each(**operations: Callable[[], object]) -> str:
    """Do several things and return what each led to."""
    return ", ".join(f"{name} {attempt(operation).text}" for name, operation in operations.items())
