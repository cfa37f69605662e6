# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals do not leave a context: by number, by group, by thread, by queue, to everybody, by file owner."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket

from cloison_verify.acts import (
    KILL,
    answering,
    ask,
    call,
    combined,
    deadly,
    expect_ready,
    fate,
    own_group,
    queued,
    victim,
)
from cloison_verify.catalogue import check, same_context
from cloison_verify.scene import Link, Scene, Seen, attempt

F_SETOWN_EX = 15
F_OWNER_PID, F_OWNER_PGRP = 1, 2


def _sigqueue(pid: int) -> None:
    info = queued(KILL)
    call("rt_sigqueueinfo", pid, KILL, ctypes.addressof(info))


def _tgsigqueue(pid: int) -> None:
    info = queued(KILL)
    call("rt_tgsigqueueinfo", pid, pid, KILL, ctypes.addressof(info))


def _quietly(value: object) -> None:
    """Take a result that says nothing."""


deadly(
    "process.kill",
    ["P07"],
    title="a process outside cannot be killed",
    attack="kill(pid, SIGKILL)",
    operation=lambda pid: os.kill(pid, KILL),
)
deadly(
    "process.kill-group",
    ["P07"],
    title="a process group outside cannot be killed",
    attack="kill(-pgid, SIGKILL)",
    operation=lambda pid: os.kill(-pid, KILL),
    begin=own_group,
)
deadly(
    "process.tkill",
    ["P10"],
    title="a thread outside cannot be killed",
    attack="tkill(tid, SIGKILL)",
    operation=lambda pid: _quietly(call("tkill", pid, KILL)),
)
deadly(
    "process.tgkill",
    ["P10"],
    title="a thread outside cannot be killed by group and thread",
    attack="tgkill(pid, tid, SIGKILL)",
    operation=lambda pid: _quietly(call("tgkill", pid, pid, KILL)),
)
deadly(
    "process.sigqueue",
    ["P11"],
    title="no signal with data reaches a process outside",
    attack="rt_sigqueueinfo(pid, SIGKILL)",
    operation=_sigqueue,
)
deadly(
    "process.tgsigqueue",
    ["P11"],
    title="no signal with data reaches a thread outside",
    attack="rt_tgsigqueueinfo(pid, tid, SIGKILL)",
    operation=_tgsigqueue,
)


@check(
    "process.kill-all",
    title="kill(-1) ends at the wall",
    attack="kill(-1, SIGKILL) as user 0 of a context that holds one more process",
    expected="ok, sibling dead, victim alive",
    control=same_context("ok, sibling dead, victim dead"),
    vectors=["P08"],
)
def kill_all(scene: Scene) -> Seen:
    """Kill everything; the sibling in the same context shows that the call worked at all."""
    sibling = expect_ready(scene.insider(answering()))
    aim = victim(scene)
    seen = scene.attack(lambda: attempt(os.kill, -1, KILL))
    return combined(seen, f"sibling {fate(sibling)}", f"victim {fate(aim)}")


def _signal_by_owner(pid: int, *, extended: int = 0) -> None:
    """Let the kernel send SIGKILL to the owner of a socket that gets data."""
    reading, writing = socket.socketpair()
    if extended:
        fcntl.fcntl(reading, F_SETOWN_EX, extended.to_bytes(4, "little") + pid.to_bytes(4, "little"))
    else:
        fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
    _trigger(reading, writing)


def _trigger(reading: socket.socket, writing: socket.socket) -> None:
    fcntl.fcntl(reading, fcntl.F_SETSIG, KILL)
    fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)
    writing.send(b"x")


deadly(
    "process.file-owner",
    ["P41"],
    title="nobody outside becomes a file's owner",
    attack="F_SETOWN(pid), F_SETSIG(SIGKILL), then data on the socket",
    operation=_signal_by_owner,
)
deadly(
    "process.file-owner-extended",
    ["P41"],
    title="nobody outside becomes a file's owner by F_SETOWN_EX",
    attack="F_SETOWN_EX(F_OWNER_PID), F_SETSIG(SIGKILL), then data on the socket",
    operation=lambda pid: _signal_by_owner(pid, extended=F_OWNER_PID),
)
deadly(
    "process.file-owner-group",
    ["P41"],
    title="no group outside becomes a file's owner",
    attack="F_SETOWN_EX(F_OWNER_PGRP), F_SETSIG(SIGKILL), then data on the socket",
    operation=lambda pid: _signal_by_owner(pid, extended=F_OWNER_PGRP),
    begin=own_group,
)


@check(
    "process.file-owner-inherited",
    title="the signal of a passed file with an owner outside cannot be changed",
    attack="F_SETSIG(SIGKILL) on a socket whose owner is a process outside, then data on it",
    expected=("EPERM, alive", "ESRCH, alive"),
    control=same_context("ok, dead"),
    vectors=["P41"],
)
def file_owner_inherited(scene: Scene) -> Seen:
    """Get a socket from the victim that owns it, and turn its signal into a deadly one."""

    def body(link: Link) -> None:
        reading, writing = socket.socketpair()
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
        link.send("take", [reading.fileno(), writing.fileno()])
        answering()(link)

    aim = scene.victim(body)
    _, descriptors = aim.link.receive_with_descriptors()
    expect_ready(aim)
    reading, writing = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    seen = scene.attack(lambda: attempt(_trigger, reading, writing), keep=descriptors)
    return combined(seen, fate(aim))


@check(
    "process.urgent-data",
    title="urgent data signals nobody outside",
    attack="F_SETOWN(pid), then MSG_OOB on the other end",
    expected="ESRCH, not signalled",
    control=same_context("ok, signalled"),
    vectors=["P43"],
)
def urgent_data(scene: Scene) -> Seen:
    """Send a byte out of band on a socket that is to belong to the victim."""
    arrived: list[int] = []

    def begin() -> None:
        signal.signal(signal.SIGURG, lambda number, _frame: arrived.append(number))

    def operation(pid: int) -> None:
        reading, writing = socket.socketpair()
        fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
        writing.send(b"x", socket.MSG_OOB)

    aim = victim(scene, {"urgent": lambda: "signalled" if arrived else "not signalled"}, begin)
    seen = scene.attack(lambda: attempt(operation, aim.pid))
    return combined(seen, ask(aim, "urgent"))
