# SPDX-License-Identifier: GPL-2.0-or-later
"""What the processes of the process checks do: victims that answer, and calls by number."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cloison_verify.catalogue import check, same_context
from cloison_verify.numbers import number
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt
from cloison_verify.syscalls import syscall

Answers = Mapping[str, Callable[[], object]]


def call(name: str, *arguments: int) -> int:
    """Make a plain system call by name; raises OSError. Addresses are passed as numbers."""
    return syscall(number(name), *arguments)


def answering(answers: Answers | None = None, begin: Callable[[], object] | None = None) -> Callable[[Link], None]:
    """Return a body that first does `begin`, says "ready", and then answers questions for ever."""

    def body(link: Link) -> None:
        if begin is not None:
            begin()
        link.send("ready")
        while True:
            question = link.receive()
            if question == "leave":
                os._exit(0)
            link.send("pong" if question == "ping" else str((answers or {})[question]()))

    return body


def victim(scene: Scene, answers: Answers | None = None, begin: Callable[[], object] | None = None) -> Actor:
    """Start the attack's aim; it answers `answers` and has done `begin`."""
    actor = scene.victim(answering(answers, begin))
    return expect_ready(actor)


def expect_ready(actor: Actor) -> Actor:
    """Wait until an answering process has begun."""
    said = actor.link.receive()
    if said != "ready":
        raise SceneError(said)
    return actor


def ask(actor: Actor, question: str) -> str:
    """Ask an answering process, which must live."""
    actor.link.send(question)
    return actor.link.receive()


def fate(actor: Actor) -> str:
    """Say whether an answering process is "alive" or "dead". It dies of a signal before it can answer."""
    try:
        return "alive" if ask(actor, "ping") == "pong" else "confused"
    except (SceneError, BrokenPipeError, ConnectionResetError):
        return "dead"


def combined(seen: Seen, *more: str) -> Seen:
    """Return what was seen with further sights behind it."""
    return Seen(", ".join([seen.text, *more]), seen.errno)


def number_of(value: int, what: str) -> str:
    """Return `what` for a result that is a number nobody can foretell, such as a descriptor."""
    return what if value >= 0 else str(value)


def aimed(
    identifier: str,
    vectors: Sequence[str],
    *,
    title: str,
    attack: str,
    operation: Callable[[int], object],
    expected: str | Sequence[str] = "ESRCH",
    control: str | Sequence[str] = "ok",
    not_on: Mapping[str, str] | None = None,
    begin: Callable[[], object] | None = None,
) -> None:
    """Register a check of one call that names a process: `operation` gets the victim's pid.

    Outside the attacker's context it must see `expected`, inside the same context `control`.
    """

    def probe(scene: Scene) -> Seen:
        aim = victim(scene, begin=begin)
        return scene.attack(lambda: attempt(operation, aim.pid))

    check(
        identifier,
        title=title,
        attack=attack,
        expected=expected,
        control=same_context(control),
        vectors=vectors,
        not_on=not_on,
    )(probe)


def deadly(
    identifier: str,
    vectors: Sequence[str],
    *,
    title: str,
    attack: str,
    operation: Callable[[int], object],
    expected: str | Sequence[str] = "ESRCH",
    begin: Callable[[], object] | None = None,
) -> None:
    """Register a check of a call that kills: the victim must live, and in the control it must die."""

    def probe(scene: Scene) -> Seen:
        aim = victim(scene, begin=begin)
        seen = scene.attack(lambda: attempt(operation, aim.pid))
        return combined(seen, fate(aim))

    sights = (expected,) if isinstance(expected, str) else expected
    check(
        identifier,
        title=title,
        attack=attack,
        expected=tuple(f"{sight}, alive" for sight in sights),
        control=same_context("ok, dead"),
        vectors=vectors,
    )(probe)


def own_group() -> None:
    """Become the leader of a process group of one's own."""
    os.setpgid(0, 0)


def queued(sig: int) -> ctypes.Array[ctypes.c_uint32]:
    """Return a siginfo for a signal queued by this process (`si_code` SI_QUEUE)."""
    info = (ctypes.c_uint32 * 32)()
    info[0], info[2] = sig, 0xFFFFFFFF
    info[4], info[5] = os.getpid(), 0
    return info


def connected(scene: Scene, name: str, answers: Answers | None = None) -> tuple[Actor, socket.socket]:
    """Return a victim that has connected to a listening stream socket of its own, and that socket."""
    path = Path("/run/cloison", f"{name}-{os.getpid()}")
    path.unlink(missing_ok=True)
    kept: list[socket.socket] = []

    def body(link: Link) -> None:
        listener, end = (socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
        listener.bind(str(path))
        listener.listen(1)
        end.connect(str(path))
        kept.append(end)
        link.send("listener", [listener.fileno()])
        answering(answers)(link)

    aim = scene.victim(body)
    said, descriptors = aim.link.receive_with_descriptors()
    if not descriptors:
        raise SceneError(said)
    path.unlink()
    return expect_ready(aim), socket.socket(fileno=descriptors[0])


KILL = int(signal.SIGKILL)
