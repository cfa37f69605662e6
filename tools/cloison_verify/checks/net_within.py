# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: no way from one loopback address to another, and no source by a back door."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from cloison.abi import MAX_XID
from cloison.flags import NETWORK_DEFAULT, NetworkFlags
from cloison.network import Network
from cloison.syscall import Vserver
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.net_raw import forging
from cloison_verify.nets import (
    A6,
    B6,
    HOST,
    HOST6,
    WAIT,
    A,
    B,
    asked,
    bound,
    family,
    inside,
    join,
    machine,
    port_of,
    serving,
)
from cloison_verify.scene import Scene, SceneError, Seen, attempt

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
NID = MAX_XID - 91
"""A context whose loopback address others know."""
LITERAL = f"::127.{NID >> 8}.{NID & 255}.1"
IP_PKTINFO, IPV6_PKTINFO, IPV6_RECVPKTINFO, SO_PEERNAME = 8, 50, 49, 28
_BARE = NETWORK_DEFAULT & ~(NetworkFlags.LBACK_REMAP | NetworkFlags.HIDE_LBACK)


def in_a(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation in a context with A's addresses."""
    return lambda scene: inside(scene, [A, A6], operation)


# --- the loopback address of IPv6 by its name


def literal(kind: socket.SocketKind, source: str, *, own: bool, flags: NetworkFlags = NETWORK_DEFAULT) -> Probe:
    """Return a probe: a context serves on ::1; it or another one calls what that stands for."""

    def probe(scene: Scene) -> Seen:
        machine()
        actor = scene.outsider(serving("A", lambda: bound("::1", 0, kind), lambda: join([A, A6], nid=NID)))
        said = actor.link.receive()
        if not said.isdecimal():
            raise SceneError(said)

        def call() -> str:
            return asked(LITERAL, int(said), kind, source).split()[0]

        if not own:
            return inside(scene, [B, B6], call, flags=flags)

        def member() -> Seen:
            Network(NID, Vserver()).enter()
            return attempt(call)

        return scene.attack(member, inside=False)

    return probe


for _name, _kind, _source in (("tcp", STREAM, ""), ("udp", DATAGRAM, ""), ("bound", STREAM, "::1")):
    check(
        f"net.loopback-literal-{_name}",
        title=f"what ::1 stands for in another context is not reached by its name ({_name})",
        attack="connect to ::127.x.y.1 with the number of another context, which listens on ::1",
        expected="ECONNREFUSED",
        control=instead(literal(_kind, _source, own=True), "A", "from that context"),
        vectors=["N50"],
        seconds=40,
    )(literal(_kind, _source, own=False))
check(
    "net.loopback-literal-bare",
    title="nor in a context without remapping",
    attack="connect to ::127.x.y.1 with the number of another context, without LBACK_REMAP",
    expected="EADDRNOTAVAIL",
    control=instead(literal(STREAM, "", own=True), "A", "from that context"),
    vectors=["N50"],
    seconds=40,
)(literal(STREAM, "", own=False, flags=_BARE))


for _name, _to, _own in (
    ("4", "127.0.0.1", A),
    ("6", LITERAL, A6),
):
    check(
        f"net.forged-destination-{_name}",
        title="a header of one's own does not lead to a loopback address of others",
        attack=f"a raw packet that is sent to an own address, with {_to} as the destination in its header",
        expected="EPERM",
        control=instead(in_a(forging(_own, _own)), "ok", "an address of the context"),
        vectors=["N08", "N49"] if _name == "4" else ["N08", "N50"],
    )(in_a(forging(_own, _own, _to)))


# --- a loopback address as the source


def from_loopback(loop: str, to: str) -> Callable[[], object]:
    """Return an operation that calls `to` from a socket that is bound to a loopback address."""

    def operation() -> None:
        with socket.socket(family(loop), DATAGRAM) as end:
            end.bind((loop, 0))
            end.connect((to, 9))

    return operation


for _name, _loop, _to, _own, _error in (
    ("4", "127.0.0.1", HOST, A, "EPERM"),
    ("6", "::1", HOST6, A6, "EADDRNOTAVAIL"),
):
    check(
        f"net.loopback-source-{_name}",
        title="nobody outside of a context is called from a loopback address",
        attack=f"bind to {_loop}, then connect to the host's address",
        expected=_error,
        control=instead(in_a(from_loopback(_loop, _own)), "ok", "an address of the context"),
        vectors=["N49"] if _name == "4" else ["N50"],
    )(in_a(from_loopback(_loop, _to)))


# --- a source by a message on a connected socket


def _info(source: str) -> tuple[int, int, bytes]:
    if ":" in source:
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, source) + bytes(4)
    return socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(source) + bytes(4)


