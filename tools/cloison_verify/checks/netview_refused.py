# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the network no context gets unless the host grants it: families, protocols, options, commands, tunnels."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence

from cloison.context import Context
from cloison.devices import DeviceRights, paths
from cloison.flags import Change, NetworkCaps
from cloison.syscall import Vserver
from cloison_verify import netlink
from cloison_verify.catalogue import check, instead
from cloison_verify.networks import (
    NEAR,
    each,
    enter,
    looked,
    makes,
    street,
)
from cloison_verify.scene import Scene, Seen, attempt

AF_ALG, AF_VSOCK, AF_XDP = 38, 40, 44
IPPROTO_SCTP, IPPROTO_UDPLITE, IPPROTO_MPTCP = 132, 136, 262
NETLINK_NETFILTER, NETLINK_CONNECTOR = 12, 11
TCP_REPAIR, UDP_ENCAP, L2TP_IN_UDP, IP_ROUTER_ALERT, IPV6_FLOWLABEL_MGR = 19, 100, 3, 5, 32
SIOCSIFFLAGS, SIOCSIFMTU, SIOCGIFFLAGS, SIOCGIFMTU, SIOCETHTOOL = 0x8914, 0x8922, 0x8913, 0x8921, 0x8946
SIOCSIFADDR, SIOCADDRT = 0x8916, 0x890B
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CAP_NET_ADMIN = 12
ON_HOST = "the same on the host"


def refused(
    identifier: str,
    vectors: Sequence[str],
    *,
    title: str,
    attack: str,
    operation: Callable[[], object],
    expected: str,
    control: str = "ok",
) -> None:
    """Register a check of an operation that is refused in a network context and works on the host."""
    check(
        identifier,
        title=title,
        attack=attack,
        expected=expected,
        control=instead(looked(operation, inside=False), control, ON_HOST),
        vectors=vectors,
    )(looked(operation, inside=True))


def granted(
    identifier: str,
    vectors: Sequence[str],
    *,
    title: str,
    attack: str,
    operation: Callable[[], object],
    cap: NetworkCaps,
) -> None:
    """Register a check that a grant of the host opens what is closed without it."""
    check(
        identifier,
        title=title,
        attack=attack,
        expected="ok",
        control=instead(looked(operation, inside=True), ("EAFNOSUPPORT", "EPROTONOSUPPORT", "EPERM"), "without it"),
        vectors=vectors,
    )(looked(operation, inside=True, caps=cap))


refused(
    "netview.families",
    ["N55", "N56", "N58", "K04"],
    title="sockets of other families are not made in a network context",
    attack="socket() of AF_PACKET, AF_XDP, AF_ALG and AF_VSOCK",
    operation=each(
        {
            "packet": makes(socket.AF_PACKET, socket.SOCK_RAW),
            "xdp": makes(AF_XDP, socket.SOCK_RAW),
            "alg": makes(AF_ALG, socket.SOCK_SEQPACKET),
            "vsock": makes(AF_VSOCK, socket.SOCK_STREAM),
        }
    ),
    expected="EAFNOSUPPORT",
)

granted(
    "netview.families-granted",
    ["N55"],
    title="the host can grant a context other families",
    attack="socket(AF_PACKET) with the grant",
    operation=makes(socket.AF_PACKET, socket.SOCK_RAW),
    cap=NetworkCaps.GRANT_FAMILIES,
)

refused(
    "netview.protocols",
    ["N53"],
    title="protocols that choose addresses for themselves are not there in a network context",
    attack="socket(AF_INET) for MPTCP, SCTP and UDP-Lite",
    operation=each(
        {
            "mptcp": makes(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP),
            "sctp": makes(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP),
            "sctp-sequenced": makes(socket.AF_INET, socket.SOCK_SEQPACKET),
            "udplite": makes(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE),
        }
    ),
    expected="EPROTONOSUPPORT",
)

granted(
    "netview.protocols-granted",
    ["N53"],
    title="the host can grant a context other protocols",
    attack="socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP) with the grant",
    operation=makes(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP),
    cap=NetworkCaps.GRANT_PROTOCOLS,
)

refused(
    "netview.netlink-protocols",
    ["N23", "P50"],
    title="netlink to the firewall and to the connector is not there in a network context",
    attack="socket(AF_NETLINK) for NETLINK_NETFILTER and NETLINK_CONNECTOR",
    operation=each(
        {
            "netfilter": makes(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER),
            "connector": makes(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_CONNECTOR),
        }
    ),
    expected="EPROTONOSUPPORT",
)


def _ordinary() -> str:
    """Make every kind of socket that a server needs."""
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            socket.socket(family, kind).close()
    for protocol in (0, 2, 4, 9, 15, netlink.NETLINK_GENERIC):
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end:
        return f"sockets, family {netlink.family(end, 'nlctrl')}"


