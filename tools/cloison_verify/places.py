# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders that play the root of a guest, and processes that enter a context below one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison.system import System
from cloison_verify import mounting
from cloison_verify.scene import Scene, Seen

CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
MS_REC_PRIVATE = 0x44000


def mount(kind: str, target: Path, options: str = "", flags: int = 0) -> None:
    """Mount a file system of a kind, or with flags whatever mount(2) does."""
    mounting.mount("none", str(target), kind, flags, options)


def unmount(*targets: Path) -> None:
    """Unmount, as far as it is mounted."""
    subprocess.run(["umount", "-l", *map(str, targets)], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """Make a folder of the check's own on a file system in memory."""
    made = Path(f"/run/cloison/{name}-{os.getpid()}")
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def mounted(kind: str, name: str, options: str = "") -> Iterator[Path]:
    """Mount a file system of a kind on a folder of the check's own."""
    with folder(name) as made:
        mount(kind, made, options)
        try:
            yield made
        finally:
            unmount(made)


def pivot_tree(base: Path) -> None:
    """Stand beside a new root, ``/new`` with ``put`` and ``a/b``, in a mount namespace and a root of one's own."""
    System().unshare(CLONE_NEWNS)
    mount("tmpfs", base)
    os.chroot(base)
    os.chdir("/")
    Path("/new").mkdir()
    mount("tmpfs", Path("/new"))
    for name in ("/new/put", "/new/a", "/new/a/b"):
        Path(name).mkdir()


@contextmanager
def unhidden(*paths: str | Path) -> Iterator[None]:
    """Let members see entries of /proc for a while."""
    from cloison import attributes
    from cloison.flags import Change, FileAttributes
    from cloison.syscall import Vserver

    kernel, every = Vserver(), int(FileAttributes.ADMIN | FileAttributes.WATCH | FileAttributes.HIDE)
    before = {path: int(attributes.get(kernel, path).flags) for path in map(Path, paths)}
    for path in before:
        attributes.change(kernel, path, Change(0, int(FileAttributes.HIDE)))
    try:
        yield
    finally:
        for path, flags in before.items():
            attributes.change(kernel, path, Change(flags, every))


def confined(scene: Scene, root: Path, body: Callable[[], Seen], *, inside: bool = True) -> Seen:
    """Run `body` in a process that made `root` its root directory and, if `inside`, then entered the context."""
    from cloison.context import Context
    from cloison.syscall import Vserver

    context = Context(scene.xid, Vserver())

    def go() -> Seen:
        os.chroot(root)
        os.chdir("/")
        if inside:
            context.enter()
        return body()

    return scene.attack(go, inside=False)


def delegated(scene: Scene, body: Callable[[], Seen]) -> Seen:
    """Run `body` in the context, in a cgroup namespace whose root is the check's own group: it may write below."""
    from cloison.context import Context
    from cloison.syscall import Vserver
    from cloison.system import System

    context = Context(scene.xid, Vserver())

    def go() -> Seen:
        System().unshare(CLONE_NEWCGROUP)
        context.enter()
        return body()

    return scene.attack(go, inside=False)


def same(first: os.stat_result, second: os.stat_result) -> bool:
    """Say whether two files are one."""
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
