# SPDX-License-Identifier: GPL-2.0-or-later
"""A street for the checks of what a network context sees: two interfaces, and a context that owns a part of one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloison.flags import NETWORK_DEFAULT, NetworkCaps, NetworkFlags
from cloison_verify.nets import NO_CAPS, join
from cloison_verify.rtnl import Link, dummy
from cloison_verify.scene import Scene, Seen, attempt

OWN4, OTHER4, FAR4 = "10.77.1.1", "10.77.1.2", "10.77.2.1"
OWN6, OTHER6, FAR6 = "fd77:1::1", "fd77:1::2", "fd77:2::1"
NEAR, FAR = "near0", "far0"
"""The interface on which a context has `OWN4` and `OWN6`, and one on which it has nothing."""


def enter(caps: NetworkCaps = NO_CAPS, flags: NetworkFlags = NETWORK_DEFAULT) -> None:
    """Move the calling process into a new network context that owns its part of the street."""
    join((OWN4, OWN6), flags=flags, caps=caps)


@dataclass(frozen=True)
class Street:
    """The interfaces of the street, and what the context that lives in it is granted."""

    near: Link
    far: Link
    caps: NetworkCaps

    def look(self, scene: Scene, operation: Callable[[], object], *, inside: bool, keep: tuple[int, ...] = ()) -> Seen:
        """Attempt `operation` in a new process, in the network context or on the host."""

        def body() -> Seen:
            if inside:
                enter(self.caps)
            return attempt(operation)

        return scene.attack(body, inside=False, keep=keep)


@contextlib.contextmanager
def street(caps: NetworkCaps = NO_CAPS) -> Iterator[Street]:
    """Make the street for the time of a block."""
    Link("lo", 1).up()
    with (
        dummy(NEAR, f"{OTHER4}/24", f"{OWN4}/24", f"{OTHER6}/64", f"{OWN6}/64") as near,
        dummy(FAR, f"{FAR4}/24", f"{FAR6}/64") as far,
    ):
        yield Street(near, far, caps)


def looked(operation: Callable[[], object], *, inside: bool, caps: NetworkCaps = NO_CAPS) -> Callable[[Scene], Seen]:
    """Return a probe of one operation in the street."""

    def probe(scene: Scene) -> Seen:
        with street(caps) as place:
            return place.look(scene, operation, inside=inside)

    return probe


def known(found: set[str], *names: str) -> str:
    """Say which of `names` were found, and whether there was anything else."""
    return " ".join([*sorted(found & set(names)), *(["and more"] if found - set(names) else [])]) or "nothing"


def each(operations: dict[str, Callable[[], object]]) -> Callable[[], str]:
    """Return an operation that attempts several and tells what came of them: one word if it is always the same."""

    def operation() -> str:
        seen = {name: attempt(one).text for name, one in operations.items()}
        if len(set(seen.values())) == 1:
            return next(iter(seen.values()))
        return ", ".join(f"{name}: {text}" for name, text in seen.items())

    return operation


def makes(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
    """Return an operation that makes a socket."""

    def operation() -> None:
        socket.socket(family, kind, protocol).close()

    return operation
