# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: loopback addresses in packets from outside, ports below 1024, programs that filter packets."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from cloison.abi import MAX_XID
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import A6, HOST, NO_CAPS, WAIT, A, bound, inside, join, machine, port_of
from cloison_verify.rtnl import Link
from cloison_verify.scene import Link as Wire
from cloison_verify.scene import Scene, SceneError, Seen, attempt

DATAGRAM = socket.SOCK_DGRAM
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
NID = MAX_XID - 77
"""Its loopback addresses are known before it exists."""
SO_ATTACH_FILTER = 26
NOBODY = 65534


# Packets with a loopback address, from another machine


@contextlib.contextmanager
def neighbour(*addresses: str) -> Iterator[int]:
    """Make a tunnel interface with these addresses; what is written to the descriptor comes from outside."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", b"edge0", IFF_TUN | IFF_NO_PI).ljust(40, b"\0"))
        link = Link("edge0", socket.if_nametoindex("edge0"))
        link.up()
        for address in addresses:
            link.add(address, 64 if ":" in address else 24)
        yield end
    finally:
        os.close(end)


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def packet(source: str, to: str, port: int, text: bytes) -> bytes:
    """Return a datagram of UDP with its IP header; `text` has an even length."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    length = 8 + len(text)
    pseudo = ends + struct.pack("!HH", socket.IPPROTO_UDP, length)
    head = struct.pack("!HHHH", 9, port, length, 0)
    body = struct.pack("!HHHH", 9, port, length, _sum(pseudo + head + text)) + text
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + ends + body
    first = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0)
    return first[:10] + struct.pack("!H", _sum(first + ends)) + ends + body


def knocking(to: str) -> Probe:
    """Return a probe: a packet to `to` comes from outside; has a context heard it that listens on all addresses?"""
    six = ":" in to
    source, here, own = ("fd78::2", "fd78::1", A6) if six else ("10.78.0.2", "10.78.0.1", A)

    def listen(link: Wire) -> None:
        join([A, A6], nid=NID)
        with bound("::" if six else "0.0.0.0", kind=DATAGRAM) as end:
            end.settimeout(WAIT)
            link.send(str(port_of(end)))
            link.receive()
            link.send(end.recv(64).decode())

    def probe(scene: Scene) -> Seen:
        machine()
        actor = scene.outsider(listen)
        said = actor.link.receive()
        if not said.isdecimal():
            raise SceneError(said)
        with neighbour(here) as end:
            os.write(end, packet(source, to, int(said), b"came"))
            os.write(end, packet(source, own, int(said), b"none"))
        actor.link.send("look")
        return Seen(actor.link.receive())

    return probe


_PART = f"127.{NID >> 8}.{NID & 255}.1"
for _name, _own, _loop in (("4", A, _PART), ("6", A6, f"::{_PART}")):
    check(
        f"net.loopback-outside-{_name}",
        title="the loopback address of a context is not reached from another machine",
        attack=f"a packet to {_loop} on an interface that is not loopback",
        expected="none",
        control=instead(knocking(_own), "came", "a packet to an ordinary address of the context"),
        vectors=["N52"],
        seconds=40,
    )(knocking(_loop))


# Ports below 1024


def low_port(user: int) -> Probe:
    """Return a probe: a member of this user binds port 80 of its own address."""

    def operation() -> None:
        if user:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        bound(A, 80).close()

    return lambda scene: inside(scene, [A], operation)


check(
    "net.low-port",
    title="ports below 1024 are for those with the capability, in a context too",
    attack="bind port 80 of an own address as an ordinary user",
    expected="EACCES",
    control=instead(low_port(0), "ok", "as root of the context"),
    vectors=["N64"],
)(low_port(NOBODY))


# Filters


def _accept_all(end: socket.socket) -> object:
    """Attach a filter that lets everything pass; what keeps it alive is returned."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))
    return code


def filtered(to: str) -> Probe:
    """Return a probe: a member filters for everything while the host sends a datagram to `to`."""

    def listen(link: Wire) -> None:
        join([A, A6], caps=NO_CAPS)
        with bound("0.0.0.0", kind=DATAGRAM) as end:
            kept = _accept_all(end)
            end.settimeout(WAIT)
            link.send(str(port_of(end)))
            link.receive()
            link.send(end.recv(64).decode())
            del kept

    def probe(scene: Scene) -> Seen:
        machine()
        actor = scene.outsider(listen)
        said = actor.link.receive()
        if not said.isdecimal():
            raise SceneError(said)

        def send() -> str:
            with socket.socket(socket.AF_INET, DATAGRAM) as end:
                for text, target in ((b"came", to), (b"none", A)):
                    end.sendto(text, (target, int(said)))
            actor.link.send("look")
            return actor.link.receive()

        return attempt(send)

    return probe


check(
    "net.filter",
    title="a filter sees what its own socket receives",
    attack="SO_ATTACH_FILTER that takes everything, on a socket bound to any address, and a datagram to the host",
    expected="none",
    control=instead(filtered(A), "came", "a datagram to the context"),
    vectors=["N59"],
    seconds=40,
)(filtered(HOST))
