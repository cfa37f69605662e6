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
from pathlib import Path

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import answering, ask, call, connected, expect_ready, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt

SCM_CREDENTIALS = 2


def named(pid: int, aim: int) -> str:
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
        return named(pid, aim.pid)

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
        return named(pids[0], aim.pid) if pids else "no credentials"

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
    return scene.attack(lambda: attempt(lambda: named(_lock(fcntl.F_GETLK, descriptor), aim.pid)), keep=[descriptor])


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
        return named(info.si_pid, aim.pid) if info else "no signal"

    return scene.attack(lambda: attempt(operation), keep=[queue, go_writing])


def become_somebody() -> None:
    """Take another real user id; the effective one, and with it every capability, stays."""
    os.setresuid(65534, 0, 0)


def told(who: str, sender: int) -> Seen:
    """Say whom a signal's pid and user id, in one text, give away."""
    pid, user = map(int, who.split())
    if pid < 0:
        return Seen("no signal")
    name = "the sender" if pid == sender else "nobody" if pid == 0 else f"{pid}"
    return Seen(f"{name}, user {user}")


def _receive(scene: Scene, *, inside_sender: bool, by_descriptor: bool) -> Seen:
    """Let an insider get SIGUSR1 from the host by ``ctx_kill``, or from its own context by kill(2)."""
    told_reading, told_writing = os.pipe()

    def body(link: Link) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        link.send("ready")
        who = _from_signalfd() if by_descriptor else _from_wait()
        os.write(told_writing, who.encode())
        answering()(link)

    target = expect_ready(scene.insider(body, keep=[told_writing]))
    xid = scene.xid

    def kill() -> None:
        if inside_sender:
            os.kill(target.pid, signal.SIGUSR1)
        else:
            Context(xid, Vserver()).kill(signal.SIGUSR1, target.pid)

    start = scene.insider if inside_sender else scene.outsider
    sender = expect_ready(start(answering({"signal": kill}, become_somebody)))
    ask(sender, "signal")
    if not select.select([told_reading], [], [], 5)[0]:
        return Seen("no signal")
    return told(os.read(told_reading, 32).decode(), sender.pid)


def _from_wait() -> str:
    info = signal.sigtimedwait({signal.SIGUSR1}, 5)
    return f"{info.si_pid} {info.si_uid}" if info else "-1 -1"


def _from_signalfd() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_uint64 * 16)()
    mask[0] = 1 << (signal.SIGUSR1 - 1)
    descriptor = libc.signalfd(-1, mask, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return "{} {}".format(*struct.unpack_from("II", os.read(descriptor, 128), 12))


def _signal_sender(identifier: str, title: str, attack: str, *, by_descriptor: bool) -> None:
    check(
        identifier,
        title=title,
        attack=attack,
        expected="nobody, user 0",
        control=instead(
            lambda scene: _receive(scene, inside_sender=True, by_descriptor=by_descriptor),
            "the sender, user 65534",
            "a signal from the same context",
        ),
        vectors=["P47", "I20"],
    )(lambda scene: _receive(scene, inside_sender=False, by_descriptor=by_descriptor))


_signal_sender(
    "process.signal-sender",
    "a signal from the host names nobody and no user",
    "si_pid and si_uid of a signal that a user of the host sent by ctx_kill",
    by_descriptor=False,
)
_signal_sender(
    "process.signal-sender-descriptor",
    "a signal from the host names nobody and no user on a signalfd",
    "ssi_pid and ssi_uid of a signal that a user of the host sent by ctx_kill",
    by_descriptor=True,
)
