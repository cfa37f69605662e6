# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: what a socket can be bound to, and beside whom."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from cloison.flags import NETWORK_DEFAULT, NetworkFlags
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import A6, B6, HOST, HOST6, A, B, bound, inside, join, machine, outside, port_of, server, who
from cloison_verify.scene import Link, Scene, Seen, attempt

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
IP_FREEBIND, IP_TRANSPARENT, IPV6_FREEBIND, IPV6_TRANSPARENT = 15, 19, 78, 75
SO_REUSEPORT = 15


def _bind(address: str, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as end:
        end.bind((address, 0))


def _set(level: int, option: int) -> None:
    with socket.socket(socket.AF_INET6 if level == socket.IPPROTO_IPV6 else socket.AF_INET, STREAM) as end:
        end.setsockopt(level, option, 1)


def in_a(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation in a context with A's addresses."""
    return lambda scene: inside(scene, [A, A6], operation)


def on_host(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation on the host."""
    return lambda scene: outside(scene, operation)


def binds(address: str, kind: socket.SocketKind) -> Probe:
    """Return a probe that binds to an address in a context with A's."""
    return in_a(lambda: _bind(address, kind))


def sets(level: int, option: int) -> Callable[[], object]:
    """Return an operation that sets an option of a new socket."""
    return lambda: _set(level, option)


for _name, _row, _address, _kind, _own in (
    ("tcp", "N01", HOST, STREAM, A),
    ("udp", "N02", HOST, DATAGRAM, A),
    ("tcp6", "N14", HOST6, STREAM, A6),
    ("udp6", "N14", HOST6, DATAGRAM, A6),
    ("mapped", "N13", f"::ffff:{HOST}", STREAM, f"::ffff:{A}"),
    ("other-loopback", "N01", "127.0.0.2", STREAM, "127.0.0.1"),
):
    check(
        f"net.bind-{_name}",
        title=f"an address of another is not to be had ({_name})",
        attack=f"bind to {_address} in a context without it",
        expected="EADDRNOTAVAIL",
        control=instead(binds(_own, _kind), "ok", "an address of the context"),
        vectors=[_row],
    )(binds(_address, _kind))


def _raw_bind(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as end:
        end.bind((address, 0))


check(
    "net.bind-raw",
    title="a raw socket is bound to own addresses only",
    attack="bind of a raw socket to the host's address",
    expected="EADDRNOTAVAIL",
    control=instead(in_a(lambda: _raw_bind(A)), "ok", "an address of the context"),
    vectors=["N01"],
)(in_a(lambda: _raw_bind(HOST)))


TCP_REPAIR, TCP_ULP = 19, 31
for _name, _rows, _level, _option in (
    ("freebind", ["N11"], socket.IPPROTO_IP, IP_FREEBIND),
    ("transparent", ["N11"], socket.IPPROTO_IP, IP_TRANSPARENT),
    ("freebind6", ["N11"], socket.IPPROTO_IPV6, IPV6_FREEBIND),
    ("transparent6", ["N11"], socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
    ("tcp-repair", ["N44"], socket.IPPROTO_TCP, TCP_REPAIR),
):
    check(
        f"net.{_name}",
        title=f"an option that goes past addresses and connections is refused ({_name})",
        attack="setsockopt by root of a context",
        expected="EPERM",
        control=instead(on_host(sets(_level, _option)), "ok", "the host"),
        vectors=_rows,
    )(in_a(sets(_level, _option)))


def _nonlocal(address: str) -> None:
    """Bind although the context may not ask for it: the refused option changes nothing."""
    with socket.socket(socket.AF_INET, STREAM) as end:
        attempt(end.setsockopt, socket.IPPROTO_IP, IP_FREEBIND, 1)
        end.bind((address, 0))


check(
    "net.bind-nonlocal",
    title="an address that the machine has not is no way out",
    attack="IP_FREEBIND, then bind to an address that is nowhere",
    expected="EADDRNOTAVAIL",
    control=instead(lambda s: outside(s, lambda: _nonlocal("10.77.9.9")), "ok", "the host"),
    vectors=["N11"],
)(in_a(lambda: _nonlocal("10.77.9.9")))


# --- one port for many


def wildcards(scene: Scene, kind: socket.SocketKind, any_: str, a: Sequence[str], b: Sequence[str]) -> Seen:
    """Open one port on any address in two contexts; say who answers where."""
    _, port = server(scene, "A", lambda: bound(any_, 0, kind), a)
    machine()

    def second(link: Link) -> None:
        join(b)
        seen = attempt(bound, any_, port, kind)
        link.send(seen.errno or "bound")
        if seen.errno:
            return

    actor = scene.outsider(second)
    said = actor.link.receive()
    if said != "bound":
        return Seen(said, said)
    actor.end()
    server(scene, "B", lambda: bound(any_, port, kind), b)
    address = (A6, B6, HOST6) if any_ == "::" else (A, B, HOST)
    return Seen(" ".join(who(one, port, kind) for one in address))


def two(kind: socket.SocketKind, any_: str, a: Sequence[str], b: Sequence[str]) -> Probe:
    """Return the probe `wildcards` with these arguments."""
    return lambda scene: wildcards(scene, kind, any_, a, b)


for _name, _kind, _any, _a, _b, _rows in (
    ("tcp", STREAM, "0.0.0.0", [A], [B], ["N04"]),
    ("udp", DATAGRAM, "0.0.0.0", [A], [B], ["N04"]),
    ("tcp6", STREAM, "::", [A6], [B6], ["N04", "N13"]),
    ("udp6", DATAGRAM, "::", [A6], [B6], ["N04", "N13"]),
):
    _shared = "10.77.0.9" if _any == "0.0.0.0" else "fd77::9"
    check(
        f"net.wildcard-{_name}",
        title=f"two contexts and one port on all of their addresses ({_name})",
        attack="bind to any address and the same port in two contexts, then ask all addresses who is there",
        expected="A B ECONNREFUSED",
        control=instead(
            two(_kind, _any, [*_a, _shared], [*_b, _shared]),
            "EADDRINUSE",
            "contexts that have an address in common",
        ),
        vectors=_rows,
        seconds=40,
    )(two(_kind, _any, _a, _b))


def dual(scene: Scene) -> Seen:
    """Open [::] without v6only in A and 0.0.0.0 in B; ask by both families."""
    _, port = server(scene, "A", lambda: bound("::"), [A, A6])
    server(scene, "B", lambda: bound("0.0.0.0", port), [B])
    return Seen(" ".join(who(one, port) for one in (A, A6, B, HOST, HOST6, B6)))


@check(
    "net.wildcard-dual",
    title="a socket of both families hears the addresses of its context of both, and no others",
    attack="bind [::]:P in A, 0.0.0.0:P in B, then ask all addresses of both families",
    expected="A A B ECONNREFUSED ECONNREFUSED ECONNREFUSED",
    control=instead(
        lambda s: Seen(" ".join(who(one, server(s, "host", lambda: bound("::"))[1]) for one in (A, A6))),
        "host host",
        "a server of the host",
    ),
    vectors=["N13"],
    seconds=40,
)
def wildcard_dual(scene: Scene) -> Seen:
    """See `dual`."""
    return dual(scene)


def beside_host(host: str, mine: str, kind: socket.SocketKind) -> Probe:
    """Return a probe: the host has a port at `host`, a context with A tries it at `mine`."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "host", lambda: bound(host, 0, kind))
        return inside(scene, [A, A6], lambda: bound(mine, port, kind).close())

    return probe


for _name, _host, _mine, _free in (
    ("wildcards", "0.0.0.0", "0.0.0.0", HOST),
    ("host-wildcard", "0.0.0.0", A, HOST),
    ("own-address", A, "0.0.0.0", HOST),
):
    for _kind in (STREAM, DATAGRAM):
        check(
            f"net.conflict-{_name}-{'tcp' if _kind == STREAM else 'udp'}",
            title=f"who can mean the same packet cannot both have the port ({_name})",
            attack=f"bind to {_mine} in a context while the host is bound to {_host}",
            expected="EADDRINUSE",
            control=instead(beside_host(_free, _mine, _kind), "ok", "the host is bound to an address of its own"),
            vectors=["N04"],
        )(beside_host(_host, _mine, _kind))


def _try(address: str, port: int) -> None:
    bound(address, port).close()


def occupied(addresses: Sequence[str]) -> Probe:
    """Return a probe: a context with B holds a port; one with `addresses` counts which binds fail."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "B", lambda: bound(B, 0, STREAM), [B])

        def count() -> str:
            return ", ".join(attempt(_try, a, port).text for a in ("0.0.0.0", addresses[0]))

        return inside(scene, addresses, count)

    return probe


check(
    "net.port-oracle",
    title="a port in use elsewhere does not show",
    attack="bind in a loop to find out which ports another context uses",
    expected="ok, ok",
    control=instead(occupied([B]), "EADDRINUSE, EADDRINUSE", "a context that shares the address"),
    vectors=["N62"],
)(occupied([A]))


def shared(kind: socket.SocketKind, option: int, *, same: bool) -> Probe:
    """Return a probe: two sockets with an option that agrees to share A:P, of one context or of two."""

    def probe(scene: Scene) -> Seen:
        def pair() -> None:
            with bound(A, 0, kind, (option, 1)) as one, bound(A, port_of(one), kind, (option, 1)):
                pass

        if same:
            return inside(scene, [A], pair)
        _, port = server(scene, "A", lambda: bound(A, 0, kind, (option, 1)), [A])
        return inside(scene, [A], lambda: bound(A, port, kind, (option, 1)).close())

    return probe


for _name, _row, _kind, _option in (
    ("reuseport-tcp", "N19", STREAM, SO_REUSEPORT),
    ("reuseport-udp", "N19", DATAGRAM, SO_REUSEPORT),
    ("reuseaddr-udp", "N19", DATAGRAM, socket.SO_REUSEADDR),
):
    check(
        f"net.{_name}",
        title=f"the same user in two contexts is no partner to share a port with ({_name})",
        attack="a second socket on an address and port, both with the option, both of user 0",
        expected="EADDRINUSE",
        control=instead(shared(_kind, _option, same=True), "ok", "both in one context"),
        vectors=[_row],
    )(shared(_kind, _option, same=False))


def single(flags: NetworkFlags) -> Probe:
    """Return a probe that binds to any address and says what it has got."""

    def operation() -> str:
        with bound("0.0.0.0") as end:
            return str(end.getsockname()[0])

    return lambda scene: inside(scene, [A], operation, flags=flags)


check(
    "net.single-ip",
    title="with one address, any means that one",
    attack="bind to 0.0.0.0 in a context with SINGLE_IP",
    expected=A,
    control=instead(single(NETWORK_DEFAULT), "0.0.0.0", "without the flag"),
)(single(NETWORK_DEFAULT | NetworkFlags.SINGLE_IP))
