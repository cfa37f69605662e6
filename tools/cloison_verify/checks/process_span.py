# SPDX-License-Identifier: GPL-2.0-or-later
"""Groups that span contexts, joined before entering, and signals prepared for somebody else: no number is needed."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import KILL, answering, ask, call, combined, expect_ready, fate, own_group, victim
from cloison_verify.catalogue import check, same_context
from cloison_verify.scene import Actor, Link, Placement, Scene, SceneError, Seen, attempt


@check(
    "process.spanning-group",
    title="kill(0) ends at the wall",
    attack="kill(0, SIGTERM) in a process group with a member outside, joined before entering",
    expected="ok, alive",
    control=same_context("ok, dead"),
    vectors=["P07"],
)
def spanning_group(scene: Scene) -> Seen:
    """Join the victim's group, enter, and signal the group without a number."""
    aim = victim(scene, begin=own_group)
    xid = scene.xid

    def body() -> Seen:
        os.setpgid(0, aim.pid)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Context(xid, Vserver()).enter()
        return attempt(os.kill, 0, signal.SIGTERM)

    return combined(scene.attack(body, inside=False), fate(aim))


def _steered_group(
    identifier: str, row: str, attack: str, look: Callable[[], object], change: Callable[[], object]
) -> None:
    """Register a check that steers the attacker's own group, which the victim leads."""

    def probe(scene: Scene) -> Seen:
        aim = victim(scene, {"value": look}, own_group)
        before = ask(aim, "value")
        xid = scene.xid

        def body() -> Seen:
            os.setpgid(0, aim.pid)
            Context(xid, Vserver()).enter()
            return attempt(change)

        seen = scene.attack(body, inside=False)
        return combined(seen, "unchanged" if ask(aim, "value") == before else "changed")

    check(
        identifier,
        title=f"{attack} ends at the wall",
        attack=f"{attack} in a process group with a member outside, joined before entering",
        expected=("ok, unchanged", "ESRCH, unchanged"),
        control=same_context("ok, changed"),
        vectors=[row],
    )(probe)


_steered_group(
    "process.spanning-group-nice",
    "P29",
    "setpriority(PRIO_PGRP, 0)",
    lambda: os.getpriority(os.PRIO_PROCESS, 0),
    lambda: os.setpriority(os.PRIO_PGRP, 0, 11),
)
_steered_group(
    "process.spanning-group-ioprio",
    "P31",
    "ioprio_set(IOPRIO_WHO_PGRP, 0)",
    lambda: call("ioprio_get", 1, 0),
    lambda: call("ioprio_set", 2, 0, 2 << 13 | 6) or None,
)


@check(
    "process.spanning-group-owner",
    title="a file's owner signals nobody outside, though the group reaches there",
    attack="F_SETOWN(-pgid), F_SETSIG(SIGTERM) for a group of one's own that a process outside has joined",
    expected=("ok, alive", "ESRCH, alive", "EPERM, alive"),
    control=same_context("ok, dead"),
    vectors=["P41"],
)
def spanning_group_owner(scene: Scene) -> Seen:
    """Own a group that the victim has joined, and let the kernel signal it."""
    to_victim, from_attacker = os.pipe()
    to_attacker, from_victim = os.pipe()
    xid = scene.xid

    def join(link: Link) -> None:
        link.send("ready")
        os.setpgid(0, int(os.read(to_victim, 16)))
        if scene.placement is Placement.TOGETHER:
            Context(xid, Vserver()).enter()
        os.write(from_victim, b"x")
        answering()(link)

    # Both start outside and go to their places when they are one group.
    aim = expect_ready(scene.outsider(join, keep=[to_victim, from_victim]))

    def body() -> Seen:
        os.setpgid(0, 0)
        os.write(from_attacker, str(os.getpid()).encode())
        os.read(to_attacker, 1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Context(xid, Vserver()).enter()
        return attempt(_signal_group)

    seen = scene.attack(body, keep=[from_attacker, to_attacker], inside=False)
    expect_ready(aim)
    return combined(seen, fate(aim))


def _signal_group() -> None:
    reading, writing = socket.socketpair()
    fcntl.fcntl(reading, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    writing.send(b"x")


@check(
    "process.prepared-signal",
    title="a signal chosen inside is not what an owner outside gets",
    attack="F_SETSIG(SIGKILL) on a passed socket before a process outside becomes its owner",
    expected=("ok, alive", "EPERM, alive"),
    control=same_context("ok, dead"),
    vectors=["P41"],
)
def prepared_signal(scene: Scene) -> Seen:
    """Lay a trap: the victim asks for an ordinary SIGIO, which it ignores, on a socket that we have prepared."""
    reading, writing = socket.socketpair()

    def own() -> str:
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
        writing.send(b"x")
        return "owned"

    def body(link: Link) -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        answering({"own": own})(link)

    aim = expect_ready(scene.victim(body, keep=[reading.fileno(), writing.fileno()]))

    def operation() -> None:
        fcntl.fcntl(reading, fcntl.F_SETSIG, KILL)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)

    seen = scene.attack(lambda: attempt(operation), keep=[reading.fileno()])
    aim.link.send("own")
    return combined(seen, _answer_or_death(aim))


def _answer_or_death(aim: Actor) -> str:
    """Take the answer to a question that may be the victim's last."""
    try:
        aim.link.receive()
    except (SceneError, ConnectionResetError):
        return "dead"
    return fate(aim)
