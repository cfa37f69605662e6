# SPDX-License-Identifier: GPL-2.0-or-later
"""What files and commands show of the network in a network context: /proc/net, /sys/class/net, ioctl()."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from cloison.flags import NetworkCaps
from cloison_verify import netlink, rtnl
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.netview_refused import ON_HOST, command, request
from cloison_verify.networks import (
    FAR,
    FAR4,
    FAR6,
    NEAR,
    OTHER4,
    OTHER6,
    OWN4,
    OWN6,
    each,
    known,
    looked,
    street,
)
from cloison_verify.scene import Scene, Seen

FILES, CLASS = Path("/proc/self/net"), Path("/sys/class/net")
OPEN = {
    *("dev", "icmp", "icmp6", "if_inet6", "ipv6_route", "netlink", "raw", "raw6"),
    *("route", "tcp", "tcp6", "udp", "udp6", "unix"),
}
CLOSED = ("arp", "packet", "snmp", "sockstat", "ip6_flowlabel", "fib_trie", "igmp", "protocols", "dev_mcast")
IFLA_STATS64 = 23
SIOCGIFCONF, SIOCGIFADDR, SIOCGIFFLAGS, SIOCGIFNAME = 0x8912, 0x8915, 0x8913, 0x8910
LINKS = ("far0 lo near0", "far0 lo near0 and more")


def _lines(name: str) -> list[list[str]]:
    return [line.split() for line in (FILES / name).read_text(encoding="ascii").splitlines()]


def _listing() -> str:
    return "and more" if {path.name for path in FILES.iterdir()} - OPEN else "what is open"


check(
    "netview.proc-files",
    title="/proc/net has the files that ask for each line whose it is",
    attack="readdir(/proc/self/net)",
    expected="what is open",
    control=instead(looked(_listing, inside=False), "and more", ON_HOST),
    vectors=["N46", "N47"],
)(looked(_listing, inside=True))


def _opens(name: str) -> Callable[[], None]:
    def operation() -> None:
        os.close(os.open(FILES / name, os.O_RDONLY))

    return operation


_open_closed = each({name: _opens(name) for name in CLOSED})

check(
    "netview.proc-closed",
    title="the other files of /proc/net are not there",
    attack=f"open() of {', '.join(CLOSED)}",
    expected="ENOENT",
    control=instead(looked(_open_closed, inside=False), "ok", ON_HOST),
    vectors=["N28", "N46", "N47"],
)(looked(_open_closed, inside=True))

_open_open = each({name: _opens(name) for name in sorted(OPEN - {"icmp6"})})

check(
    "netview.proc-open",
    title="the files of /proc/net that programs need are there",
    attack=f"open() of {', '.join(sorted(OPEN))}",
    expected="ok",
    control=instead(looked(_open_closed, inside=True), "ENOENT", "files that are closed"),
    vectors=["N46"],
)(looked(_open_open, inside=True))


def _devices() -> str:
    return known({line[0].rstrip(":") for line in _lines("dev")[2:]}, "lo", NEAR, FAR)


check(
    "netview.proc-dev",
    title="/proc/net/dev lists own interfaces",
    attack="read(/proc/self/net/dev)",
    expected="lo near0",
    control=instead(looked(_devices, inside=False), LINKS, ON_HOST),
    vectors=["N25", "N47"],
)(looked(_devices, inside=True))


def _addresses6() -> str:
    found = {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line[0])) for line in _lines("if_inet6")}
    return known(found, "::1", OWN6, OTHER6, FAR6)


check(
    "netview.proc-if6",
    title="/proc/net/if_inet6 lists own addresses",
    attack="read(/proc/self/net/if_inet6)",
    expected=f"::1 {OWN6}",
    control=instead(
        looked(_addresses6, inside=False),
        [" ".join(sorted(["::1", OWN6, OTHER6, FAR6])) + more for more in ("", " and more")],
        ON_HOST,
    ),
    vectors=["N26"],
)(looked(_addresses6, inside=True))


def _routes4() -> str:
    return known({line[0] for line in _lines("route")[1:]}, NEAR, FAR)


check(
    "netview.proc-route",
    title="/proc/net/route lists routes over own interfaces",
    attack="read(/proc/self/net/route)",
    expected=NEAR,
    control=instead(looked(_routes4, inside=False), ("far0 near0", "far0 near0 and more"), ON_HOST),
    vectors=["N29"],
)(looked(_routes4, inside=True))


def _routes6() -> str:
    lines = _lines("ipv6_route")
    found = {line[-1] for line in lines} & {NEAR, FAR}
    text = "".join(line[0] for line in lines)
    found |= {name for name in (OWN6, OTHER6, FAR6) if socket.inet_pton(socket.AF_INET6, name).hex() in text}
    return known(found, NEAR, FAR, OWN6, OTHER6, FAR6)


check(
    "netview.proc-route6",
    title="/proc/net/ipv6_route lists routes over own interfaces, and names no address of others",
    attack="read(/proc/self/net/ipv6_route)",
    expected=f"{OWN6} {NEAR}",
    control=instead(looked(_routes6, inside=False), " ".join(sorted([NEAR, FAR, OWN6, OTHER6, FAR6])), ON_HOST),
    vectors=["N29"],
)(looked(_routes6, inside=True))


def _folders(scene: Scene, *, inside: bool) -> Seen:
    """List and look up interfaces in sysfs whose names the host has just looked up."""

    def operation() -> str:
        listed = known({path.name for path in CLASS.iterdir()}, "lo", NEAR, FAR)
        paths = (CLASS / FAR / "address", Path("/sys/devices/virtual/net", FAR), CLASS / NEAR / "address")
        return f"{listed}; " + " ".join("there" if path.exists() else "not" for path in paths)

    with street() as place:
        (CLASS / FAR / "address").read_text(encoding="ascii")
        return place.look(scene, operation, inside=inside)


check(
    "netview.sysfs",
    title="/sys/class/net shows own interfaces, also when the host has looked before",
    attack="readdir(/sys/class/net), stat() of another interface there and below /sys/devices",
    expected="lo near0; not not there",
    control=instead(
        lambda scene: _folders(scene, inside=False), [f"{links}; there there there" for links in LINKS], ON_HOST
    ),
    vectors=["N25"],
)(lambda scene: _folders(scene, inside=True))


def _seen_whole() -> str:
    """Say which interfaces of the street are shown, by a file, a command and sysfs."""
    command(SIOCGIFFLAGS, request(FAR, 0))
    os.close(os.open(CLASS / FAR / "queues", os.O_RDONLY))
    return " ".join(sorted({line[0].rstrip(":") for line in _lines("dev")[2:]} & {"lo", NEAR, FAR}))


check(
    "netview.admin-granted",
    title="a context that the host lets look at the whole network does",
    attack="read(/proc/self/net/dev) with the grant",
    expected=LINKS[0],
    control=instead(looked(_devices, inside=True), "lo near0", "without it"),
    vectors=["N25"],
)(looked(_seen_whole, inside=True, caps=NetworkCaps.GRANT_ADMIN))


def _configuration() -> str:
    block = ctypes.create_string_buffer(40 * 64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        answer = fcntl.ioctl(end, SIOCGIFCONF, struct.pack("iP", len(block), ctypes.addressof(block)))
    size = struct.unpack_from("i", answer)[0]
    found = {socket.inet_ntoa(block.raw[at + 20 : at + 24]) for at in range(0, size, 40)}
    return known(found, OWN4, OTHER4, FAR4, "127.0.0.1")


check(
    "netview.ifconf",
    title="SIOCGIFCONF lists own addresses",
    attack="ioctl(SIOCGIFCONF)",
    expected=f"{OWN4} 127.0.0.1",
    control=instead(
        looked(_configuration, inside=False),
        [" ".join(sorted([OWN4, OTHER4, FAR4, "127.0.0.1"])) + more for more in ("", " and more")],
        ON_HOST,
    ),
    vectors=["N25", "N26"],
)(looked(_configuration, inside=True))


def _address_of(name: str) -> str:
    return socket.inet_ntoa(command(SIOCGIFADDR, request(name, 0))[20:24])


check(
    "netview.ifaddr",
    title="SIOCGIFADDR gives the own address of an interface, even if it is not the first",
    attack="ioctl(SIOCGIFADDR) for the own interface",
    expected=OWN4,
    control=instead(looked(lambda: _address_of(NEAR), inside=False), OTHER4, ON_HOST),
    vectors=["N26"],
)(looked(lambda: _address_of(NEAR), inside=True))


def _does(number: int, data: bytes) -> Callable[[], None]:
    def operation() -> None:
        command(number, data)

    return operation


def _names(scene: Scene, *, inside: bool) -> Seen:
    with street() as place:
        numbered = struct.pack("16si", b"", place.far.index).ljust(40, b"\0")
        operation = each(
            {
                "flags": _does(SIOCGIFFLAGS, request(FAR, 0)),
                "name": _does(SIOCGIFNAME, numbered),
                "address": _does(SIOCGIFADDR, request(FAR, 0)),
            }
        )
        return place.look(scene, operation, inside=inside)


check(
    "netview.ifnames",
    title="an interface without an address of the context has neither name nor number",
    attack="ioctl(SIOCGIFFLAGS) and ioctl(SIOCGIFADDR) by name, ioctl(SIOCGIFNAME) by number",
    expected="ENODEV",
    control=instead(lambda scene: _names(scene, inside=False), "ok", ON_HOST),
    vectors=["N25"],
)(lambda scene: _names(scene, inside=True))


def _counters() -> str:
    """Say whether what an interface has carried is shown: in /proc, in sysfs, by netlink."""
    received = int(next(line for line in _lines("dev") if line[0] == "lo:")[1])
    told = int((CLASS / "lo" / "statistics" / "rx_bytes").read_text(encoding="ascii"))
    with rtnl.opened() as end:
        found = rtnl.dump(end, rtnl.RTM_GETLINK, rtnl.link_header())
    parts = next(netlink.attributes(payload[16:]) for _kind, payload in found if payload[4:8] == struct.pack("i", 1))
    counted = struct.unpack_from("Q", parts[IFLA_STATS64], 16)[0]
    return " ".join("something" if number else "zero" for number in (received, told, counted))


def _carried(scene: Scene, *, inside: bool) -> Seen:
    with street() as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"word", ("127.0.0.1", 9))
        return place.look(scene, _counters, inside=inside)


check(
    "netview.counters",
    title="what an interface has carried for all is not shown",
    attack="/proc/net/dev, /sys/class/net/lo/statistics, RTM_GETLINK",
    expected="zero zero zero",
    control=instead(lambda scene: _carried(scene, inside=False), "something something something", ON_HOST),
    vectors=["N47"],
)(lambda scene: _carried(scene, inside=True))
