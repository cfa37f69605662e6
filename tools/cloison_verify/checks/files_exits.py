# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways out that begin before: what was opened during the setup, or by whoever brought a process inside."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import ONE_TIME, Change, ContextCaps, ContextFlags
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.acts import call
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.mounting import AT_EMPTY_PATH, fsconfig_create, fsmount, fsopen, unshare
from cloison_verify.places import CLONE_NEWNS, folder, mount, pivot_tree, same, unmount
from cloison_verify.scene import Scene, SceneError, Seen, attempt

AT_FDCWD = -100
Kept = int | None


def _sights(*operations: Callable[[], object]) -> Seen:
    return Seen(", ".join(attempt(operation).text for operation in operations))


def _up(times: int = 20) -> None:
    for _ in range(times):
        os.chdir("..")


def _double_chroot(status: os.stat_result, _kept: Kept) -> Seen:
    Path("x").mkdir()
    os.chroot("x")
    _up()
    return Seen("stays inside" if same(Path().stat(), status) else "outside")


def _from_kept(_status: os.stat_result, kept: Kept) -> Seen:
    if kept is None:
        raise SceneError("nothing was opened")
    return _sights(lambda: os.close(os.open("etc", os.O_RDONLY, dir_fd=kept)), lambda: os.fchdir(kept))


def _set_up(number: int, way: Callable[[os.stat_result, Kept], Seen], ender: str) -> Probe:
    """Return a probe in which a process makes a context, opens /, and changes its root; then `ender` ends the setup."""
    context = Context(number + os.getpid() % 2500, Vserver())
    seal = Change(0, int(ContextFlags.STATE_SETUP))

    def member(root: Path, ready: int, go: int, answer: int) -> None:
        status = root.stat()
        context.create(ONE_TIME)
        kept = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot(root)
        os.chdir("/")
        if ender == "member":
            context.set_flags(seal)
        os.write(ready, b"x")
        os.read(go, 1)
        os.write(answer, way(status, kept).text.encode())

    def body(root: Path) -> Seen:
        """A process that made a context of its own has to end by itself: nobody else may kill it."""
        ready, go, answer = (os.pipe() for _ in range(3))
        child = os.fork()
        if child == 0:
            try:
                for end in (ready[0], go[1], answer[0]):
                    os.close(end)
                member(root, ready[1], go[0], answer[1])
            finally:
                os._exit(0)
        for end in (ready[1], go[0], answer[1]):
            os.close(end)
        os.read(ready[0], 1)
        if ender == "host":
            context.set_flags(seal)
        os.close(go[1])
        os.waitpid(child, 0)
        return Seen(os.read(answer[0], 100).decode() or "failed")

    def probe(scene: Scene) -> Seen:
        with folder("setup") as root:
            return scene.attack(lambda: body(root), inside=False)

    return probe


check(
    "files.setup-descriptor",
    title="a folder that was opened during the setup is no way out after it",
    attack="ctx_create, open(/), chroot(), end of the setup, then openat(descriptor, etc), fchdir(descriptor)",
    expected="EACCES, EACCES",
    control=instead(_set_up(52500, _from_kept, "nobody"), "ok, ok", "the setup goes on"),
    vectors=["F02", "F11"],
)(_set_up(50000, _from_kept, "member"))
check(
    "files.root-at-seal-by-host",
    title="the root holds that a member has when the host ends the setup",
    attack="ctx_create, chroot(), end of the setup from outside, then the double chroot",
    expected="stays inside",
    control=instead(_set_up(57500, _double_chroot, "nobody"), "outside", "the setup goes on"),
    vectors=["F01"],
)(_set_up(55000, _double_chroot, "host"))


def _chrooted(scene: Scene, root: Path, body: Callable[[], Seen], keep: list[int], *, inside: bool) -> Seen:
    """Run `body` in a process that has these descriptors, made `root` its root and, if `inside`, entered."""
    context = Context(scene.xid, Vserver())

    def go() -> Seen:
        os.chroot(root)
        os.chdir("/")
        if inside:
            context.enter()
        return body()

    return scene.attack(go, inside=False, keep=keep)


def _name(descriptor: int, name: bytes) -> Callable[[], None]:
    """Return an operation that gives an open file a name."""

    def operation() -> None:
        empty, path = ctypes.create_string_buffer(b""), ctypes.create_string_buffer(name)
        call("linkat", descriptor, ctypes.addressof(empty), AT_FDCWD, ctypes.addressof(path), AT_EMPTY_PATH)

    return operation