def connected(address: str, source: str) -> Callable[[], object]:
    """Return an operation that sends on a connected socket with a source of its own; it says what came from where."""

    def operation() -> str:
        with bound(address, 0, DATAGRAM) as target, socket.socket(family(address), DATAGRAM) as end:
            target.settimeout(WAIT)
            end.connect((address, port_of(target)))
            end.send(b"first")
            target.recv(16)
            end.sendmsg([b"x"], [_info(source)])
            return str(target.recvfrom(16)[1][0])

    return operation


for _name, _to, _foreign in (("4", A, HOST), ("6", A6, HOST6)):
    check(
        f"net.source-connected-{_name}",
        title="a control message gives a connected socket no source but an own one",
        attack="connect, send, then sendmsg with PKTINFO and the address of the host",
        expected=("EPERM", "EINVAL"),
        control=instead(in_a(connected(_to, _to)), _to, "an address of the context"),
        vectors=["N07"] if _name == "6" else ["N05"],
    )(in_a(connected(_to, _foreign)))


def returned(foreign: str) -> Callable[[], object]:
    """Return an operation: a server of datagrams on :: answers from where it was called, or from elsewhere."""

    def operation() -> str:
        with bound("::", 0, DATAGRAM) as end, socket.socket(socket.AF_INET6, DATAGRAM) as client:
            end.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            client.settimeout(WAIT)
            client.sendto(b"?", ("::1", port_of(end)))
            _, messages, _, peer = end.recvmsg(16, 256)
            found = next(m for m in messages if m[1] == IPV6_PKTINFO)
            end.sendmsg([b"!"], [_info(foreign) if foreign else found], 0, peer)
            return str(client.recvfrom(16)[1][0])

    return operation


check(
    "net.loopback-answer",
    title="a server answers from the loopback address that it was called by",
    attack="send back the control message that came with a datagram to ::1",
    expected="::1",
    control=instead(in_a(returned(HOST6)), ("EPERM", "EINVAL"), "the host's address in its place"),
    vectors=["N07"],
)(in_a(returned("")))


# --- names, and what the host may set


def peer_name(flags: NetworkFlags) -> Probe:
    """Return a probe that asks for the peer's name by an option of the socket."""

    def operation() -> str:
        with bound("127.0.0.1") as end, socket.create_connection(("127.0.0.1", port_of(end)), WAIT) as client:
            name = client.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, 16)
            address = struct.unpack_from("4s", name, 4)[0]
        return "127.0.0.1" if address == socket.inet_aton("127.0.0.1") else "what it stands for"

    return lambda scene: inside(scene, [A], operation, flags=flags)


check(
    "net.loopback-hidden-option",
    title="what 127.0.0.1 stands for is not seen by SO_PEERNAME",
    attack="getsockopt SO_PEERNAME after connect to 127.0.0.1",
    expected="127.0.0.1",
    control=instead(peer_name(NETWORK_DEFAULT & ~NetworkFlags.HIDE_LBACK), "what it stands for", "without HIDE_LBACK"),
)(peer_name(NETWORK_DEFAULT))


def set_loopback(address: str) -> Probe:
    """Return a probe: the host sets what 127.0.0.1 stands for."""

    def probe(scene: Scene) -> Seen:
        def operation() -> Seen:
            network = join([A])
            return attempt(network.set_loopback, IPv4Address(address))

        machine()
        return scene.attack(operation, inside=False)

    return probe


check(
    "net.loopback-set",
    title="only a loopback address can stand for 127.0.0.1",
    attack="set_lback with 0.0.0.0, which would be any address",
    expected="EINVAL",
    control=instead(set_loopback("127.7.7.7"), "ok", "an address in 127.0.0.0/8"),
)(set_loopback("0.0.0.0"))
