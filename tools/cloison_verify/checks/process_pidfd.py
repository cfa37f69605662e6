# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors of processes: a pidfd of a process outside is of no use, however it came in."""

from __future__ import annotations

import array
import os
import select
import signal
import socket
from collections.abc import Callable

from cloison_verify.acts import KILL, aimed, answering, call, combined, connected, expect_ready, fate, number_of, victim
from cloison_verify.catalogue import check, same_context
from cloison_verify.scene import Actor, Link, Scene, Seen, attempt

SO_PASSPIDFD, SO_PEERPIDFD, SCM_PIDFD = 76, 77, 4

aimed(
    "process.pidfd-open",
    ["P13"],
    title="no pidfd of a process outside",
    attack="pidfd_open(pid)",
    operation=lambda pid: os.close(os.pidfd_open(pid)),
)


def _carried(scene: Scene, operation: Callable[[int], object]) -> tuple[Actor, Seen]:
    """Attack with a pidfd of the victim that was opened on the host and carried in."""
    aim = victim(scene)
    pidfd = os.pidfd_open(aim.pid)
    return aim, scene.attack(lambda: attempt(operation, pidfd), keep=[pidfd])


def _send_kill(pidfd: int) -> None:
    signal.pidfd_send_signal(pidfd, KILL)


@check(
    "process.pidfd-carried",
    title="a pidfd carried in signals nobody",
    attack="pidfd_send_signal(SIGKILL) on a pidfd opened outside",
    expected="ESRCH, alive",
    control=same_context("ok, dead"),
    vectors=["P13"],
)
def pidfd_carried(scene: Scene) -> Seen:
    """Use a pidfd that no lookup by number has seen."""
    aim, seen = _carried(scene, _send_kill)
    return combined(seen, fate(aim))


@check(
    "process.pidfd-getfd",
    title="no descriptor is taken from a process outside",
    attack="pidfd_getfd(pidfd opened outside, 0)",
    expected=("ESRCH", "EPERM"),
    control=same_context("a descriptor"),
    vectors=["P14"],
)
def pidfd_getfd(scene: Scene) -> Seen:
    """Steal the victim's standard input."""
    _, seen = _carried(scene, lambda pidfd: number_of(call("pidfd_getfd", pidfd, 0, 0), "a descriptor"))
    return seen


@check(
    "process.mrelease",
    title="the memory of a process outside is not reaped",
    attack="process_mrelease(pidfd opened outside)",
    expected="ESRCH",
    control=same_context("EINVAL"),
    vectors=["P40"],
)
def mrelease(scene: Scene) -> Seen:
    """Reap a process that lives: EINVAL says that it was found, and is not dying."""
    _, seen = _carried(scene, lambda pidfd: call("process_mrelease", pidfd, 0))
    return seen


@check(
    "process.pidfd-poll",
    title="the end of a process outside is not told",
    attack="poll(pidfd opened outside) while the process ends",
    expected="no event",
    control=same_context("an event"),
    vectors=["P16"],
)
def pidfd_poll(scene: Scene) -> Seen:
    """Watch a process that ends."""
    aim = victim(scene)
    pidfd = os.pidfd_open(aim.pid)
    aim.link.send("leave")

    def body() -> Seen:
        watch = select.poll()
        watch.register(pidfd, select.POLLIN)
        return Seen("an event" if watch.poll(1500) else "no event")

    return scene.attack(body, keep=[pidfd])


@check(
    "process.pidfd-wait",
    title="a process outside is nobody to wait for",
    attack="waitid(P_PIDFD, pidfd opened outside)",
    expected="ESRCH",
    control=same_context("ECHILD"),
    vectors=["P16"],
)
def pidfd_wait(scene: Scene) -> Seen:
    """Wait for a process that is no child: ECHILD says that it was found."""
    _, seen = _carried(scene, lambda pidfd: os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG))
    return seen


@check(
    "process.pidfd-of-peer",
    title="the pidfd of a peer outside signals nobody",
    attack="SO_PEERPIDFD of a connection from outside, pidfd_send_signal(SIGKILL)",
    expected=("ESRCH, alive", "EPERM, alive"),
    control=same_context("ok, dead"),
    vectors=["P13"],
)
def pidfd_of_peer(scene: Scene) -> Seen:
    """Take the pidfd that the kernel makes for whoever has connected."""
    aim, listener = connected(scene, "peer")

    def operation() -> None:
        end, _ = listener.accept()
        _send_kill(end.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))

    seen = scene.attack(lambda: attempt(operation), keep=[listener.fileno()])
    return combined(seen, fate(aim))


@check(
    "process.pidfd-of-sender",
    title="the pidfd of a sender outside signals nobody",
    attack="SCM_PIDFD of a message from outside, pidfd_send_signal(SIGKILL)",
    expected=("ESRCH, alive", "EPERM, alive", "no pidfd, alive"),
    control=same_context("ok, dead"),
    vectors=["P13"],
)
def pidfd_of_sender(scene: Scene) -> Seen:
    """Take the pidfd that comes with a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)

    def body(link: Link) -> None:
        theirs.send(b"hello")
        answering()(link)

    aim = expect_ready(scene.victim(body, keep=[theirs.fileno()]))

    def operation() -> str | None:
        _, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(64))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SCM_PIDFD):
                descriptor = array.array("i", data[:4])[0]
                if descriptor < 0:
                    return "no pidfd"
                _send_kill(descriptor)
                return None
        return "no pidfd"

    seen = scene.attack(lambda: attempt(operation), keep=[ours.fileno()])
    return combined(seen, fate(aim))
