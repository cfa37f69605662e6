# SPDX-License-Identifier: GPL-2.0-or-later
"""The new mount interface, trees that are mounted nowhere, and mounts that are shared with the host."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

from cloison.flags import BCAP_WORDS, Change, ContextCaps
from cloison_verify.acts import combined
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.mounts import Act, granted
from cloison_verify.mounting import (
    BINARY,
    CLONE_NEWNS,
    MOUNT,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    NOTHING,
    PLACE,
    each,
    folder,
    fsconfig_create,
    fsmount,
    fsopen,
    fspick,
    grant,
    guest,
    mount,
    mount_setattr,
    move_mount,
    node,
    open_tree,
    own_mounts,
    setns,
    unmount,
    unshare,
)
from cloison_verify.scene import Scene, Seen, attempt


def _every_call() -> str:
    def descriptor(made: Callable[[], int]) -> Act:
        def done() -> None:
            descriptors.append(made())

        return done

    descriptors: list[int] = [-1]
    first = each(
        fsopen=descriptor(lambda: fsopen("tmpfs")),
        fsconfig=lambda: fsconfig_create(descriptors[-1]),
        fsmount=descriptor(lambda: fsmount(descriptors[-1])),
    )
    second = each(
        fspick=descriptor(lambda: fspick(PLACE)),
        open_tree=descriptor(lambda: open_tree(PLACE)),
        move_mount=lambda: move_mount(descriptors[-1], f"{PLACE}/b"),
        mount_setattr=lambda: mount_setattr(PLACE, MOUNT_ATTR_RDONLY, 0),
    )
    return f"{first}, {second}"


_CALLS = ("fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr")

granted(
    "mounts.new-calls",
    ["F22"],
    "the new calls mount as little as the old one",
    ", ".join(_CALLS) + " with every capability",
    _every_call,
    needs=BINARY,
    before=lambda: folder("b"),
    # Without fsopen there is no descriptor to configure.
    expected=", ".join(f"{name} {'EINVAL' if name == 'fsconfig' else 'EPERM'}" for name in _CALLS),
    control=", ".join(f"{name} ok" for name in _CALLS),
)


def _half_made() -> str:
    context = fsopen("tmpfs")
    return each(create=lambda: fsconfig_create(context), fsmount=lambda: os.close(fsmount(context)))


granted(
    "mounts.half-made",
    ["F22"],
    "what a context may not mount has no superblock either",
    "fsopen(tmpfs), fsconfig(CREATE), fsmount with SECURE_MOUNT and without BINARY_MOUNT",
    _half_made,
    without=MOUNT,
    needs=BINARY,
    expected="create EPERM, fsmount EINVAL",
    control="create ok, fsmount ok",
)


def _carrying(make: Callable[[], int]) -> Probe:
    def probe(scene: Scene) -> Seen:
        context = grant(scene, MOUNT)

        def body() -> Seen:
            own_mounts()
            make()
            return attempt(context.enter)

        return scene.attack(body, inside=False)

    return probe


for _name, _make in (("tree", lambda: open_tree("/")), ("context", lambda: fsopen("tmpfs"))):
    check(
        f"mounts.carried-{_name}",
        title="nobody enters a context with a mount among the descriptors",
        attack=f"{'open_tree(/, CLONE)' if _name == 'tree' else 'fsopen(tmpfs)'}, then enter",
        expected="EINVAL",
        control=instead(
            _carrying(lambda: os.open("/proc", os.O_PATH)), "ok", "a process with a plain descriptor of a directory"
        ),
        vectors=["F23"],
    )(_carrying(_make))


def _pass(scene: Scene, make: Callable[[], int]) -> Seen:
    """Send a descriptor that the host has made to a guest, over a socket that the guest inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def sender(_link: object) -> None:
        own_mounts()
        socket.send_fds(ours, [b"x"], [make()])

    def receive() -> str:
        _data, descriptors, _flags, _address = socket.recv_fds(theirs, 1, 1)
        return "received" if descriptors else "refused"

    with ours, theirs:
        scene.outsider(sender, keep=[ours.fileno()])
        return scene.attack(lambda: attempt(receive), inside=True, keep=[theirs.fileno()])


