# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to a process that need no number: parents, groups that span contexts, caches, descriptors, helpers."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import answering, ask, call, combined, connected, expect_ready, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.process_stream import hears_of_fork, libc_mount
from cloison_verify.mounting import MOUNT, grant, own_mounts
from cloison_verify.scene import Scene, Seen, attempt

SO_PEERPIDFD = 77
PTRACE_TRACEME = 0
MS_BIND = 4096
CLONE_PARENT = 0x8000
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SESSION_TO_PARENT = 1, 18


@check(
    "process.peer-pidfd",
    title="no pidfd is made of a peer outside",
    attack="SO_PEERPIDFD of a connection from outside",
    expected="ESRCH",
    control=same_context("a pidfd"),
    vectors=["P13", "P47"],
)
def peer_pidfd(scene: Scene) -> Seen:
    """Ask for the pidfd and do nothing with it."""
    _, listener = connected(scene, "pidfd")

    def operation() -> str:
        end, _ = listener.accept()
        os.close(end.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        return "a pidfd"

    return scene.attack(lambda: attempt(operation), keep=[listener.fileno()])


@check(
    "process.by-number-cached",
    title="/proc/PID of a process outside does not exist, even when the host has just looked at it",
    attack="stat(/proc/PID) and open(/proc/PID/status) with both names in the cache",
    expected="ENOENT, ENOENT",
    control=same_context("ok, ok"),
    vectors=["P02"],
)
def by_number_cached(scene: Scene) -> Seen:
    """Look after the victim itself has filled the cache of names."""

    def warm() -> None:
        os.close(os.open(f"/proc/{os.getpid()}/status", os.O_RDONLY))

    aim = victim(scene, begin=warm)

    def look(path: str) -> None:
        os.stat(path)  # noqa: PTH116

    def body() -> Seen:
        return combined(attempt(look, f"/proc/{aim.pid}"), attempt(look, f"/proc/{aim.pid}/status").text)

    return scene.attack(body)


@check(
    "process.mount-on-proc",
    title="a look at /proc/PID of a process outside undoes nothing there",
    attack="stat(/proc/PID/environ) where the process outside has mounted something",
    expected="ENOENT, mounted",
    control=same_context("ok, mounted"),
    vectors=["P02"],
)
def mount_on_proc(scene: Scene) -> Seen:
    """Look at a hidden name; what is hidden must not be thrown out of the cache with the mounts on it."""

    def path() -> str:
        return f"/proc/{os.getpid()}/environ"

    def mounted() -> str:
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            return "mounted" if f" {path()} " in stream.read() else "unmounted"

    own_mounts()
    grant(scene, MOUNT)
    aim = victim(scene, {"mount": mounted}, lambda: libc_mount(b"/etc/passwd", path().encode(), None, MS_BIND))
    seen = scene.attack(lambda: attempt(lambda: os.stat(f"/proc/{aim.pid}/environ") and None))  # noqa: PTH116
    return combined(seen, ask(aim, "mount"))


def _parent(scene: Scene, *, inside: bool) -> Seen:
    here = os.getpid()
    return scene.attack(
        lambda: Seen({0: "nobody", here: "the parent"}.get(os.getppid(), "somebody else")), inside=inside
    )


check(
    "process.parent",
    title="a parent outside has no number",
    attack="getppid() of a process whose parent stayed outside",
    expected="nobody",
    control=instead(lambda scene: _parent(scene, inside=False), "the parent", "the same on the host"),
    vectors=["P47"],
)(lambda scene: _parent(scene, inside=True))


def _trace_me(scene: Scene, *, inside: bool) -> Seen:
    return scene.attack(lambda: attempt(lambda: call("ptrace", PTRACE_TRACEME, 0, 0, 0) or None), inside=inside)


check(
    "process.trace-me",
    title="nobody makes a parent outside his tracer",
    attack="ptrace(PTRACE_TRACEME) of a process whose parent stayed outside",
    expected="EPERM",
    control=instead(lambda scene: _trace_me(scene, inside=False), "ok", "the same on the host"),
    vectors=["P17"],
)(lambda scene: _trace_me(scene, inside=True))


def _clone(flags: int, *, tid: int = 0) -> str:
    """Start a process by clone3; returns a word. The new process ends at once."""
    tids = (ctypes.c_int32 * 1)(tid)
    words = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, 0 if flags & CLONE_PARENT else signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    if tid:
        words[8], words[9] = ctypes.addressof(tids), 1
    pid = call("clone3", ctypes.addressof(words), 88)
    if pid == 0:
        os._exit(0)
    if not flags & CLONE_PARENT:
        os.waitpid(pid, 0)
    return f"process {pid}" if tid else "a sibling"


def _clone_parent(scene: Scene, *, inside: bool) -> Seen:
    return scene.attack(lambda: attempt(_clone, CLONE_PARENT), inside=inside)


check(
    "process.clone-parent",
    title="no child is made for a parent outside",
    attack="clone3(CLONE_PARENT) of a process whose parent stayed outside",
    expected=("EINVAL", "EPERM"),
    control=instead(lambda scene: _clone_parent(scene, inside=False), "a sibling", "the same on the host"),
    vectors=["P58"],
)(lambda scene: _clone_parent(scene, inside=True))


def _chosen_number(scene: Scene, *, inside: bool) -> Seen:
    wanted = 31_337
    return scene.attack(
        lambda: attempt(lambda: _clone(0, tid=wanted).replace(str(wanted), "of the number")), inside=inside
    )


check(
    "process.chosen-number",
    title="nobody chooses the number of a process",
    attack="clone3 with set_tid",
    expected="EPERM",
    control=instead(lambda scene: _chosen_number(scene, inside=False), "process of the number", "the same on the host"),
    vectors=["P56"],
)(lambda scene: _chosen_number(scene, inside=True))


def _key_to_parent(scene: Scene, *, inside: bool) -> Seen:
    def operation() -> None:
        call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0)
        call("keyctl", KEYCTL_SESSION_TO_PARENT)

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.key-to-parent",
    title="no keyring is pushed on a parent outside",
    attack="keyctl(KEYCTL_SESSION_TO_PARENT) of a process whose parent stayed outside",
    expected="EPERM",
    control=instead(lambda scene: _key_to_parent(scene, inside=False), "ok", "the same on the host"),
)(lambda scene: _key_to_parent(scene, inside=True))


