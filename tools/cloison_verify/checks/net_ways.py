# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: ways out over other interfaces, and by raw sockets that are granted."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from cloison.context import Context
from cloison.flags import Change, NetworkCaps
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import A, join, machine
from cloison_verify.networks import street
from cloison_verify.scene import Scene, Seen, attempt

DATAGRAM = socket.SOCK_DGRAM
IP_PKTINFO, IPV6_PKTINFO = 8, 50
CAP_NET_RAW = 13


# --- interfaces


def over(index: int, to: str) -> None:
    """Send a datagram over an interface that its control message names."""
    six = ":" in to
    number = struct.pack("I", index)
    info = bytes(16) + number if six else number + bytes(8)
    message = (socket.IPPROTO_IPV6, IPV6_PKTINFO, info) if six else (socket.IPPROTO_IP, IP_PKTINFO, info)
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, DATAGRAM) as end:
        end.sendmsg([b"x"], [message], 0, (to, 9))


def scoped(index: int, to: str) -> None:
    """Connect to an address of the link of an interface."""
    with socket.socket(socket.AF_INET6, DATAGRAM) as end:
        end.connect((to, 9, 0, index))


def named(operation: Callable[[int, str], None], to: str, *, far: bool) -> Probe:
    """Return a probe of an operation on an interface, by its number: inside, the far one has no name."""

    def probe(scene: Scene) -> Seen:
        with street() as place:
            index = (place.far if far else place.near).index
            return place.look(scene, lambda: operation(index, to), inside=True)

    return probe


for _name, _operation, _to in (
    ("message-4", over, "10.77.1.99"),
    ("message-6", over, "fd77:1::99"),
    ("scope", scoped, "fe80::99"),
):
    check(
        f"net.device-{_name}",
        title=f"nothing is sent over an interface without an own address, past the routing tables ({_name})",
        attack="name an interface on which the context has no address",
        expected="EPERM",
        control=instead(named(_operation, _to, far=False), "ok", "the interface of an own address"),
        vectors=["N20"],
    )(named(_operation, _to, far=True))


# --- the grant for ICMP


def raw(protocol: int) -> Probe:
    """Return a probe that opens a raw socket of IPv4 with RAW_ICMP, and without CAP_NET_RAW in the bounds."""

    def probe(scene: Scene) -> Seen:
        machine()
        xid = scene.xid
        Context(xid).set_bound(Change(0, 1 << CAP_NET_RAW))

        def body() -> Seen:
            join([A], caps=NetworkCaps.RAW_ICMP)
            scene.contexts.enter(xid)
            return attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).close())

        return scene.attack(body, inside=False)

    return probe


check(
    "net.raw-icmp",
    title="the right to ICMP is one to ICMP of the family",
    attack="a raw socket of IPv4 for the number of ICMPv6, whose header could name any protocol",
    expected="EPERM",
    control=instead(raw(socket.IPPROTO_ICMP), "ok", "for ICMP"),
    vectors=["N10"],
)(raw(socket.IPPROTO_ICMPV6))