check(
    "mounts.received-tree",
    title="a detached tree of the host does not come in through a socket",
    attack="SCM_RIGHTS with a descriptor of open_tree(/, CLONE)",
    expected="refused",
    control=instead(
        lambda scene: _pass(scene, lambda: os.open("/proc", os.O_PATH)), "received", "a plain descriptor of a directory"
    ),
    vectors=["F23"],
)(lambda scene: _pass(scene, lambda: open_tree("/")))


def _inside_tree() -> int:
    """Open a directory in a detached tree; the tree lives as long as its own descriptor."""
    return os.open("proc", os.O_PATH | os.O_DIRECTORY, dir_fd=open_tree("/"))


check(
    "mounts.received-folder",
    title="nor does a directory in a detached tree of the host",
    attack="SCM_RIGHTS with a descriptor of a directory below open_tree(/, CLONE)",
    expected="refused",
    control=instead(
        lambda scene: _pass(scene, lambda: os.open("/proc", os.O_PATH)), "received", "a plain descriptor of a directory"
    ),
    vectors=["F23"],
)(lambda scene: _pass(scene, _inside_tree))


def _spread(*, shared: bool) -> Probe:
    """Let a guest mount below, and unmount, what the host shares with its mount namespace, or does not."""

    def probe(scene: Scene) -> Seen:
        context = grant(scene, BINARY)
        place = Path(PLACE)
        place.mkdir(exist_ok=True)

        def count() -> int:
            with open("/proc/self/mounts", encoding="utf-8") as stream:
                return sum(f" {PLACE}" in line for line in stream)

        def body() -> Seen:
            unshare(CLONE_NEWNS)
            if not shared:
                mount("none", "/", None, MS_REC | MS_PRIVATE)
            context.enter()
            return attempt(
                lambda: each(mount=lambda: mount("x", f"{PLACE}/a", "tmpfs"), unmount=lambda: unmount(f"{PLACE}/b"))
            )

        mount("place", PLACE, "tmpfs")
        try:
            mount("none", PLACE, None, MS_SHARED)
            for name in ("a", "b"):
                (place / name).mkdir()
            mount("b", f"{PLACE}/b", "tmpfs")
            seen = scene.attack(body, inside=False)
            return combined(seen, f"{count()} on the host")
        finally:
            unmount(PLACE, 2)

    return probe


check(
    "mounts.spread",
    title="what a context mounts does not appear on the host, nor disappears there what it unmounts",
    attack="mount and umount2 below a mount that the host shares, with every grant",
    expected="mount EPERM, unmount EINVAL, 2 on the host",
    control=instead(_spread(shared=False), "mount ok, unmount ok, 2 on the host", "the same below a private mount"),
    vectors=["F25"],
)(_spread(shared=True))


MNT_FORCE, MNT_DETACH = 1, 2


def _along(*, shared: bool) -> Probe:
    """Let a guest detach a mount of its own, with another on it that the host shares, or does not."""

    def probe(scene: Scene) -> Seen:
        context = grant(scene, BINARY)
        Path(PLACE).mkdir(exist_ok=True)

        def body() -> Seen:
            unshare(CLONE_NEWNS)
            if not shared:
                mount("none", "/", None, MS_REC | MS_PRIVATE)
            context.enter()
            return attempt(
                lambda: each(
                    private=lambda: mount("none", PLACE, None, MS_PRIVATE),
                    unmount=lambda: unmount(f"{PLACE}/b", MNT_DETACH),
                )
            )

        mount("place", PLACE, "tmpfs")
        try:
            mount("none", PLACE, None, MS_SHARED)
            for name in ("b", "b/c"):
                Path(PLACE, name).mkdir()
                mount("x", f"{PLACE}/{name}", "tmpfs")
            seen = scene.attack(body, inside=False)
            with open("/proc/self/mounts", encoding="utf-8") as stream:
                left = sum(f" {PLACE}" in line for line in stream)
            return combined(seen, f"{left} on the host")
        finally:
            unmount(PLACE, MNT_DETACH)

    return probe


