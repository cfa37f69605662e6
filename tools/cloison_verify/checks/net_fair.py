# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: what one of them does to its own sockets and interfaces is not in the way of others."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence

from cloison.flags import NetworkCaps
from cloison.network import Address
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import (
    A6,
    HOST,
    NO_CAPS,
    WAIT,
    A,
    B,
    bound,
    give,
    inside,
    join,
    machine,
    outlived,
    outside,
    port_of,
    server,
    serving,
    who,
)
from cloison_verify.scene import Link, Scene, Seen, attempt

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
IP_LOCAL_PORT_RANGE = 51
IPPROTO_MPTCP = 262
MOVING = "10.77.0.9"


# --- one port for many


def holding(
    kind: socket.SocketKind, a: Sequence[str], one: str, b: Sequence[str], two: str, caps: NetworkCaps = NO_CAPS
) -> Probe:
    """Return a probe: a context with addresses `a` is bound to `one`, then one with `b` binds `two` and the port."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "A", lambda: bound(one, 0, kind), a, caps=caps)
        return inside(scene, b, lambda: bound(two, port, kind).close(), caps=caps)

    return probe


for _name, _kind in (("tcp", STREAM), ("udp", DATAGRAM)):
    check(
        f"net.broadcast-port-{_name}",
        title=f"who is bound to a broadcast address keeps nobody from a port ({_name})",
        attack="bind to 255.255.255.255 and a port in one context, to any address and the port in another",
        expected="ok",
        control=instead(holding(_kind, [A, B], B, [B], "0.0.0.0"), "EADDRINUSE", "an address that both have"),
        vectors=["N62"],
    )(holding(_kind, [A], "255.255.255.255", [B], "0.0.0.0"))
check(
    "net.group-port",
    title="two contexts that may use multicast can be bound to one group and port",
    attack="bind to a group in two contexts",
    expected="ok",
    control=instead(holding(DATAGRAM, [A], A, [A], A), "EADDRINUSE", "an address that both have"),
    vectors=["N62"],
)(holding(DATAGRAM, [A], "239.7.7.9", [B], "239.7.7.9", NetworkCaps.MULTICAST))


def calling(context: Sequence[str], holder: str) -> Probe:
    """Return a probe: `holder` is bound to the four ports that a context may call from, which calls the host."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "host", lambda: bound(HOST))
        first = 45_000 if port < 45_000 or port > 45_003 else 46_000

        def hold(link: Link) -> None:
            join([holder])
            ends = [bound(holder, first + number) for number in range(4)]
            link.send("holds")
            link.receive()
            del ends

        actor = scene.outsider(hold)
        actor.link.receive()

        def call() -> str:
            with socket.socket(socket.AF_INET, STREAM) as end:
                end.settimeout(WAIT)
                end.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("HH", first, first + 3))
                end.connect((HOST, port))
                return end.recv(64).decode().split()[0]

        return inside(scene, context, call)

    return probe


check(
    "net.call-ports",
    title="one context does not use up the ports that others call from",
    attack="bind to all ports that connect() may choose, then connect in another context",
    expected="host",
    control=instead(calling([A], A), "EADDRNOTAVAIL", "both have the address"),
    vectors=["N65"],
    seconds=40,
)(calling([B], A))


def wide(address: str) -> Callable[[], object]:
    """Return an operation that binds to an address of the machine."""

    def operation() -> None:
        bound(address, 0, DATAGRAM).close()

    return operation


def pair(entry: str) -> Probe:
    """Return a probe that binds to the second of two addresses in a context with `entry`."""

    def probe(scene: Scene) -> Seen:
        machine()
        give("10.77.6.1")
        return inside(scene, [entry], wide("10.77.6.1"))

    return probe


check(
    "net.broadcast-pair",
    title="a network of two addresses has no broadcast address",
    attack="bind to the other address of a /31 network",
    expected="EADDRNOTAVAIL",
    control=instead(pair("net:10.77.6.0/31"), "ok", "the network itself in the list"),
    vectors=["N17"],
)(pair("10.77.6.0/31"))


# --- addresses that move on


def inherited(kind: socket.SocketKind, *, remove: bool) -> Probe:
    """Return a probe: a context bound to an address loses it to another one, which serves on any address."""

    def probe(scene: Scene) -> Seen:
        machine()
        give(MOVING)

        def old(link: Link) -> None:
            network = join([A, MOVING])
            end = bound(MOVING, 0, kind)
            link.send(str(port_of(end)))
            link.receive()
            if remove:
                network.remove(Address.parse(MOVING))
            link.send("removed")
            link.receive()
            end.close()

        actor = scene.outsider(old)
        port = int(actor.link.receive())
        actor.link.send("go on")
        actor.link.receive()
        new = scene.outsider(serving("B", lambda: bound("0.0.0.0", port, kind), lambda: join([B, MOVING])))
        said = new.link.receive()
        return Seen(who(MOVING, port, kind) if said.isdecimal() else said.removeprefix("!"))

    return probe


