# SPDX-License-Identifier: GPL-2.0-or-later
"""What a probe works with: attempts that are looked at, processes in their places, contexts.

A probe must wrap the one operation it is about in `attempt`. An error anywhere else means that the
scene could not be set, which fails the check whatever the number of the error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, Protocol


class SceneError(Exception):
    """The scene could not be set."""


@dataclass(frozen=True)
class Seen:
    """What an attempt led to: `text` for people and for comparison, and the error's name if it failed.

    `note` holds figures for the report, which nobody compares.
    """

    text: str
    errno: str | None = None
    note: str = ""


def attempt(operation: Callable[..., object], *arguments: object) -> Seen:
    """Do the operation that the check is about. Success is its value as text ('ok' for None)."""
    try:
        value = operation(*arguments)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        return Seen(name, name)
    return Seen("ok" if value is None else str(value))


class Placement(Enum):
    """Where the attacker and its aim stand."""

    PLAIN = "no context at all"
    APART = "the attacker in a context, its aim outside"
    TOGETHER = "both inside one context"


class Contexts(Protocol):
    """The way to make and enter contexts."""

    def create(self) -> int:
        """Make a context that outlives its creator's call; return its xid."""

    def enter(self, xid: int) -> None:
        """Move the calling process into the context, with all that a guest's process has to have."""

    def destroy(self, xid: int) -> None:
        """End every process of the context and the context itself."""


class Link:
    """One end of a conversation between two processes: short texts, and descriptors if wanted."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def send(self, text: str, descriptors: Iterable[int] = ()) -> None:
        """Send one text."""
        socket.send_fds(self.socket, [text.encode() or b"\0"], list(descriptors))

    def receive(self) -> str:
        """Wait for one text; `SceneError` when the other end is gone."""
        return self.receive_with_descriptors()[0]

    def receive_with_descriptors(self) -> tuple[str, list[int]]:
        """Wait for one text and the descriptors that came with it."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 16)
        if not data:
            raise SceneError("the other process is gone")
        return data.decode().rstrip("\0"), list(descriptors)


@dataclass
class Actor:
    """A process of the scene, and the link to it."""

    pid: int
    link: Link

    def kill(self) -> None:
        """Kill the process, without waiting for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill the process; return its wait status."""
        self.kill()
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            return 0


def close_other_descriptors(keep: Iterable[int]) -> None:
    """Close every descriptor from 3 up that is not in `keep`."""
    low = 3
    for descriptor in sorted({*keep, 1 << 20}):
        if descriptor >= low:
            os.closerange(low, descriptor)
            low = descriptor + 1


class Scene:
    """The processes and contexts of one run of one probe."""

    def __init__(self, placement: Placement, contexts: Contexts) -> None:
        self.placement = placement
        self.contexts = contexts
        self._actors: list[Actor] = []
        self._xid: int | None = None

    @property
    def xid(self) -> int:
        """The attacker's context, made when first asked for."""
        if self._xid is None:
            self._xid = self.contexts.create()
        return self._xid

    def victim(self, body: Callable[[Link], None] | None = None, *, keep: Iterable[int] = ()) -> Actor:
        """Start the attack's aim: outside every context, or inside the attacker's in a control.

        `body` runs in the new process, which waits for its end afterwards; by default it only waits.
        """
        return self._start(body or _wait, inside=self.placement is Placement.TOGETHER, keep=keep)

    def attack(self, body: Callable[[], Seen], *, keep: Iterable[int] = (), inside: bool | None = None) -> Seen:
        """Run `body` in a new process in the attacker's place and return what it saw.

        `inside` overrules the placement, for probes whose control is not the same probe elsewhere.
        """

        def tell(link: Link) -> None:
            seen = body()
            link.send(f"{seen.errno or ''}\n{seen.text}")

        place = self.placement is not Placement.PLAIN if inside is None else inside
        actor = self._start(tell, inside=place, keep=keep)
        name, _, text = actor.link.receive().partition("\n")
        if name == "!":
            raise SceneError(text)
        return Seen(text, name or None)

    def outsider(self, body: Callable[[Link], None], *, keep: Iterable[int] = ()) -> Actor:
        """Start a process that stands outside every context in the attack and in its control."""
        return self._start(body, inside=False, keep=keep)

    def insider(self, body: Callable[[Link], None] | None = None, *, keep: Iterable[int] = ()) -> Actor:
        """Start a process that stands in the attacker's context in the attack and in its control."""
        return self._start(body or _wait, inside=True, keep=keep)

    def close(self) -> None:
        """End the context if one was made, whose processes a plain kill does not reach, and all others."""
        try:
            if self._xid is not None:
                self.contexts.destroy(self._xid)
                self._xid = None
        finally:
            for actor in self._actors:
                actor.kill()  # all of them first: a tracer that lives keeps its tracee from being waited for
            for actor in self._actors:
                actor.end()
                actor.link.socket.close()
            self._actors.clear()

    def _start(self, body: Callable[[Link], None], *, inside: bool, keep: Iterable[int]) -> Actor:
        xid = self.xid if inside else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._act(Link(theirs), body, xid, {theirs.fileno(), *keep})
        theirs.close()
        actor = Actor(pid, Link(ours))
        self._actors.append(actor)
        said = actor.link.receive()
        if said != "here":
            raise SceneError(f"a process of the scene did not reach its place: {said}")
        return actor

    def _act(self, link: Link, body: Callable[[Link], None], xid: int | None, keep: set[int]) -> NoReturn:
        """Be an actor: go to the place, say so, do the part, wait."""
        try:
            close_other_descriptors(keep)
            if xid is not None:
                self.contexts.enter(xid)
            link.send("here")
            body(link)
            _wait(link)
        except BaseException as error:
            with contextlib.suppress(OSError):
                link.send(f"!\n{type(error).__name__}: {error}")
            traceback.print_exc()
        finally:
            os._exit(0)  # whatever happened: an actor never goes on as a copy of the probe


def _wait(_link: Link) -> None:
    """Stay until killed."""
    while True:
        signal.pause()