check(
    "mounts.spread-along",
    title="what is unmounted together with a mount of the context does not disappear on the host",
    attack="make the parent private, umount2(MNT_DETACH) of a mount with a shared one on it, with every grant",
    expected="private ok, unmount EINVAL, 3 on the host",
    control=instead(_along(shared=False), "private ok, unmount ok, 3 on the host", "the same with private mounts"),
    vectors=["F25"],
)(_along(shared=True))


def _forced(caps: ContextCaps) -> Probe:
    """Return a probe that unmounts by force a FUSE file system, and looks whether its server is cut off."""

    def probe(scene: Scene) -> Seen:
        servers: list[int] = []

        def serve() -> None:
            servers.append(os.open(node("c", 10, 229), os.O_RDWR))
            data = f"fd={servers[0]},rootmode=40000,user_id=0,group_id=0"
            mount("x", folder("b"), "fuse", 0, data)

        def force() -> str:
            seen = attempt(unmount, f"{PLACE}/b", MNT_FORCE)
            poll = select.poll()
            poll.register(servers[0], select.POLLIN)
            cut = any(event & select.POLLERR for _descriptor, event in poll.poll(0))
            return f"{seen.text}, {'cut off' if cut else 'connected'}"

        return guest(scene, force, caps, before=serve)

    return probe


check(
    "mounts.force",
    title="a context ends no file system that others may use",
    attack="umount2(MNT_FORCE) of a FUSE file system that the host serves, with SECURE_MOUNT",
    expected="EPERM, connected",
    control=instead(_forced(MOUNT | ContextCaps.SECURE_REMOUNT), "ok, cut off", "a context with SECURE_REMOUNT"),
    vectors=["F20"],
)(_forced(MOUNT))


def _propagation(caps: ContextCaps, lacking: str) -> Probe:
    def probe(scene: Scene) -> Seen:
        context = grant(scene, caps)
        if lacking:
            context.set_bound(Change(0, BCAP_WORDS[lacking]))
        return guest(scene, lambda: mount("none", "/", None, MS_REC | MS_PRIVATE), caps)

    return probe


check(
    "mounts.propagation",
    title="how mounts spread is changed with the grant to mount, which needs no CAP_SYS_ADMIN in the bounds",
    attack="mount(MS_REC | MS_PRIVATE) with every capability",
    expected="EPERM",
    control=instead(_propagation(MOUNT, "sys_admin"), "ok", "SECURE_MOUNT, and bounds without CAP_SYS_ADMIN"),
    vectors=["F25"],
)(_propagation(NOTHING, ""))


def _joining(*, root: bool, host: bool) -> Probe:
    """Return a probe that joins the own mount namespace, or the host's, below a root of its own or without one."""

    def probe(scene: Scene) -> Seen:
        context = grant(scene, NOTHING)

        def body() -> Seen:
            namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
            own_mounts()
            if not host:
                namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
            if root:
                os.chroot(folder("root"))
                os.chdir("/")
            context.enter()
            return attempt(setns, namespace, CLONE_NEWNS)

        return scene.attack(body, inside=False)

    return probe


for _name, _title, _joins in (
    (
        "root",
        "setns gives nobody the root of the mount namespace that he is kept below",
        _joining(root=True, host=False),
    ),
    ("host", "a descriptor of the mount namespace of the host leads nowhere", _joining(root=False, host=True)),
):
    check(
        f"mounts.setns-{_name}",
        title=_title,
        attack="setns(/proc/self/ns/mnt, opened before) with every capability",
        expected="EPERM",
        control=instead(
            _joining(root=False, host=False), "ok", "the own mount namespace, whose root the context has already"
        ),
        vectors=["F02", "K16"],
    )(_joins)
