# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts: what a context mounts without the host's grant, and what it cannot do even with one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from cloison.flags import ContextCaps
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.mounting import (
    BINARY,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    MOUNT,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    NOTHING,
    PLACE,
    each,
    folder,
    fsconfig_create,
    fsmount,
    fsopen,
    guest,
    mount,
    mount_setattr,
    move_mount,
    node,
    unmount,
    unshare,
)
from cloison_verify.scene import Scene, Seen, attempt

Act = Callable[[], object]


def probed(operation: Act, caps: ContextCaps, before: Act | None) -> Probe:
    """Return a probe that does something in a guest with these grants, after `before` in its mount namespace."""
    return lambda scene: guest(scene, operation, caps, before=before)


def granted(
    identifier: str,
    vectors: list[str],
    title: str,
    attack: str,
    operation: Act,
    *,
    without: ContextCaps = NOTHING,
    needs: ContextCaps = MOUNT,
    before: Act | None = None,
    expected: str = "EPERM",
    control: str = "ok",
) -> None:
    """Register a check of what a context needs a grant for; control: the same with the grant."""
    check(
        identifier,
        title=title,
        attack=attack,
        expected=expected,
        control=instead(probed(operation, needs, before), control, f"a context with {needs!r}"),
        vectors=vectors,
    )(probed(operation, without, before))


def _bind() -> None:
    mount("/proc", f"{PLACE}/b", None, MS_BIND)


granted(
    "mounts.bind",
    ["F19"],
    "a context binds no directory to another place",
    "mount(/proc, DIR, MS_BIND) with every capability",
    _bind,
    before=lambda: folder("b"),
)


def _two_places() -> None:
    mount("a", folder("a"), "tmpfs")
    folder("b")


granted(
    "mounts.move",
    ["F19"],
    "a context moves no mount",
    "mount(DIR, DIR2, MS_MOVE) with every capability",
    lambda: mount(f"{PLACE}/a", f"{PLACE}/b", None, MS_MOVE),
    before=_two_places,
)
granted(
    "mounts.unmount",
    ["F19"],
    "a context unmounts nothing",
    "umount2(DIR) with every capability",
    lambda: unmount(f"{PLACE}/a"),
    before=_two_places,
)


def _as_user(operation: Act) -> Act:
    def done() -> object:
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        return operation()

    return done


check(
    "mounts.ordinary-user",
    title="the grant to mount is for root of the context only",
    attack="mount(/proc, DIR, MS_BIND) as user 1000 of a context with SECURE_MOUNT",
    expected="EPERM",
    control=instead(probed(_bind, MOUNT, lambda: folder("b")), "ok", "user 0 of the same kind of context"),
    vectors=["K26"],
)(probed(_as_user(_bind), MOUNT, lambda: folder("b")))


