# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: raw and ping sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable

from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import (
    A6,
    HOST,
    HOST6,
    A,
    family,
    inside,
    join,
    outside,
)
from cloison_verify.scene import Scene, Seen, attempt

STREAM, DATAGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW


def in_a(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation in a context with A's addresses."""
    return lambda scene: inside(scene, [A, A6], operation)


PROTOCOL = 253
"""A protocol number for experiments."""


def _header(source: str, to: str) -> bytes:
    if ":" in source:
        packed = [socket.inet_pton(socket.AF_INET6, a) for a in (source, to)]
        return struct.pack("!IHBB", 6 << 28, 4, PROTOCOL, 64) + packed[0] + packed[1] + b"data"
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 24, 1, 0, 64, PROTOCOL, 0)
        + socket.inet_aton(source)
        + socket.inet_aton(to)
        + (b"data")
    )


def forged(source: str, to: str, named: str = "") -> None:
    """Send a packet with a header that names its source, and maybe another destination."""
    with socket.socket(family(to), RAW, socket.IPPROTO_RAW) as end:
        end.sendto(_header(source, named or to), (to, 0))


def forging(source: str, to: str, named: str = "") -> Callable[[], object]:
    """Return the operation `forged` with these arguments."""
    return lambda: forged(source, to, named)


for _name, _foreign, _own, _to in (("4", HOST, A, A), ("6", HOST6, A6, A6)):
    check(
        f"net.forged-header-{_name}",
        title="a header of one's own names an own source",
        attack="a raw packet with the host's address as its source",
        expected="EPERM",
        control=instead(in_a(forging(_own, _to)), "ok", "an address of the context"),
        vectors=["N08"],
    )(in_a(forging(_foreign, _to)))


def heard(to: str, *, confined: bool) -> Probe:
    """Return a probe: a raw socket listens, the host sends itself a packet to `to`; what is heard."""

    def probe(scene: Scene) -> Seen:
        def operation() -> str:
            with socket.socket(family(to), RAW, PROTOCOL) as end:
                end.settimeout(1)
                child = os.fork()
                if child == 0:
                    with contextlib.suppress(OSError):
                        os.write(writing, b"x")
                    os._exit(0)
                os.waitpid(child, 0)
                os.read(reading, 1)
                try:
                    end.recv(256)
                except TimeoutError:
                    return "nothing"
                return "the packet"

        reading, ready = os.pipe()
        go, writing = os.pipe()
        kept = (reading, ready, go, writing)

        def sender(_link: object) -> None:
            os.read(go, 1)
            with socket.socket(family(to), RAW, PROTOCOL) as end:
                end.sendto(b"data", (to, 0))
            os.write(ready, b"y")

        scene.outsider(sender, keep=kept)
        if confined:

            def body() -> Seen:
                join([A, A6])
                return attempt(operation)

            return scene.attack(body, inside=False, keep=kept)
        return scene.attack(lambda: attempt(operation), inside=False, keep=kept)

    def ready_probe(scene: Scene) -> Seen:
        outside(scene, lambda: None)
        return probe(scene)

    return ready_probe


for _name, _to, _own in (("4", HOST, A), ("6", HOST6, A6)):
    check(
        f"net.raw-receive-{_name}",
        title="a raw socket hears what is for its context",
        attack="listen on a raw socket while the host sends itself a packet",
        expected="nothing",
        control=instead(heard(_own, confined=True), "the packet", "a packet to an address of the context"),
        vectors=["N10"],
        seconds=40,
    )(heard(_to, confined=True))


# --- ICMP without the right to raw sockets


def ping_socket(address: str) -> None:
    """Bind a ping socket."""
    with open("/proc/sys/net/ipv4/ping_group_range", "w", encoding="ascii") as stream:
        stream.write("0 2147483647")
    with socket.socket(socket.AF_INET, DATAGRAM, socket.IPPROTO_ICMP) as end:
        end.bind((address, 0))


check(
    "net.ping-bind",
    title="a ping socket is bound to own addresses",
    attack="bind a ping socket to the host's address",
    expected="EADDRNOTAVAIL",
    control=instead(lambda s: inside(s, [A], lambda: ping_socket(A)), "ok", "an address of the context"),
    vectors=["N61"],
)(lambda s: inside(s, [A], lambda: ping_socket(HOST)))
