# SPDX-License-Identifier: GPL-2.0-or-later
"""Pids that travel: credentials, signals, locks and queues name nobody outside; nobody outside can be claimed to be."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import termios
from pathlib import Path

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import answering, ask, call, combined, connected, expect_ready, own_group, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt

SCM_CREDENTIALS = 2
TIOCGSID = 0x5429


def _named(pid: int, aim: int) -> str:
    """Return what a pid gives away."""
    return "the victim" if pid == aim else "nobody" if pid == 0 else f"{pid}"


@check(
    "process.forged-sender",
    title="nobody sends in the name of a process outside",
    attack="SCM_CREDENTIALS with the pid of a process outside",
    expected=("EPERM", "ESRCH"),
    control=same_context("ok"),
    vectors=["P46"],
)
def forged_sender(scene: Scene) -> Seen:
    """Send a message with the victim's pid."""
    aim = victim(scene)

    def operation() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, SCM_CREDENTIALS, struct.pack("iII", aim.pid, 0, 0))])

    return scene.attack(lambda: attempt(operation))


@check(
    "process.peer-credentials",
    title="a peer outside has no pid",
    attack="SO_PEERCRED of a connection from outside",
    expected="nobody",
    control=same_context("the victim"),
    vectors=["P47"],
)
def peer_credentials(scene: Scene) -> Seen:
    """Ask who has connected."""
    aim, listener = connected(scene, "credentials")

    def operation() -> str:
        end, _ = listener.accept()
        pid, _uid, _gid = struct.unpack("iII", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return _named(pid, aim.pid)

    return scene.attack(lambda: attempt(operation), keep=[listener.fileno()])


@check(
    "process.sender-credentials",
    title="a sender outside has no pid",
    attack="SO_PASSCRED on a message from outside",
    expected="nobody",
    control=same_context("the victim"),
    vectors=["P47"],
)
def sender_credentials(scene: Scene) -> Seen:
    """Ask who has sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def body(link: Link) -> None:
        theirs.send(b"hello")
        answering()(link)

    aim = expect_ready(scene.victim(body, keep=[theirs.fileno()]))

    def operation() -> str:
        _, ancillary, _, _ = ours.recvmsg(16, socket.CMSG_SPACE(12))
        pids = [struct.unpack("iII", data[:12])[0] for _, kind, data in ancillary if kind == SCM_CREDENTIALS]
        return _named(pids[0], aim.pid) if pids else "no credentials"

    return scene.attack(lambda: attempt(operation), keep=[ours.fileno()])


def _lock(command: int, descriptor: int) -> int:
    """Set or ask for a write lock on a whole file; return the pid in the answer."""
    answer = fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    kind, pid = struct.unpack("hhqqi4x", answer)[0], struct.unpack("hhqqi4x", answer)[4]
    if command == fcntl.F_GETLK and kind == fcntl.F_UNLCK:
        raise SceneError("the lock is not seen at all")
    return int(pid)


@check(
    "process.lock-owner",
    title="a lock held outside names nobody",
    attack="F_GETLK on a file that a process outside has locked",
    expected=("nobody", "-1"),
    control=same_context("the victim"),
    vectors=["P47"],
)
def lock_owner(scene: Scene) -> Seen:
    """Ask who is in the way."""
    path = Path("/run/cloison", f"lock-{os.getpid()}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    path.unlink()

    def body(link: Link) -> None:
        _lock(fcntl.F_SETLK, descriptor)
        answering()(link)

    aim = expect_ready(scene.victim(body, keep=[descriptor]))
    return scene.attack(lambda: attempt(lambda: _named(_lock(fcntl.F_GETLK, descriptor), aim.pid)), keep=[descriptor])


@check(
    "process.queue-notification",
    title="a message from outside names nobody",
    attack="mq_notify, si_pid of the signal for a message sent outside",
    expected="nobody",
    control=same_context("the victim"),
    vectors=["P47", "I07"],
)
def queue_notification(scene: Scene) -> Seen:
    """Be told of a message by a signal and read who sent it."""
    name = ctypes.create_string_buffer(f"cloison-{os.getpid()}".encode())
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
    queue = call("mq_open", ctypes.addressof(name), flags, 0o600, 0)
    call("mq_unlink", ctypes.addressof(name))
    go_reading, go_writing = os.pipe()

    def body(link: Link) -> None:
        link.send("ready")
        os.read(go_reading, 1)
        text = ctypes.create_string_buffer(b"x")
        call("mq_timedsend", queue, ctypes.addressof(text), 1, 0, 0)
        answering()(link)

    aim = expect_ready(scene.victim(body, keep=[queue, go_reading]))

    def operation() -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        event = ctypes.create_string_buffer(struct.pack("Qii", 0, signal.SIGUSR1, 0) + bytes(48), 64)
        call("mq_notify", queue, ctypes.addressof(event))
        os.write(go_writing, b"x")
        info = signal.sigtimedwait({signal.SIGUSR1}, 5)
        return _named(info.si_pid, aim.pid) if info else "no signal"

    return scene.attack(lambda: attempt(operation), keep=[queue, go_writing])


def _told(pid: int, sender: int) -> str:
    return "the sender" if pid == sender else "nobody" if pid == 0 else f"{pid}"


def _receive(scene: Scene, *, inside_sender: bool, by_descriptor: bool) -> Seen:
    """Let an insider get SIGUSR1 from the host by ``ctx_kill``, or from its own context by kill(2)."""
    told_reading, told_writing = os.pipe()

    def body(link: Link) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        link.send("ready")
        pid = _from_signalfd() if by_descriptor else _from_wait()
        os.write(told_writing, f"{pid}".encode())
        answering()(link)

    target = expect_ready(scene.insider(body, keep=[told_writing]))
    if inside_sender:
        sender = expect_ready(scene.insider(answering({"signal": lambda: os.kill(target.pid, signal.SIGUSR1)})))
        ask(sender, "signal")
        aim = sender.pid
    else:
        Context(scene.xid, Vserver()).kill(signal.SIGUSR1, target.pid)
        aim = os.getpid()
    if not select.select([told_reading], [], [], 5)[0]:
        return Seen("no signal")
    return Seen(_told(int(os.read(told_reading, 16)), aim))


def _from_wait() -> int:
    info = signal.sigtimedwait({signal.SIGUSR1}, 5)
    return info.si_pid if info else -1


def _from_signalfd() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_uint64 * 16)()
    mask[0] = 1 << (signal.SIGUSR1 - 1)
    descriptor = libc.signalfd(-1, mask, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return int(struct.unpack_from("I", os.read(descriptor, 128), 12)[0])


check(
    "process.signal-sender",
    title="a signal from the host names nobody",
    attack="si_pid of a signal that the host sent by ctx_kill",
    expected="nobody",
    control=instead(
        lambda scene: _receive(scene, inside_sender=True, by_descriptor=False),
        "the sender",
        "a signal from the same context",
    ),
    vectors=["P47"],
)(lambda scene: _receive(scene, inside_sender=False, by_descriptor=False))
check(
    "process.signal-sender-descriptor",
    title="a signal from the host names nobody on a signalfd",
    attack="ssi_pid of a signal that the host sent by ctx_kill",
    expected="nobody",
    control=instead(
        lambda scene: _receive(scene, inside_sender=True, by_descriptor=True),
        "the sender",
        "a signal from the same context",
    ),
    vectors=["P47", "I20"],
)(lambda scene: _receive(scene, inside_sender=False, by_descriptor=True))


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
        return _named(struct.unpack("i", fcntl.ioctl(master, request, bytes(4)))[0], aim.pid)

    seen = scene.attack(lambda: combined(attempt(look, TIOCGSID), attempt(look, termios.TIOCGPGRP).text), keep=[master])
    os.close(slave)
    return seen