def _wait_for(scene: Scene, *, own: bool) -> Seen:
    """Enter a context and wait for a child that was left outside, or for somebody else's."""
    stranger = expect_ready(scene.outsider(answering()))
    xid = scene.xid

    def body() -> Seen:
        child = os.fork()
        if child == 0:
            time.sleep(0.1)
            os._exit(7)
        Context(xid, Vserver()).enter()
        return attempt(lambda: f"status {os.waitpid(child if own else stranger.pid, 0)[1] >> 8}")

    return scene.attack(body, inside=False)


check(
    "process.wait-for-child",
    title="a child that stayed outside can be waited for",
    attack="enter a context, then waitpid(child outside)",
    expected="status 7",
    control=instead(lambda scene: _wait_for(scene, own=False), "ECHILD", "a process that is no child"),
)(lambda scene: _wait_for(scene, own=True))


@check(
    "process.kill-all-alone",
    title="kill(-1) of a lone process finds nobody",
    attack="kill(-1, 0) as the only process of a context",
    expected="ESRCH",
    control=same_context("ok"),
    vectors=["P08"],
)
def kill_all_alone(scene: Scene) -> Seen:
    """Signal everybody where there is nobody; the victim is outside, or, in the control, the second inside."""
    victim(scene)
    return scene.attack(lambda: attempt(os.kill, -1, 0))


check(
    "process.event-stream-passed",
    title="a passed socket does not switch the stream of process events on",
    attack="PROC_CN_MCAST_LISTEN on a socket that was bound outside",
    expected=("nothing", "EPERM"),
    control=instead(lambda scene: hears_of_fork(scene, inside=False, bound=True), "the fork", "the same on the host"),
    vectors=["P50"],
)(lambda scene: hears_of_fork(scene, inside=True, bound=True))


def _account(scene: Scene, *, inside: bool) -> Seen:
    path = f"/run/cloison/acct-{os.getpid()}"
    Path(path).touch()
    name = ctypes.create_string_buffer(path.encode())

    def operation() -> None:
        call("acct", ctypes.addressof(name))
        call("acct", 0)

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.accounting",
    title="no process accounting from inside",
    attack="acct(file)",
    expected="EPERM",
    control=instead(lambda scene: _account(scene, inside=False), "ok", "the same on the host"),
)(lambda scene: _account(scene, inside=True))


def _core_helper(scene: Scene, *, inside: bool) -> Seen:
    """Crash with a core_pattern that starts a program, and say whether it was started."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text(encoding="ascii")
    mark, helper = Path(f"/run/cloison/core-{os.getpid()}"), Path(f"/run/cloison/helper-{os.getpid()}")
    mark.unlink(missing_ok=True)
    helper.write_text(f"#!/bin/sh\n: > {mark}\n", encoding="ascii")
    helper.chmod(0o700)
    pattern.write_text(f"|{helper}", encoding="ascii")
    try:

        def crash() -> Seen:
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGSEGV)
            os.waitpid(child, 0)
            return Seen("crashed")

        scene.attack(crash, inside=inside)
        until = time.monotonic() + 1.5
        while time.monotonic() < until and not mark.exists():
            time.sleep(0.02)
        return Seen("the helper ran" if mark.exists() else "no helper")
    finally:
        pattern.write_text(before, encoding="ascii")


check(
    "process.core-helper",
    title="a crash inside starts no program of the host",
    attack="a core dump with a pipe in core_pattern",
    expected="no helper",
    control=instead(lambda scene: _core_helper(scene, inside=False), "the helper ran", "a crash on the host"),
    vectors=["F52"],
)(lambda scene: _core_helper(scene, inside=True))
