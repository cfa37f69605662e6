# SPDX-License-Identifier: GPL-2.0-or-later
"""Terminals: the foreground, the session, the number of it and the end of it stay those of a process outside."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import answering, ask, call, combined, expect_ready, own_group, victim
from cloison_verify.catalogue import check, same_context
from cloison_verify.checks.process_identity import named
from cloison_verify.scene import Link, Placement, Scene, Seen, attempt

TIOCGSID = 0x5429


@check(
    "process.foreground-group",
    title="no group outside gets the foreground of a terminal",
    attack="TIOCSPGRP with a process group outside, on the terminal of one's own session",
    expected=("ESRCH", "EPERM", "ENOTTY"),
    control=same_context("ok"),
    vectors=["P44"],
)
def foreground_group(scene: Scene) -> Seen:
    """Give the terminal, which victim and attacker share, to the victim's group."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    aim = victim(scene, begin=own_group)

    def operation() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        os.tcsetpgrp(slave, aim.pid)

    seen = scene.attack(lambda: attempt(operation), keep=[slave])
    fcntl.ioctl(slave, termios.TIOCNOTTY)
    os.close(master)
    return seen


@check(
    "process.terminal-theft",
    title="the terminal of a session outside cannot be taken",
    attack="TIOCSCTTY with force on the controlling terminal of a session outside",
    expected=("EPERM", "ENOTTY", "EACCES"),
    control=same_context("ok"),
    vectors=["P44"],
)
def terminal_theft(scene: Scene) -> Seen:
    """Take the victim's controlling terminal from a session of one's own."""
    master, slave = os.openpty()

    def body(link: Link) -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        answering()(link)

    expect_ready(scene.victim(body, keep=[slave]))

    def operation() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 1)

    seen = scene.attack(lambda: attempt(operation), keep=[slave])
    os.close(master)
    return seen


@check(
    "process.terminal-session",
    title="the session and group of a terminal outside are not told",
    attack="TIOCGSID and TIOCGPGRP on the master of a terminal of a session outside",
    expected="nobody, nobody",
    control=same_context("the victim, the victim"),
    vectors=["P47"],
)
def terminal_session(scene: Scene) -> Seen:
    """Ask a terminal's master who uses the terminal."""
    master, slave = os.openpty()

    def body(link: Link) -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        answering()(link)

    aim = expect_ready(scene.victim(body, keep=[slave]))

    def look(request: int) -> str:
        return named(struct.unpack("i", fcntl.ioctl(master, request, bytes(4)))[0], aim.pid)

    seen = scene.attack(lambda: combined(attempt(look, TIOCGSID), attempt(look, termios.TIOCGPGRP).text), keep=[master])
    os.close(slave)
    return seen


@check(
    "process.terminal-hangup",
    title="the terminal of a session outside is not hung up",
    attack="vhangup() of a member in the session of a process outside, joined before entering",
    expected="EPERM, not signalled",
    control=same_context("ok, signalled"),
    vectors=["P44", "P07"],
)
def terminal_hangup(scene: Scene) -> Seen:
    """Hang up the terminal that the victim's session has."""
    master, slave = os.openpty()
    xid = scene.xid
    arrived: list[int] = []

    def hang_up() -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                if scene.placement is not Placement.TOGETHER:
                    Context(xid, Vserver()).enter()
                os.write(writing, attempt(lambda: call("vhangup") or None).text.encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        return os.read(reading, 64).decode()

    def body(link: Link) -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, lambda number, _frame: arrived.append(number))
        answering({"hang up": hang_up, "signal": lambda: "signalled" if arrived else "not signalled"})(link)

    aim = expect_ready(scene.victim(body, keep=[slave]))
    answer = ask(aim, "hang up")
    signalled = ask(aim, "signal")  # before the master is closed, which would signal too
    os.close(slave)
    os.close(master)
    return Seen(f"{answer}, {signalled}")
