# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups that hold a process outside: what is done to the whole group would be done to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from cloison_verify import netlink
from cloison_verify.acts import answering, combined, expect_ready, fate, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.process_stream import libc_mount, own_group
from cloison_verify.places import delegated
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt

CGROUPSTATS_CMD_GET, CGROUPSTATS_CMD_ATTR_FD = 4, 1


def below(group: Path, actor: Actor) -> None:
    """Move an actor to a group, as the host."""
    (group / "cgroup.procs").write_text(str(actor.pid), encoding="ascii")


def remove_group(group: Path) -> None:
    """Remove a group whose processes are about to end."""
    until = time.monotonic() + 5
    while "populated 1" in (group / "cgroup.events").read_text(encoding="ascii") and time.monotonic() < until:
        time.sleep(0.01)
    group.rmdir()


@contextlib.contextmanager
def _nested(scene: Scene) -> Iterator[tuple[Path, Path]]:
    """Make a group with a group in it, below the check's own; end the scene before they are removed."""
    outer = own_group() / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    try:
        yield outer, inner
    finally:
        try:
            scene.close()
        finally:
            remove_group(inner)
            remove_group(outer)


def _write(path: Path, data: bytes) -> None:
    """Write to a file without creating it."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


@check(
    "process.kill-group-by-file",
    title="cgroup.kill ends at the wall",
    attack="write(cgroup.kill) of a control group that holds a process outside, and of the group above",
    expected="EACCES, EACCES, alive",
    control=same_context("ok, ok, dead"),
    vectors=["P53", "F59"],
)
def kill_group_by_file(scene: Scene) -> Seen:
    """Kill everything in a group below the check's own."""
    with _nested(scene) as (outer, inner):
        aim = victim(scene)
        below(inner, aim)

        def body() -> Seen:
            below_it = attempt(_write, outer / "cgroup.kill", b"1")
            return combined(below_it, attempt(_write, inner / "cgroup.kill", b"1").text)

        return combined(delegated(scene, body), fate(aim))


@check(
    "process.freeze-group",
    title="cgroup.freeze ends at the wall",
    attack="write(cgroup.freeze) of a control group that holds a process outside, and of the group above",
    expected="EACCES, EACCES, not frozen",
    control=same_context("ok, ok, frozen"),
    vectors=["P53", "F59"],
)
def freeze_group(scene: Scene) -> Seen:
    """Freeze a group below the check's own, and thaw it as the host before the victim is asked for anything."""
    with _nested(scene) as (outer, inner):
        aim = victim(scene)
        below(inner, aim)

        def body() -> Seen:
            at_it = attempt(_write, inner / "cgroup.freeze", b"1")
            return combined(at_it, attempt(_write, outer / "cgroup.freeze", b"1").text)

        seen = delegated(scene, body)
        frozen = _frozen(inner)
        for group in (outer, inner):
            _write(group / "cgroup.freeze", b"0")
        if fate(aim) != "alive":
            raise SceneError("the victim has died")
        return combined(seen, "frozen" if frozen else "not frozen")


def _frozen(group: Path) -> bool:
    """Say whether a group freezes within a moment."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        if "frozen 1" in (group / "cgroup.events").read_text(encoding="ascii"):
            return True
        time.sleep(0.01)
    return False


@contextlib.contextmanager
def _old_hierarchy() -> Iterator[Path]:
    """Mount a hierarchy of the first version, which alone has statistics by generic netlink."""
    folder = Path("/run/cloison", f"groups-{os.getpid()}")
    folder.mkdir()
    libc_mount(b"cgroup", str(folder).encode(), b"cgroup", data=f"none,name=check{os.getpid()}".encode())
    try:
        yield folder
    finally:
        unmount(folder)
        folder.rmdir()


def unmount(folder: Path) -> None:
    """Take a mount away."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(str(folder).encode(), 2):
        raise OSError(ctypes.get_errno(), f"umount {folder}")


def _count(folder: Path) -> str:
    """Ask how many tasks of a group run, sleep and wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end:
        family = netlink.family(end, "TASKSTATS")
        wanted = netlink.attribute(CGROUPSTATS_CMD_ATTR_FD, struct.pack("I", descriptor))
        netlink.generic(end, family, CGROUPSTATS_CMD_GET, wanted)
    return "statistics"


def _statistics(scene: Scene, *, inside: bool) -> Seen:
    with _old_hierarchy() as folder:
        try:
            return scene.attack(lambda: attempt(_count, folder), inside=inside)
        finally:
            scene.close()


check(
    "process.group-statistics",
    title="no statistics of a control group",
    attack="CGROUPSTATS_CMD_GET by generic netlink",
    expected="EPERM",
    control=instead(lambda scene: _statistics(scene, inside=False), "statistics", "the same request on the host"),
    vectors=["P49"],
)(lambda scene: _statistics(scene, inside=True))


def _old_list(scene: Scene, *, inside: bool) -> Seen:
    """Read the list, which the kernel keeps for a while, in turns with the host."""
    to_host, from_member = os.pipe()
    to_member, from_host = os.pipe()

    def pids(descriptor: int) -> set[int]:
        return {int(word) for word in os.pread(descriptor, 1 << 16, 0).split()}

    with _old_hierarchy() as folder:

        def host(link: Link) -> None:
            descriptor = os.open(folder / "tasks", os.O_RDONLY)
            pids(descriptor)
            link.send("ready")
            os.read(to_host, 1)
            whole = os.getpid() in pids(descriptor)
            pids(os.open(folder / "tasks", os.O_RDONLY))
            os.write(from_host, b"whole" if whole else b"not whole")

        aim = expect_ready(scene.outsider(answering()))
        expect_ready(scene.outsider(host, keep=[to_host, from_host]))

        def member() -> Seen:
            descriptor = os.open(folder / "tasks", os.O_RDONLY)
            pids(descriptor)
            os.write(from_member, b"x")
            answer = os.read(to_member, 16).decode()
            shown = "the victim" if aim.pid in pids(descriptor) else "nobody"
            return Seen(f"{shown}, the host's list is {answer}")

        try:
            return scene.attack(member, keep=[from_member, to_member], inside=inside)
        finally:
            scene.close()


check(
    "process.old-group-list",
    title="the list of a group's processes is not shared by contexts",
    attack="read(tasks) of a hierarchy of the first version again, after a process outside has read it",
    expected="nobody, the host's list is whole",
    control=instead(
        lambda scene: _old_list(scene, inside=False), "the victim, the host's list is whole", "the same on the host"
    ),
    vectors=["P01", "P47", "P53"],
)(lambda scene: _old_list(scene, inside=True))
