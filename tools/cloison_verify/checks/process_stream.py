# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams and tables about processes: statistics, events, audit records, control groups, numbers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from pathlib import Path

from cloison.context import Context
from cloison.flags import Spaces
from cloison.launch import Launch, run_child
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify import netlink
from cloison_verify.acts import answering, expect_ready, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.places import delegated
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt

TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_PID = 1, 1
CN_IDX_PROC, CN_VAL_PROC, PROC_CN_MCAST_LISTEN, PROC_CN_MCAST_IGNORE = 1, 1, 1, 2
AUDIT_USER, AUDIT_NLGRP_READLOG = 1005, 1
GROUPS = Path("/sys/fs/cgroup")


def _statistics(pid: int) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end:
        number = netlink.family(end, "TASKSTATS")
        netlink.generic(
            end, number, TASKSTATS_CMD_GET, netlink.attribute(TASKSTATS_CMD_ATTR_PID, struct.pack("I", pid))
        )
    return "statistics"


def _taskstats(scene: Scene, *, inside: bool) -> Seen:
    aim = expect_ready(scene.outsider(answering()))
    return scene.attack(lambda: attempt(_statistics, aim.pid), inside=inside)


check(
    "process.taskstats",
    title="no statistics of a process outside",
    attack="TASKSTATS_CMD_GET by generic netlink",
    expected="EPERM",
    control=instead(lambda scene: _taskstats(scene, inside=False), "statistics", "the same request on the host"),
    vectors=["P49"],
)(lambda scene: _taskstats(scene, inside=True))


def _hear_of(parent: int, end: socket.socket, seconds: float) -> bool:
    """Say whether the process connector tells of a fork of `parent` within the time."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        end.settimeout(left)
        with contextlib.suppress(TimeoutError):
            event = end.recv(4096)[16 + 20 :]
            what, pid = struct.unpack_from("I12xI", event)
            if what == 1 and pid == parent:
                return True
    return False


def _switch_events(end: socket.socket, order: int) -> None:
    order_message = struct.pack("IIIIHHI", CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, 0, order)
    end.send(netlink.message(netlink.NLMSG_DONE, 0, order_message))


def hears_of_fork(scene: Scene, *, inside: bool, bound: bool) -> Seen:
    """Listen while a process outside forks; with `bound` on a socket that was bound outside and passed in."""
    reading, writing = os.pipe()

    def fork_when_told(link: Link) -> None:
        link.send("ready")
        os.read(reading, 1)
        if os.fork() == 0:
            os._exit(0)
        os.wait()

    aim = expect_ready(scene.outsider(fork_when_told, keep=[reading]))
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, netlink.NETLINK_CONNECTOR)
    if bound:
        end.bind((0, CN_IDX_PROC))

    def operation() -> str:
        if not bound:
            end.bind((0, CN_IDX_PROC))
        _switch_events(end, PROC_CN_MCAST_LISTEN)
        os.write(writing, b"x")
        heard = _hear_of(aim.pid, end, 1.0)
        _switch_events(end, PROC_CN_MCAST_IGNORE)  # or the kernel goes on telling whoever is bound
        return "the fork" if heard else "nothing"

    with end:
        return scene.attack(lambda: attempt(operation), keep=[writing, end.fileno()], inside=inside)


check(
    "process.event-stream",
    title="the stream of process events tells of nobody outside",
    attack="NETLINK_CONNECTOR, CN_IDX_PROC, while a process outside forks",
    expected="EPERM",
    control=instead(
        lambda scene: hears_of_fork(scene, inside=False, bound=False), "the fork", "the same socket on the host"
    ),
    vectors=["P50"],
)(lambda scene: hears_of_fork(scene, inside=True, bound=False))


def _audit(scene: Scene, *, inside: bool) -> Seen:
    def operation() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_AUDIT) as end:
            netlink.request(end, AUDIT_USER, b"op=forged\0", netlink.NLM_F_REQUEST | netlink.NLM_F_ACK)

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.audit-record",
    title="no audit record is forged",
    attack="AUDIT_USER by netlink",
    expected=("ECONNREFUSED", "EPERM", "EPROTONOSUPPORT"),
    control=instead(lambda scene: _audit(scene, inside=False), "ok", "the same message on the host"),
    vectors=["P52"],
)(lambda scene: _audit(scene, inside=True))


def _audit_log(scene: Scene, *, inside: bool) -> Seen:
    def operation() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_AUDIT) as end:
            end.bind((0, AUDIT_NLGRP_READLOG))

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.audit-log",
    title="the audit log is not read",
    attack="bind to the multicast group of NETLINK_AUDIT",
    expected="EPERM",
    control=instead(lambda scene: _audit_log(scene, inside=False), "ok", "the same socket on the host"),
    vectors=["P52"],
)(lambda scene: _audit_log(scene, inside=True))


def own_group() -> Path:
    """Return the folder of the caller's control group."""
    line = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1]
    return GROUPS / line.rpartition(":")[2].lstrip("/")