check(
    "netview.ordinary",
    title="what servers need is there in a network context",
    attack="sockets of AF_INET, AF_INET6, AF_UNIX and of six kinds of netlink, and a question to one",
    expected="sockets, family 16",
    control=instead(looked(makes(socket.AF_PACKET, socket.SOCK_RAW), inside=True), "EAFNOSUPPORT", "a packet socket"),
    vectors=["N55"],
)(looked(_ordinary, inside=True))


def _option(kind: int, level: int, name: int, value: int | bytes, family: int = socket.AF_INET) -> Callable[[], None]:
    def operation() -> None:
        with socket.socket(family, kind, socket.IPPROTO_ICMP if kind == socket.SOCK_RAW else 0) as end:
            end.setsockopt(level, name, value)

    return operation


_LABEL = socket.inet_pton(socket.AF_INET6, "::1") + struct.pack("!I", 0) + struct.pack("BBHHHI", 0, 255, 1, 6, 6, 0)

refused(
    "netview.options",
    ["N44", "N23"],
    title="socket options that make rules for the machine or forge a connection are refused",
    attack="TCP_REPAIR, UDP_ENCAP for L2TP, IP_ROUTER_ALERT, IPV6_FLOWLABEL_MGR",
    operation=each(
        {
            "repair": _option(socket.SOCK_STREAM, socket.IPPROTO_TCP, TCP_REPAIR, 1),
            "encap": _option(socket.SOCK_DGRAM, socket.IPPROTO_UDP, UDP_ENCAP, L2TP_IN_UDP),
            "alert": _option(socket.SOCK_RAW, socket.IPPROTO_IP, IP_ROUTER_ALERT, 1),
            "label": _option(
                socket.SOCK_DGRAM, socket.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, _LABEL, family=socket.AF_INET6
            ),
        }
    ),
    expected="EPERM",
)


def request(name: str, *values: int, layout: str = "i") -> bytes:
    """Return a struct ifreq."""
    return struct.pack(f"16s{layout}", name.encode(), *(values or (0,))).ljust(40, b"\0")


def command(number: int, data: bytes) -> bytes:
    """Do an ioctl() on a socket and return the changed data."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        return fcntl.ioctl(end, number, data)


def _same(get: int, change: int, layout: str) -> Callable[[], None]:
    def operation() -> None:
        value = struct.unpack_from(layout, command(get, request(NEAR)), 16)[0]
        command(change, request(NEAR, value, layout=layout))

    return operation


def _address() -> None:
    command(SIOCSIFADDR, struct.pack("16sHH4s", b"near0:9", 2, 0, socket.inet_aton("10.77.9.9")).ljust(40, b"\0"))


refused(
    "netview.commands",
    ["N22"],
    title="ioctl() on a socket changes no interface and no address",
    attack="SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFADDR on the interface of the own address",
    operation=each(
        {
            "flags": _same(SIOCGIFFLAGS, SIOCSIFFLAGS, "h"),
            "mtu": _same(SIOCGIFMTU, SIOCSIFMTU, "i"),
            "address": _address,
        }
    ),
    expected="EPERM",
)


def _driver() -> None:
    block = ctypes.create_string_buffer(struct.pack("I", 3), 512)  # ETHTOOL_GDRVINFO
    command(SIOCETHTOOL, struct.pack("16sP", NEAR.encode(), ctypes.addressof(block)).ljust(40, b"\0"))


refused(
    "netview.ethtool",
    ["N31"],
    title="the driver of an interface is not asked",
    attack="SIOCETHTOOL with ETHTOOL_GDRVINFO",
    operation=_driver,
    expected="ENOTSUP",
)


def _tunnel() -> None:
    end = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", b"tunview0", IFF_TUN | IFF_NO_PI).ljust(40, b"\0"))
    finally:
        os.close(end)


refused(
    "netview.tunnel",
    ["N55"],
    title="a network context makes no interface of its own",
    attack="TUNSETIFF on /dev/net/tun",
    operation=_tunnel,
    expected="EPERM",
)


def _bounded_tunnel(scene: Scene, *, caps: NetworkCaps) -> Seen:
    """Make a tunnel in both kinds of contexts, CAP_NET_ADMIN being outside of the bounds."""
    context = Context(scene.xid, Vserver())
    context.set_bound(Change(0, 1 << CAP_NET_ADMIN))
    with paths("c:10:200") as (path, target):
        context.map_device(path, target, DeviceRights.OPEN)
    with street():

        def body() -> Seen:
            enter(caps)
            scene.contexts.enter(scene.xid)
            return attempt(_tunnel)

        return scene.attack(body, inside=False)


check(
    "netview.tunnel-granted",
    title="TUN_CREATE lets a context make tunnels although CAP_NET_ADMIN is not in its bounds",
    attack="TUNSETIFF in a context with the network capability",
    expected="ok",
    control=instead(lambda scene: _bounded_tunnel(scene, caps=NetworkCaps(0)), "EPERM", "without it"),
    vectors=["N55"],
)(lambda scene: _bounded_tunnel(scene, caps=NetworkCaps.TUN_CREATE))
