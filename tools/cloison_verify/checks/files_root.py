# SPDX-License-Identifier: GPL-2.0-or-later
"""A chroot that holds: nobody walks out of the root directory with which he entered a context."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import ONE_TIME, Change, ContextFlags
from cloison.syscall import Vserver
from cloison_verify.catalogue import check, instead
from cloison_verify.places import confined, folder, mount, pivot_tree, same, unmount
from cloison_verify.scene import Link, Scene, Seen, attempt


def _up(times: int = 20) -> None:
    for _ in range(times):
        os.chdir("..")


def _where(root: os.stat_result) -> str:
    return "stays inside" if same(Path().stat(), root) else "outside"


def _double_chroot(root: os.stat_result) -> Seen:
    Path("x").mkdir()
    os.chroot("x")
    _up()
    os.chroot(".")
    return Seen("stays inside" if same(Path("/").stat(), root) else "outside")


def _own_descriptor(root: os.stat_result) -> Seen:
    kept = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    Path("x").mkdir()
    os.chroot("x")
    os.chdir("/")
    os.fchdir(kept)
    _up()
    return Seen(_where(root))


def _escape(scene: Scene, way: Callable[[os.stat_result], Seen], *, inside: bool) -> Seen:
    with folder("root") as root:
        status = root.stat()
        return confined(scene, root, lambda: way(status), inside=inside)


for _name, _way, _vector, _attack in (
    ("double-chroot", _double_chroot, "F01", "mkdir(x), chroot(x), chdir(../../..), chroot(.)"),
    ("own-descriptor", _own_descriptor, "F02", "open(/), chroot(x), fchdir, chdir(../../..)"),
):
    check(
        f"files.{_name}",
        title="chroot() inside is no way out of the root",
        attack=_attack,
        expected="stays inside",
        control=instead(
            lambda scene, way=_way: _escape(scene, way, inside=False),  # type: ignore[misc]
            "outside",
            "the same in a chroot without a context",
        ),
        vectors=[_vector],
    )(lambda scene, way=_way: _escape(scene, way, inside=True))  # type: ignore[misc]


def _sealed(scene: Scene, *, seal: bool) -> Seen:
    """Set a context up from inside, as util-vserver does: create, chroot(), end the setup."""
    context = Context(60000 + os.getpid() % 5000, Vserver())
    with folder("sealed") as root:
        status = root.stat()

        def member(answer: int) -> None:
            context.create(ONE_TIME)
            os.chroot(root)
            os.chdir("/")
            if seal:
                context.set_flags(Change(0, int(ContextFlags.STATE_SETUP)))
            os.write(answer, _double_chroot(status).text.encode())

        def body() -> Seen:
            """A process that made a context of its own has to end by itself: nobody else may kill it."""
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    member(writing)
                finally:
                    os._exit(0)
            os.close(writing)
            os.waitpid(child, 0)
            return Seen(os.read(reading, 100).decode() or "failed")

        return scene.attack(body, inside=False)


check(
    "files.root-at-seal",
    title="the root that a process has when it ends the setup holds",
    attack="ctx_create, chroot(), end of the setup, then the double chroot",
    expected="stays inside",
    control=instead(lambda scene: _sealed(scene, seal=False), "outside", "the setup goes on"),
    vectors=["F01"],
)(lambda scene: _sealed(scene, seal=True))


def _moved(scene: Scene, *, inside: bool) -> Seen:
    context = Context(scene.xid, Vserver())
    with folder("from") as root, folder("to") as elsewhere:
        (root / "a/b").mkdir(parents=True)
        status = root.stat()

        def body(link: Link) -> None:
            os.chroot(root)
            os.chdir("/a/b")
            if inside:
                context.enter()
            link.send("below")
            link.receive()
            seen = attempt(_up)
            link.send(_where(status) if seen.text == "ok" else seen.text)

        actor = scene.outsider(body)
        actor.link.receive()
        (root / "a").rename(elsewhere / "a")
        actor.link.send("moved")
        return Seen(actor.link.receive())


check(
    "files.moved-folder",
    title="a folder that is moved out of the root takes nobody along",
    attack="rename() of a folder above the working directory to a place outside, then chdir(..)",
    expected="ENOENT",
    control=instead(lambda scene: _moved(scene, inside=False), "outside", "in a chroot without a context"),
    vectors=["F04"],
)(lambda scene: _moved(scene, inside=True))


def _brought_along(scene: Scene, *, inside: bool) -> Seen:
    with folder("brought") as root:
        brought = os.open("/", os.O_RDONLY | os.O_DIRECTORY)

        def body() -> Seen:
            walk = attempt(lambda: os.close(os.open("etc", os.O_RDONLY, dir_fd=brought)))
            return Seen(f"{walk.text}, {attempt(os.fchdir, brought).text}")

        context = Context(scene.xid, Vserver())

        def go() -> Seen:
            os.chroot(root)
            os.chdir("/")
            if inside:
                context.enter()
            return body()

        try:
            return scene.attack(go, inside=False, keep=[brought])
        finally:
            os.close(brought)


check(
    "files.brought-descriptor",
    title="a folder of the host that was left open is no place to start from",
    attack="openat(descriptor of the host's root, etc), fchdir(descriptor)",
    expected="EACCES, EACCES",
    control=instead(lambda scene: _brought_along(scene, inside=False), "ok, ok", "in a chroot without a context"),
    vectors=["F02", "F11"],
)(lambda scene: _brought_along(scene, inside=True))


def _kept_folder(scene: Scene, *, inside: bool) -> Seen:
    context = Context(scene.xid, Vserver())
    with folder("kept") as root:
        status = root.stat()

        def go() -> Seen:
            os.chroot(root)
            if inside:
                context.enter()
            return Seen(_where(status))

        return scene.attack(go, inside=False)


check(
    "files.kept-working-directory",
    title="a working directory outside of the root becomes the root",
    attack="chroot() without chdir(), enter the context, stat(.)",
    expected="stays inside",
    control=instead(lambda scene: _kept_folder(scene, inside=False), "outside", "in a chroot without a context"),
    vectors=["F02"],
)(lambda scene: _kept_folder(scene, inside=True))


def _jump(scene: Scene, *, inside: bool) -> Seen:
    context = Context(scene.xid, Vserver())
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)

    def opened(name: str) -> str:
        return attempt(lambda: os.close(os.open(name, os.O_RDONLY))).text

    def go() -> Seen:
        """Without a context the last step is left out: the program would run."""
        os.chroot(root)
        os.chdir("/")
        if inside:
            context.enter()
        memory = os.memfd_create("own")
        sights = [opened(name) for name in ("/proc/self/exe", f"/proc/self/fd/{host}", f"/proc/self/fd/{memory}")]
        if inside:
            sights.append(attempt(os.execv, "/proc/self/exe", ["python3", "-c", "pass"]).text)
        return Seen(", ".join(sights))

    with folder("jump") as root:
        (root / "proc").mkdir()
        mount("proc", root / "proc")
        try:
            return scene.attack(go, inside=False, keep=[host])
        finally:
            unmount(root / "proc")
            os.close(host)


check(
    "files.magic-links-out",
    title="magic links do not lead out of the root, and the tool that entered cannot be run or opened",
    attack="open(/proc/self/exe) of the program that entered, open(/proc/self/fd/N), execve(/proc/self/exe)",
    expected="EACCES, EACCES, ok, EACCES",
    control=instead(lambda scene: _jump(scene, inside=False), "ok, ok, ok", "in a chroot without a context"),
    vectors=["F08", "F10", "F11"],
)(lambda scene: _jump(scene, inside=True))


def _pivot(scene: Scene, *, inside: bool) -> Seen:
    """Pivot the mount namespace of a member from the host; its root moves along."""
    context = Context(scene.xid, Vserver())
    libc = ctypes.CDLL(None, use_errno=True)

    def member(ready: int, go: int, answer: int) -> None:
        if inside:
            context.enter()
        os.write(ready, b"x")
        os.read(go, 1)
        os.chdir("/a/b")
        os.write(answer, attempt(os.chdir, "..").text.encode())
        os._exit(0)

    with folder("pivot") as base:

        def body() -> Seen:
            pivot_tree(base)
            pipes = [os.pipe() for _ in range(3)]
            if os.fork() == 0:
                member(pipes[0][1], pipes[1][0], pipes[2][1])
            os.read(pipes[0][0], 1)
            if libc.pivot_root(b"/new", b"/new/put"):
                raise OSError(ctypes.get_errno(), "pivot_root")
            os.write(pipes[1][1], b"x")
            return Seen(os.read(pipes[2][0], 100).decode())

        return scene.attack(body, inside=False)


check(
    "files.pivot",
    title="the root of a member follows pivot_root()",
    attack="pivot_root() in the member's mount namespace, then chdir(a/b), chdir(..)",
    expected="ok",
    control=instead(lambda scene: _pivot(scene, inside=False), "ok", "without a context"),
    vectors=["F01"],
)(lambda scene: _pivot(scene, inside=True))
