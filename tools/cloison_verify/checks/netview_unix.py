# SPDX-License-Identifier: GPL-2.0-or-later
"""Unix domain sockets across contexts: abstract names, paths, pairs that were passed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextCaps
from cloison.syscall import Vserver
from cloison_verify.catalogue import check, instead
from cloison_verify.nets import join
from cloison_verify.scene import Scene, Seen, attempt

ON_HOST = "the same on the host"
Body = Callable[[], object]


def _abstract(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, str]:
    """Bind an abstract name on the host."""
    end = socket.socket(socket.AF_UNIX, kind)
    name = f"\0netview-{os.getpid()}"
    end.bind(name)
    if kind == socket.SOCK_STREAM:
        end.listen(1)
    return end, name


def _connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(name)


def _send(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(b"word", name)


def _bind(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(name)


def _place(scene: Scene, operation: Body, where: str) -> Seen:
    """Attempt an operation on the host, in a process context or in a network context."""

    def body() -> Seen:
        if where == "network":
            join(())
        return attempt(operation)

    return scene.attack(body, inside=where == "process")


def _named(scene: Scene, act: Callable[[str], None], kind: int, where: str) -> Seen:
    """Do something to an abstract name of the host."""
    end, name = _abstract(kind)
    with end:
        return _place(scene, lambda: act(name), where)


def _name_check(identifier: str, title: str, attack: str, act: Callable[[str], None], kind: int, **words: str) -> None:
    for where in ("process", "network"):
        check(
            f"netview.{identifier}-{where}",
            title=f"{title} (a {where} context)",
            attack=attack,
            expected=words["expected"],
            control=instead(lambda scene: _named(scene, act, kind, "host"), words["control"], ON_HOST),
            vectors=["N35"],
        )(lambda scene, where=where: _named(scene, act, kind, where))  # type: ignore[misc]


_name_check(
    "abstract-connect",
    "an abstract name of the host is not there",
    "connect(@name)",
    _connect,
    socket.SOCK_STREAM,
    expected="ECONNREFUSED",
    control="ok",
)
_name_check(
    "abstract-send",
    "an abstract name of the host gets no datagram",
    "sendto(@name)",
    _send,
    socket.SOCK_DGRAM,
    expected="ECONNREFUSED",
    control="ok",
)
_name_check(
    "abstract-bind",
    "an abstract name that the host has is free",
    "bind(@name)",
    _bind,
    socket.SOCK_STREAM,
    expected="ok",
    control="EADDRINUSE",
)


def _own_name() -> str:
    """Bind and reach an abstract name in one context."""
    end, name = _abstract()
    with end:
        _connect(name)
        return attempt(_bind, name).text


check(
    "netview.abstract-own",
    title="abstract names work inside of a context",
    attack="bind(@name), connect(@name) and a second bind(@name)",
    expected="EADDRINUSE",
    control=instead(lambda scene: _named(scene, _bind, socket.SOCK_STREAM, "process"), "ok", "the host has the name"),
    vectors=["N35"],
)(lambda scene: _place(scene, _own_name, "process"))


def _path(scene: Scene, kind: int, *, inside: bool, grant: bool = False) -> Seen:
    """Reach a socket of the host by a path."""
    path = Path("/run/cloison", f"netview-{os.getpid()}")
    path.unlink(missing_ok=True)
    if grant:
        Context(scene.xid, Vserver()).set_caps(Change(ContextCaps.GRANT_UNIX, ContextCaps.GRANT_UNIX))
    act = _connect if kind == socket.SOCK_STREAM else _send
    with socket.socket(socket.AF_UNIX, kind) as end:
        end.bind(str(path))
        if kind == socket.SOCK_STREAM:
            end.listen(1)
        try:
            return scene.attack(lambda: attempt(act, str(path)), inside=inside)
        finally:
            path.unlink()


for _name, _kind in (("connect", socket.SOCK_STREAM), ("send", socket.SOCK_DGRAM)):
    check(
        f"netview.path-{_name}",
        title=f"a member does not reach a socket of the host by its path: {_name}",
        attack=f"{_name}() to a path in a directory that both see",
        expected="EACCES",
        control=instead(lambda scene, kind=_kind: _path(scene, kind, inside=False), "ok", ON_HOST),  # type: ignore[misc]
        vectors=["N37"],
    )(lambda scene, kind=_kind: _path(scene, kind, inside=True))  # type: ignore[misc]

check(
    "netview.path-granted",
    title="the host can grant a context its sockets",
    attack="connect() to a path of the host with the grant",
    expected="ok",
    control=instead(lambda scene: _path(scene, socket.SOCK_STREAM, inside=True), "EACCES", "without it"),
    vectors=["N37"],
)(lambda scene: _path(scene, socket.SOCK_STREAM, inside=True, grant=True))


def _service(scene: Scene) -> Seen:
    """Reach a socket of the host by a path, in a network context and no process context."""
    path = Path("/run/cloison", f"netview-{os.getpid()}")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(str(path))
        end.listen(1)
        try:
            return _place(scene, lambda: _connect(str(path)), "network")
        finally:
            path.unlink()


check(
    "netview.path-service",
    title="a service of the host that has a network context for its addresses reaches the host's sockets by path",
    attack="connect() to a path in a network context without a process context",
    expected="ok",
    control=instead(lambda scene: _path(scene, socket.SOCK_STREAM, inside=True), "EACCES", "in a process context"),
    vectors=["N37"],
)(_service)


def _pair(scene: Scene, *, inside: bool) -> Seen:
    """Use one end of a connected pair that the host made and passed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def operation() -> str:
        theirs.send(b"word")
        return "sent"

    with ours, theirs:
        seen = scene.attack(lambda: attempt(operation), inside=inside, keep=[theirs.fileno()])
        ours.settimeout(1)
        return Seen(f"{seen.text}, {ours.recv(10).decode()}")


check(
    "netview.passed-pair",
    title="a pair of sockets that the host made and gave away stays connected",
    attack="send() on a datagram socket whose other end is on the host",
    expected="sent, word",
    control=instead(lambda scene: _path(scene, socket.SOCK_DGRAM, inside=True), "EACCES", "a path of the host"),
    vectors=["N38"],
)(lambda scene: _pair(scene, inside=True))