def _link(scene: Scene, *, inside: bool) -> Seen:
    with folder("outside") as area, folder("link") as root:
        (area / "file").write_text("text", encoding="ascii")
        host = os.open(area / "file", os.O_RDONLY)

        def body() -> Seen:
            own = os.open("/", os.O_TMPFILE | os.O_RDWR, 0o600)
            return _sights(_name(host, b"/taken"), _name(own, b"/made"))

        try:
            return _chrooted(scene, root, body, [host], inside=inside)
        finally:
            os.close(host)


check(
    "files.link-descriptor",
    title="a file outside gets no name inside; a file that was made without a name does",
    attack="linkat(descriptor, AT_EMPTY_PATH) of a file that the host has opened for reading, and of an O_TMPFILE",
    expected="EACCES, ok",
    control=instead(lambda scene: _link(scene, inside=False), "ok, ok", "in a chroot without a context"),
    vectors=["F34", "F10"],
)(lambda scene: _link(scene, inside=True))


def _reopen(scene: Scene, *, inside: bool) -> Seen:
    with folder("outside") as area, folder("reopen") as root:
        os.mkfifo(area / "fifo")
        reading, _writing = pipe = os.pipe()
        named = os.open(area / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        (root / "proc").mkdir()
        mount("proc", root / "proc")

        def body() -> Seen:
            flags = os.O_RDWR | os.O_NONBLOCK
            return _sights(
                lambda: os.close(os.open(f"/proc/self/fd/{named}", flags)),
                lambda: os.close(os.open(f"/proc/self/fd/{reading}", flags)),
            )

        try:
            return _chrooted(scene, root, body, [named, *pipe], inside=inside)
        finally:
            unmount(root / "proc")
            for descriptor in (named, *pipe):
                os.close(descriptor)


check(
    "files.reopen-pipe",
    title="a named pipe outside is not opened anew for more than what came with it; an ordinary pipe is",
    attack="open(/proc/self/fd/N, O_RDWR) of a named pipe that the host has opened for reading, and of a pipe",
    expected="EACCES, ok",
    control=instead(lambda scene: _reopen(scene, inside=False), "ok, ok", "in a chroot without a context"),
    vectors=["F10"],
)(lambda scene: _reopen(scene, inside=True))


def _own_tree(scene: Scene, *, inside: bool) -> Seen:
    """Walk in a file system that the process has made and not mounted yet, in a mount namespace of its own."""
    caps = int(ContextCaps.SECURE_MOUNT | ContextCaps.BINARY_MOUNT)
    Context(scene.xid, Vserver()).set_caps(Change(caps, caps))

    def body() -> Seen:
        unshare(CLONE_NEWNS)
        made = fsopen("tmpfs")
        fsconfig_create(made)
        tree = fsmount(made)
        return _sights(lambda: os.mkdir("x", dir_fd=tree), lambda: os.fchdir(tree))

    with folder("tree") as root:
        return _chrooted(scene, root, body, [], inside=inside)


check(
    "files.own-tree",
    title="a member walks in a file system of its own before it is mounted",
    attack="fsopen(tmpfs), fsmount, mkdirat and fchdir by the descriptor",
    expected="ok, ok",
    control=instead(lambda scene: _own_tree(scene, inside=False), "ok, ok", "in a chroot without a context"),
    vectors=["F11"],
)(lambda scene: _own_tree(scene, inside=True))


def _pivot(scene: Scene, *, inside: bool) -> Seen:
    """Pivot in a mount namespace that the member has made, as tools for sandboxes do."""
    Context(scene.xid, Vserver()).set_caps(Change(int(ContextCaps.SECURE_MOUNT), int(ContextCaps.SECURE_MOUNT)))
    libc = ctypes.CDLL(None, use_errno=True)
    context = Context(scene.xid, Vserver())

    with folder("pivot") as base:

        def body() -> Seen:
            pivot_tree(base)
            if inside:
                context.enter()
            System().unshare(CLONE_NEWNS)
            if libc.pivot_root(b"/new", b"/new/put"):
                raise OSError(ctypes.get_errno(), "pivot_root")
            status = Path("/").stat()
            os.chdir("/a/b")
            seen = attempt(os.chdir, "..").text
            attempt(_up)
            return Seen(f"{seen}, {'stays inside' if same(Path().stat(), status) else 'outside'}")

        return scene.attack(body, inside=False)


check(
    "files.pivot-inside",
    title="the root of a member follows pivot_root() in a mount namespace of its own",
    attack="unshare(NEWNS), pivot_root(), chdir(a/b), chdir(..) as root of a context",
    expected="ok, stays inside",
    control=instead(lambda scene: _pivot(scene, inside=False), "ok, stays inside", "without a context"),
    vectors=["F01"],
)(lambda scene: _pivot(scene, inside=True))
