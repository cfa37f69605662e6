# SPDX-License-Identifier: GPL-2.0-or-later
"""What netlink shows in a network context, and that it changes nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from cloison_verify import netlink, rtnl
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.netview_refused import ON_HOST, refused
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

SPARE4, NEIGHBOUR4 = "10.77.1.9", "10.77.1.50"


def _near() -> rtnl.Link:
    return rtnl.Link(NEAR, socket.if_nametoindex(NEAR))


def _index(name: str = NEAR) -> bytes:
    return struct.pack("i", socket.if_nametoindex(name))


def _rule() -> None:
    body = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
    body += netlink.attribute(6, struct.pack("I", 31999))
    rtnl.change(rtnl.RTM_NEWRULE, body, rtnl.NLM_F_CREATE)
    rtnl.change(rtnl.RTM_DELRULE, body)


def _route() -> None:
    body = rtnl.route_header(socket.AF_INET, 24) + netlink.attribute(rtnl.RTA_DST, rtnl.packed("10.88.0.0"))
    rtnl.change(rtnl.RTM_NEWROUTE, body + netlink.attribute(rtnl.RTA_OIF, _index()), rtnl.NLM_F_CREATE)


def neighbour(name: str = NEAR) -> None:
    """Add a neighbour to an interface."""
    index = socket.if_nametoindex(name)
    body = rtnl.neighbour_header(socket.AF_INET, index) + netlink.attribute(rtnl.NDA_DST, rtnl.packed(NEIGHBOUR4))
    rtnl.change(rtnl.RTM_NEWNEIGH, body + netlink.attribute(rtnl.NDA_LLADDR, bytes(5) + b"\1"), rtnl.NLM_F_CREATE)


def _link() -> None:
    with rtnl.dummy("spare0"):
        pass


refused(
    "netview.changes",
    ["N22"],
    title="routing netlink changes nothing for a network context",
    attack="RTM_NEWADDR, NEWLINK, NEWROUTE, NEWRULE, NEWNEIGH on the interface of the own address",
    operation=each(
        {
            "address": lambda: _near().add(SPARE4, 24),
            "flags": lambda: _near().up(),
            "link": _link,
            "route": _route,
            "rule": _rule,
            "neighbour": neighbour,
        }
    ),
    expected="EPERM",
)


def _dumps(kind: int, header: bytes) -> Callable[[], None]:
    def operation() -> None:
        with rtnl.opened() as end:
            rtnl.dump(end, kind, header)

    return operation


refused(
    "netview.other-dumps",
    ["N29"],
    title="of the dumps of routing netlink five are open to a network context",
    attack="RTM_GETNEIGHTBL, GETNETCONF, GETSTATS, GETNSID, GETNEXTHOP, GETADDRLABEL, GETMULTICAST, GETANYCAST",
    operation=each(
        {
            "neightbl": _dumps(66, bytes(4)),
            "netconf": _dumps(82, bytes(4)),
            "stats": _dumps(94, struct.pack("BBHII", 0, 0, 0, 0, 1)),
            "nsid": _dumps(90, bytes(4)),
            "nexthop": _dumps(106, bytes(8)),
            "addrlabel": _dumps(74, struct.pack("BBBBII", socket.AF_INET6, 0, 0, 0, 0, 0)),
            "multicast": _dumps(58, struct.pack("BBBBI", socket.AF_INET6, 0, 0, 0, 0)),
            "anycast": _dumps(62, struct.pack("BBBBI", socket.AF_INET6, 0, 0, 0, 0)),
        }
    ),
    expected="EPERM",
)


def _generic(name: str) -> Callable[[], None]:
    def operation() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end:
            number = netlink.family(end, name)
            rtnl.dump(end, number, struct.pack("BBH", 1, 1, 0))

    return operation


refused(
    "netview.generic",
    ["N31"],
    title="generic netlink tells a network context of its families and no more",
    attack="dumps of the families tcp_metrics and netdev",
    operation=each({"tcp_metrics": _generic("tcp_metrics"), "netdev": _generic("netdev")}),
    expected="EPERM",
)


def _links(end: socket.socket | None = None) -> str:
    with contextlib.ExitStack() as stack:
        end = end or stack.enter_context(rtnl.opened())
        return known(rtnl.link_names(rtnl.dump(end, rtnl.RTM_GETLINK, rtnl.link_header())), "lo", NEAR, FAR)


ALL_LINKS = ("far0 lo near0", "far0 lo near0 and more")

check(
    "netview.links",
    title="netlink lists the interfaces that have an address of the context",
    attack="RTM_GETLINK dump",
    expected="lo near0",
    control=instead(looked(_links, inside=False), ALL_LINKS, ON_HOST),
    vectors=["N25"],
)(looked(_links, inside=True))


def _passed(scene: Scene, *, inside: bool) -> Seen:
    with street() as place, rtnl.opened() as end:
        return place.look(scene, lambda: _links(end), inside=inside, keep=(end.fileno(),))


check(
    "netview.passed-netlink",
    title="a netlink socket that the host made shows a member no more than its own",
    attack="RTM_GETLINK dump on a socket opened on the host and passed in",
    expected="lo near0",
    control=instead(lambda scene: _passed(scene, inside=False), ALL_LINKS, "used on the host"),
    vectors=["N25", "N71"],
)(lambda scene: _passed(scene, inside=True))


def _exact() -> str:
    name = netlink.attribute(rtnl.IFLA_IFNAME, FAR.encode() + b"\0")
    rtnl.ask(rtnl.RTM_GETLINK, rtnl.link_header() + name)
    return "found"


check(
    "netview.link-exact",
    title="an interface without an address of the context is not there when asked for by name",
    attack="RTM_GETLINK with IFLA_IFNAME",
    expected="ENODEV",
    control=instead(looked(_exact, inside=False), "found", ON_HOST),
    vectors=["N25"],
)(looked(_exact, inside=True))


ALL_ADDRESSES = " ".join(sorted([OWN4, OTHER4, FAR4, "127.0.0.1", "::1", OWN6, OTHER6, FAR6]))


def _addresses() -> str:
    found = set()
    with rtnl.opened() as end:
        for family in (socket.AF_INET, socket.AF_INET6):
            found |= rtnl.address_texts(rtnl.dump(end, rtnl.RTM_GETADDR, rtnl.address_header(family)))
    return known(found, OWN4, OWN6, OTHER4, OTHER6, FAR4, FAR6, "127.0.0.1", "::1")


check(
    "netview.addresses",
    title="netlink lists the addresses of the context",
    attack="RTM_GETADDR dumps",
    expected=f"{OWN4} 127.0.0.1 ::1 {OWN6}",
    control=instead(
        looked(_addresses, inside=False),
        [
            " ".join(sorted([OWN4, OTHER4, FAR4, "127.0.0.1", "::1", OWN6, OTHER6, FAR6])) + more
            for more in ("", " and more")
        ],
        ON_HOST,
    ),
    vectors=["N26", "N14"],
)(looked(_addresses, inside=True))


def _routes(near: int, far: int) -> str:
    with rtnl.opened() as end:
        found = rtnl.dump(end, rtnl.RTM_GETROUTE, rtnl.route_header(socket.AF_INET))
        found += rtnl.dump(end, rtnl.RTM_GETROUTE, rtnl.route_header(socket.AF_INET6))
    links = rtnl.route_links(found)
    bytes_seen = b"".join(payload for _kind, payload in found)
    addresses = [text for text in (OTHER4, FAR4, OTHER6) if rtnl.packed(text) in bytes_seen]
    over = [name for name, index in (("near", near), ("far", far)) if index in links]
    return " ".join([*over, *addresses])


def _route_check(scene: Scene, *, inside: bool) -> Seen:
    with street() as place:
        return place.look(scene, lambda: _routes(place.near.index, place.far.index), inside=inside)


check(
    "netview.routes",
    title="netlink lists routes over own interfaces, and names no address of others",
    attack="RTM_GETROUTE dumps",
    expected="near",
    control=instead(lambda scene: _route_check(scene, inside=False), f"near far {OTHER4} {FAR4} {OTHER6}", ON_HOST),
    vectors=["N29"],
)(lambda scene: _route_check(scene, inside=True))


def _neighbours(scene: Scene, *, inside: bool) -> Seen:
    def operation() -> str:
        with rtnl.opened() as end:
            found = rtnl.dump(end, rtnl.RTM_GETNEIGH, rtnl.neighbour_header(socket.AF_INET))
        texts = {socket.inet_ntoa(netlink.attributes(payload[12:])[rtnl.NDA_DST]) for _kind, payload in found}
        return "the neighbour" if NEIGHBOUR4 in texts else f"{len(texts)} others"

    with street() as place:
        neighbour()
        return place.look(scene, operation, inside=inside)


check(
    "netview.neighbours",
    title="netlink lists no neighbours",
    attack="RTM_GETNEIGH dump",
    expected="0 others",
    control=instead(lambda scene: _neighbours(scene, inside=False), "the neighbour", ON_HOST),
    vectors=["N28"],
)(lambda scene: _neighbours(scene, inside=True))


def _rules() -> str:
    with rtnl.opened() as end:
        found = rtnl.dump(end, rtnl.RTM_GETRULE, struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
    return "rules" if found else "none"


check(
    "netview.rules",
    title="netlink lists no routing rules",
    attack="RTM_GETRULE dump",
    expected="none",
    control=instead(looked(_rules, inside=False), "rules", ON_HOST),
    vectors=["N29"],
)(looked(_rules, inside=True))
