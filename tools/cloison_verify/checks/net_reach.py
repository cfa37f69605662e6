# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: where packets come from, where they go, and the loopback address that each context has."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from cloison.flags import NETWORK_DEFAULT, NetworkCaps, NetworkFlags
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import (
    A6,
    HOST,
    HOST6,
    NO_CAPS,
    A,
    B,
    asked,
    bound,
    family,
    inside,
    outside,
    port_of,
    server,
)
from cloison_verify.scene import Scene, Seen

STREAM, DATAGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
IP_PKTINFO, IPV6_PKTINFO, IP_HDRINCL, IPV6_HDRINCL = 8, 50, 3, 36
PROTOCOL = 253
"""A protocol number for experiments."""


# --- the source that the kernel chooses


def caller(address: str, kind: socket.SocketKind, *, confined: bool) -> Probe:
    """Return a probe that asks a server of the host from where it was called."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "host", lambda: bound(address, 0, kind))

        def operation() -> str:
            return asked(address, port, kind).split()[1]

        return inside(scene, [A, A6], operation) if confined else outside(scene, operation)

    return probe


for _name, _address, _kind, _mine in (
    ("tcp", HOST, STREAM, A),
    ("udp", HOST, DATAGRAM, A),
    ("tcp6", HOST6, STREAM, A6),
    ("udp6", HOST6, DATAGRAM, A6),
):
    check(
        f"net.source-{_name}",
        title=f"without bind, packets come from an address of the context ({_name})",
        attack="connect to the host's address and let the host say who has called",
        expected=_mine,
        control=instead(caller(_address, _kind, confined=False), _address, "from the host"),
        vectors=["N05"],
        seconds=40,
    )(caller(_address, _kind, confined=True))


def in_a(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation in a context with A's addresses."""
    return lambda scene: inside(scene, [A, A6], operation)


def with_source(address: str, source: str) -> Callable[[], object]:
    """Return the operation `sent_to` with these arguments."""
    return lambda: sent_to(address, source)


def sent_to(address: str, source: str) -> str:
    """Send a datagram without connect from a socket that is not bound; say from where it came."""
    with bound(address, 0, DATAGRAM) as target, socket.socket(family(address), DATAGRAM) as end:
        target.settimeout(5)
        kind, info = (
            (IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, source) + struct.pack("I", 0))
            if ":" in address
            else (IP_PKTINFO, struct.pack("I", 0) + socket.inet_aton(source) + bytes(4))
        )
        level = socket.IPPROTO_IPV6 if ":" in address else socket.IPPROTO_IP
        messages = [(level, kind, info)] if source not in ("0.0.0.0", "::") else []
        end.sendmsg([b"x"], messages, 0, (address, port_of(target)))
        return str(target.recvfrom(16)[1][0])


for _name, _to, _foreign, _own in (("4", A, HOST, A), ("6", A6, HOST6, A6)):
    check(
        f"net.source-message-{_name}",
        title="a control message gives no source but an own one",
        attack="sendmsg with PKTINFO and the address of the host",
        expected=("EPERM", "EINVAL"),
        control=instead(in_a(with_source(_to, _own)), _own, "an address of the context"),
        vectors=["N07"] if _name == "6" else ["N05"],
    )(in_a(with_source(_to, _foreign)))

check(
    "net.source-unconnected",
    title="each datagram comes from an address of the context",
    attack="sendto without bind and connect",
    expected=A,
    control=instead(lambda s: outside(s, lambda: sent_to(HOST, "0.0.0.0")), HOST, "from the host to itself"),
    vectors=["N05"],
)(lambda s: inside(s, [A, B], lambda: sent_to(A, "0.0.0.0")))


# --- multicast

_BARE = NETWORK_DEFAULT & ~(NetworkFlags.LBACK_REMAP | NetworkFlags.HIDE_LBACK)


def _join_group() -> None:
    with socket.socket(socket.AF_INET, DATAGRAM) as end:
        group = socket.inet_aton("239.7.7.7") + socket.inet_aton(A)
        end.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)


def _join_group6() -> None:
    with socket.socket(socket.AF_INET6, DATAGRAM) as end:
        group = socket.inet_pton(socket.AF_INET6, "ff05::77") + struct.pack("I", socket.if_nametoindex("lo"))
        end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)


def _bind_group() -> None:
    with socket.socket(socket.AF_INET, DATAGRAM) as end:
        end.bind(("239.7.7.7", 0))


def multicast(operation: Callable[[], object], caps: NetworkCaps) -> Probe:
    """Return a probe of an operation with a group, in a context with these capabilities."""
    return lambda scene: inside(scene, [A, A6], operation, caps=caps)


for _name, _operation, _error in (
    ("join", _join_group, "EPERM"),
    ("join6", _join_group6, "EPERM"),
    ("bind", _bind_group, "EADDRNOTAVAIL"),
):
    check(
        f"net.multicast-{_name}",
        title=f"groups are for contexts that may ({_name})",
        attack="a multicast group in a context without MULTICAST",
        expected=_error,
        control=instead(multicast(_operation, NetworkCaps.MULTICAST), "ok", "with MULTICAST"),
        vectors=["N16"],
    )(multicast(_operation, NO_CAPS))


def broadcast(address: str, configured: str) -> Probe:
    """Return a probe that binds to a broadcast address in a context with one address."""

    def operation() -> None:
        with socket.socket(socket.AF_INET, DATAGRAM) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            end.bind((address, 0))

    return lambda scene: inside(scene, [configured], operation)


check(
    "net.broadcast",
    title="a broadcast address is own only with its network",
    attack="bind to the broadcast address of another network",
    expected="EADDRNOTAVAIL",
    control=instead(broadcast("127.255.255.255", "127.0.0.9/8"), "ok", "that of the network of an own address"),
    vectors=["N17"],
)(broadcast("127.255.255.255", A))


def device(name: str, configured: str) -> Probe:
    """Return a probe that binds a socket to an interface."""

    def operation() -> None:
        with socket.socket(socket.AF_INET, DATAGRAM) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())

    return lambda scene: inside(scene, [configured], operation, flags=_BARE)


check(
    "net.bind-device",
    title="a socket is bound to interfaces with an own address only",
    attack="SO_BINDTODEVICE to an interface without an address of the context",
    expected=("EPERM", "ENODEV"),
    control=instead(device("lo", A), "ok", "an address of the context is on it"),
    vectors=["N20"],
)(device("lo", "10.77.5.5"))


def nobody(address: str, confined_to: list[str]) -> Probe:
    """Return a probe that creates a socket in a context without remapping."""

    def operation() -> None:
        with socket.socket(family(address), STREAM):
            pass

    return lambda scene: inside(scene, confined_to, operation, flags=_BARE)


for _name, _address, _without, _with in (("4", A, [A6], [A]), ("6", A6, [A], [A6])):
    check(
        f"net.socket-{_name}",
        title="without an address of a family there are no sockets of it",
        attack="socket() in a context without an address of the family",
        expected="EAFNOSUPPORT",
        control=instead(nobody(_address, _with), "ok", "a context with one"),
    )(nobody(_address, _without))