@check(
    "process.move-group",
    title="a process outside is not moved to another control group",
    attack="write(cgroup.procs) with the pid of a process outside",
    expected=("ESRCH", "EACCES", "EPERM"),
    control=same_context("ok"),
    vectors=["P53"],
)
def move_group(scene: Scene) -> Seen:
    """Move the victim to a group below the check's own, and back."""
    aim = victim(scene)
    home = own_group()
    target = home / "moved"
    target.mkdir()

    def move(folder: Path) -> None:
        descriptor = os.open(folder / "cgroup.procs", os.O_WRONLY)
        try:
            os.write(descriptor, str(aim.pid).encode())
        finally:
            os.close(descriptor)

    try:
        return delegated(scene, lambda: attempt(move, target))
    finally:
        move(home)
        target.rmdir()


class _Reader(System):
    """Stands in for the command: prints what its own files tell of the host."""

    def __init__(self, words: dict[str, str]) -> None:
        super().__init__()
        self._words = words

    def execute(self, argv: object, environment: object) -> None:
        """Look for words of the host in /proc/self."""
        found = []
        for name, word in self._words.items():
            with open(f"/proc/self/{name}", encoding="utf-8") as stream:
                found += [name] if word in stream.read() else []
        os.write(1, (", ".join(found) or "nothing of the host").encode())
        os._exit(0)


def _own_files(scene: Scene, *, inside: bool) -> Seen:
    """Say which files of /proc/self show where the host keeps the context."""
    folder = Path("/run/cloison", f"guest-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    words = {"cgroup": own_group().name, "mountinfo": folder.name}
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)

    def enter(link: Link) -> None:
        libc_mount(b"guest", str(folder).encode(), b"tmpfs")
        (folder / "proc").mkdir()
        libc_mount(b"proc", str(folder / "proc").encode(), b"proc")
        if inside:
            launch = Launch(("look",), {}, new_spaces=Spaces.MOUNT | Spaces.CGROUP, root=str(folder))
            run_child(
                launch,
                Context(scene.xid, Vserver()),
                _Reader(words),
                report=link.socket.fileno(),
                streams={1: writing},
                terminal=None,
            )
        os.dup2(writing, 1)
        _Reader(words).execute((), {})

    if inside:
        assert scene.xid  # made here, so that the actor below finds it
    scene.outsider(enter, keep=[writing])
    os.close(writing)
    data = os.read(reading, 4096).decode()
    if not data:
        raise SceneError("nothing was read")
    return Seen(data)


def libc_mount(source: bytes, target: bytes, kind: bytes | None, flags: int = 0, data: bytes | None = None) -> None:
    """Mount a file system, or with flags whatever mount(2) does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, target, kind, ctypes.c_ulong(flags), data):
        raise OSError(ctypes.get_errno(), f"mount {target!r}")


check(
    "process.own-files",
    title="a process's own files name nothing of the host",
    attack="/proc/self/{cgroup,mountinfo} in a context run below its own root with its own namespaces",
    expected="nothing of the host",
    control=instead(lambda scene: _own_files(scene, inside=False), "cgroup, mountinfo", "the same files on the host"),
    vectors=["P55"],
)(lambda scene: _own_files(scene, inside=True))


def _gap(scene: Scene, *, namespace: bool) -> Seen:
    """Fork before and after ten forks of somebody outside and say whether the numbers tell."""
    to_them, from_us = os.pipe()
    to_us, from_them = os.pipe()

    def fork_when_told(link: Link) -> None:
        link.send("ready")
        os.read(to_them, 1)
        for _ in range(10):
            _child()
        os.write(from_them, b"x")

    expect_ready(scene.outsider(fork_when_told, keep=[to_them, from_them]))

    def body() -> Seen:
        if namespace:
            System().unshare(int(Spaces.PID))
            if (pid := os.fork()) != 0:
                return Seen(("numbers of one's own", "the forks show")[os.waitpid(pid, 0)[1] >> 8])
        first = _child()
        os.write(from_us, b"x")
        os.read(to_us, 1)
        shows = _child() - first > 10
        if namespace:
            os._exit(int(shows))
        return Seen("the forks show" if shows else "numbers of one's own")

    return scene.attack(body, keep=[from_us, to_us], inside=not namespace)


def _child() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


check(
    "process.pid-numbers",
    title="numbers of processes are the host's, as documented: forks outside leave gaps",
    attack="own successive pids around forks of a process outside",
    expected="the forks show",
    control=instead(lambda scene: _gap(scene, namespace=True), "numbers of one's own", "in a pid namespace"),
    vectors=["P56"],
)(lambda scene: _gap(scene, namespace=False))