def _in_namespace(*, private: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        Path(PLACE).mkdir(exist_ok=True)

        def operation() -> None:
            mount("/proc", PLACE, None, MS_BIND)

        try:
            return guest(scene, operation, MOUNT, private=private)
        finally:
            with contextlib.suppress(OSError):
                unmount(PLACE)

    return probe


check(
    "mounts.host-namespace",
    title="no grant lets a context mount in the mount namespace of the host",
    attack="mount(/proc, DIR, MS_BIND) with SECURE_MOUNT in the initial mount namespace",
    expected="EPERM",
    control=instead(_in_namespace(private=True), "ok", "in a mount namespace of its own"),
    vectors=["F19", "F25"],
)(_in_namespace(private=False))


def _protected() -> None:
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    mount("a", folder("a"), "tmpfs", flags)


def _weaken() -> str:
    return each(
        rw=lambda: mount("a", f"{PLACE}/a", None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV),
        suid=lambda: mount("a", f"{PLACE}/a", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV),
        dev=lambda: mount("a", f"{PLACE}/a", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID),
        setattr=lambda: mount_setattr(f"{PLACE}/a", 0, MOUNT_ATTR_RDONLY),
    )


check(
    "mounts.weaken",
    title="a context takes no protection off a mount, grant or not",
    attack="MS_REMOUNT|MS_BIND without one of ro, nosuid, nodev, and mount_setattr, with SECURE_MOUNT",
    expected="rw EPERM, suid EPERM, dev EPERM, setattr EPERM",
    control=instead(
        lambda scene: guest(scene, _weaken, before=_protected, inside=False),
        "rw ok, suid ok, dev ok, setattr ok",
        "the host",
    ),
    vectors=["F20"],
)(probed(_weaken, MOUNT, _protected))


def _remount() -> None:
    mount("place", PLACE, None, MS_REMOUNT | MS_NODEV, "size=1m")


granted(
    "mounts.superblock",
    ["F20"],
    "a context changes no options of a file system that others may use",
    "mount(MS_REMOUNT, size=1m) with SECURE_MOUNT",
    _remount,
    without=MOUNT,
    needs=MOUNT | ContextCaps.SECURE_REMOUNT,
)


_INSIDE = (
    "debugfs", "tracefs", "securityfs", "configfs", "bpf", "pstore", "cgroup", "binfmt_misc", "devtmpfs", "efivarfs",
    "binder", "fusectl", "hugetlbfs", "autofs", "resctrl", "rpc_pipefs", "9p", "virtiofs",
)  # fmt: skip
_VIEWS = ("proc", "devpts", "cgroup2", "tmpfs", "mqueue")


def _kinds(names: tuple[str, ...]) -> str:
    """Return which of these file systems are not refused, of those that the kernel has and the machine serves."""
    with open("/proc/filesystems", encoding="ascii") as stream:
        known = {line.split()[-1] for line in stream}
    mounted = []
    for name in names:
        if name in known and attempt(mount, name, f"{PLACE}/b", name).text not in ("EPERM", "ENOTSUP"):
            mounted.append(name)
    return " ".join(mounted) or "none"


def _own_namespaces() -> None:
    folder("b")
    unshare(CLONE_NEWCGROUP | CLONE_NEWIPC)


check(
    "mounts.inside-of-the-kernel",
    title="no grant lets a context mount the views of the kernel's inside",
    attack="mount of " + ", ".join(_INSIDE) + " with SECURE_MOUNT and BINARY_MOUNT",
    expected="none",
    control=instead(
        probed(lambda: _kinds(_VIEWS), BINARY, _own_namespaces),
        " ".join(_VIEWS),
        "file systems that are on the list",
    ),
    vectors=["F26"],
)(probed(lambda: _kinds(_INSIDE), BINARY, lambda: folder("b")))

granted(
    "mounts.without-device",
    ["F26"],
    "a file system without a device needs a grant of its own",
    "mount of " + ", ".join(_VIEWS) + " with SECURE_MOUNT",
    lambda: _kinds(_VIEWS),
    without=MOUNT,
    needs=BINARY,
    before=_own_namespaces,
    expected="proc devpts cgroup2",
    control=" ".join(_VIEWS),
)


_NAMESPACES = ("cgroup2", "mqueue")

check(
    "mounts.host-views",
    title="a context mounts the control groups and message queues of a namespace of its own only",
    attack="mount of cgroup2 and mqueue with SECURE_MOUNT and BINARY_MOUNT in namespaces of the host",
    expected="none",
    control=instead(
        probed(lambda: _kinds(_NAMESPACES), BINARY, _own_namespaces), " ".join(_NAMESPACES), "in namespaces of its own"
    ),
    vectors=["F26"],
)(probed(lambda: _kinds(_NAMESPACES), BINARY, lambda: folder("b")))


def _layers() -> None:
    for name in ("lower", "upper", "work", "b"):
        folder(name)


def _overlay() -> None:
    options = f"lowerdir={PLACE}/lower,upperdir={PLACE}/upper,workdir={PLACE}/work"
    mount("overlay", f"{PLACE}/b", "overlay", 0, options)


granted(
    "mounts.overlay",
    ["F28"],
    "a context stacks no overlay",
    "mount(overlay) with SECURE_MOUNT",
    _overlay,
    without=MOUNT,
    needs=BINARY,
    before=_layers,
)


def _fuse_nodes() -> None:
    folder("b")
    node("c", 10, 229)


def _fuse() -> str:
    return each(
        open=lambda: os.close(os.open(f"{PLACE}/c-10-229", os.O_RDWR)),
        mount=lambda: mount("x", f"{PLACE}/b", "fuse", 0, "fd=0,rootmode=40000,user_id=0,group_id=0"),
    )


check(
    "mounts.fuse",
    title="a context serves no file system of its own",
    attack="open(/dev/fuse), mount(fuse) with SECURE_MOUNT",
    expected="open EACCES, mount EPERM",
    # Descriptor 0 is no /dev/fuse: the file system itself says no.
    control=instead(
        lambda scene: guest(scene, _fuse, before=_fuse_nodes, inside=False), "open ok, mount EINVAL", "the host"
    ),
    vectors=["F29"],
)(probed(_fuse, MOUNT, _fuse_nodes))


def _nodev() -> str:
    mount("old", f"{PLACE}/a", "tmpfs")
    context = fsopen("tmpfs")
    fsconfig_create(context)
    move_mount(fsmount(context), f"{PLACE}/b")
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        options = {line.split()[1]: line.split()[3].split(",") for line in stream}
    return ", ".join("nodev" if "nodev" in options[f"{PLACE}/{name}"] else "dev" for name in "ab")


def _targets() -> None:
    folder("a")
    folder("b")


granted(
    "mounts.nodev",
    ["F20"],
    "device nodes do not work on what a context mounts",
    "mount(tmpfs) and fsmount with SECURE_MOUNT and BINARY_MOUNT",
    _nodev,
    without=BINARY,
    needs=BINARY | ContextCaps.DEV_MOUNT,
    before=_targets,
    expected="nodev, nodev",
    control="dev, dev",
)