for _name, _kind in (("tcp", STREAM), ("udp", DATAGRAM)):
    check(
        f"net.address-moved-{_name}",
        title=f"who was bound to an address that was taken away is not in the next one's way ({_name})",
        attack="stay bound to an address while the host gives it to another context, which is then called there",
        expected="B",
        control=instead(inherited(_kind, remove=False), "EADDRINUSE", "the address is not taken away"),
        vectors=["N73"],
        seconds=40,
    )(inherited(_kind, remove=True))


def loopback_again(scene: Scene) -> Seen:
    """Keep a listener on 127.0.0.1 of a context that has ended; who answers in a new one of its number?"""
    machine()
    nid, port, kept = outlived(scene, A, "127.0.0.1")

    def new() -> str:
        join([B], nid=nid)
        with bound("127.0.0.1", port) as end, socket.create_connection(("127.0.0.1", port), WAIT):
            end.settimeout(WAIT)
            peer, _ = end.accept()
            peer.close()
            return "the new one"

    with kept:
        return scene.attack(lambda: attempt(new), inside=False)


def twice() -> None:
    """Bind a port of 127.0.0.1 twice."""
    with bound("127.0.0.1") as end:
        bound("127.0.0.1", port_of(end)).close()


check(
    "net.reused-loopback",
    title="a socket of a context that has ended is not in the way of a new one of its number",
    attack="keep a listener on 127.0.0.1, end its context, make one of its number and bind the port there",
    expected="the new one",
    control=instead(lambda s: inside(s, [B], twice), "EADDRINUSE", "the port twice in one context"),
    vectors=["N74"],
    seconds=60,
)(loopback_again)


# --- sockets of the host, and of the kernel


def handed(operation: Callable[[socket.socket], object], kind: socket.SocketKind, *, confined: bool) -> Probe:
    """Return a probe that uses a socket of the host, which is not bound, in a context or on the host."""

    def probe(scene: Scene) -> Seen:
        machine()
        end = socket.socket(socket.AF_INET, kind)

        def body() -> Seen:
            if confined:
                join([A])
            return attempt(operation, end)

        with end:
            return scene.attack(body, inside=False, keep=[end.fileno()])

    return probe


def _connect(end: socket.socket) -> None:
    end.connect((HOST, 9))


def _send(end: socket.socket) -> None:
    end.sendto(b"x", (HOST, 9))


def _listen(end: socket.socket) -> None:
    end.listen(1)


for _name, _operation, _kind in (
    ("connect", _connect, DATAGRAM),
    ("send", _send, DATAGRAM),
    ("listen", _listen, STREAM),
):
    check(
        f"net.passed-{_name}",
        title=f"a socket of the host in a context gets no address of the host ({_name})",
        attack="inherit a socket of the host that is not bound, and use it from inside",
        expected="EPERM",
        control=instead(handed(_operation, _kind, confined=False), "ok", "the host itself"),
        vectors=["N71"],
    )(handed(_operation, _kind, confined=True))


def multipath(*, confined: bool) -> Probe:
    """Return a probe that asks a server of the host from where it was called by MPTCP."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "host", lambda: bound(HOST))

        def call() -> str:
            with socket.socket(socket.AF_INET, STREAM, IPPROTO_MPTCP) as end:
                end.settimeout(WAIT)
                end.connect((HOST, port))
                return end.recv(64).decode().split()[1]

        return inside(scene, [A], call, caps=NetworkCaps.GRANT_PROTOCOLS) if confined else outside(scene, call)

    return probe


check(
    "net.source-mptcp",
    title="a socket of MPTCP calls from an address of its context",
    attack="connect by MPTCP, where the host has granted it",
    expected=A,
    control=instead(multipath(confined=False), HOST, "from the host"),
    vectors=["N53", "N70"],
    seconds=40,
)(multipath(confined=True))


def mapped(*, confined: bool) -> Probe:
    """Return a probe: a server on any address of IPv4, by a socket of IPv6; who answers where?"""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "A", lambda: bound("::ffff:0.0.0.0"), [A, A6] if confined else None)
        return Seen(" ".join(who(one, port) for one in (A, A6, HOST)))

    return probe


check(
    "net.wildcard-mapped",
    title="any address of IPv4 means those of the context, for a socket of IPv6 too",
    attack="listen on ::ffff:0.0.0.0 in a context, and call its addresses and the host's",
    expected="A ECONNREFUSED ECONNREFUSED",
    control=instead(mapped(confined=False), "A ECONNREFUSED A", "a server of the host"),
    vectors=["N13"],
    seconds=40,
)(mapped(confined=True))
