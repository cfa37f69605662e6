# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of routing netlink as the checks of the network need: links, addresses, routes, dumps."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cloison_verify.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    message,
)

NLM_F_DUMP, NLM_F_CREATE, NLM_F_EXCL = 0x300, 0x400, 0x200
NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 4, 18, 1
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 253, 1
IFF_UP = 1
Messages = list[tuple[int, bytes]]


def link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Return a struct ifinfomsg."""
    return struct.pack("BxHiII", 0, 0, index, flags, change)


def address_header(family: int = 0, prefix: int = 0, index: int = 0) -> bytes:
    """Return a struct ifaddrmsg."""
    return struct.pack("BBBBI", family, prefix, IFA_F_NODAD if family == socket.AF_INET6 else 0, 0, index)


def route_header(family: int = 0, prefix: int = 0) -> bytes:
    """Return a struct rtmsg of a static route on a link."""
    return struct.pack("BBBBBBBBI", family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0)


def neighbour_header(family: int = 0, index: int = 0) -> bytes:
    """Return a struct ndmsg of a permanent entry."""
    return struct.pack("BxxxiHBB", family, index, NUD_PERMANENT, 0, 0)


def packed(address: str) -> bytes:
    """Return an address of either family in network byte order."""
    return socket.inet_pton(family_of(address), address)


def family_of(address: str) -> int:
    """Return the family of an address as text."""
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def _fail(payload: bytes) -> None:
    code = -struct.unpack_from("i", payload)[0]
    if code:
        raise OSError(code, os.strerror(code))


def opened() -> socket.socket:
    """Return a socket of routing netlink."""
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    end.settimeout(5)
    return end


def dump(end: socket.socket, kind: int, header: bytes) -> Messages:
    """Return all messages of a dump; raises `OSError` for one that the kernel refuses."""
    end.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, header))
    found: Messages = []
    while True:
        data = end.recv(1 << 18)
        if not data:
            raise OSError(errno.ENODATA, "an empty message in a dump")
        for kind_seen, payload in _messages(data):
            if kind_seen in (NLMSG_DONE, NLMSG_ERROR):
                if len(payload) >= 4:
                    _fail(payload)
                return found
            found.append((kind_seen, payload))


def change(kind: int, payload: bytes, flags: int = 0) -> None:
    """Send a request that changes something, and wait for its acknowledgement."""
    with opened() as end:
        end.send(message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload))
        for kind_seen, answer in _messages(end.recv(1 << 16)):
            if kind_seen == NLMSG_ERROR:
                _fail(answer)
                return


def ask(kind: int, payload: bytes) -> bytes:
    """Send a request for one thing and return the payload of the answer."""
    with opened() as end:
        end.send(message(kind, NLM_F_REQUEST, payload))
        kind_seen, answer = next(_messages(end.recv(1 << 16)))
        if kind_seen == NLMSG_ERROR:
            _fail(answer)
        return answer


@dataclass(frozen=True)
class Link:
    """A network interface of the machine."""

    name: str
    index: int

    def up(self) -> None:
        """Turn it on."""
        change(RTM_NEWLINK, link_header(self.index, IFF_UP, IFF_UP))

    def add(self, address: str, prefix: int) -> None:
        """Give it an address, which can be used at once."""
        family = family_of(address)
        data = packed(address)
        body = address_header(family, prefix, self.index) + attribute(IFA_LOCAL, data) + attribute(IFA_ADDRESS, data)
        change(RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL)

    def drop(self, address: str, prefix: int) -> None:
        """Take an address away."""
        body = address_header(family_of(address), prefix, self.index) + attribute(IFA_LOCAL, packed(address))
        change(RTM_DELADDR, body)

    def remove(self) -> None:
        """Take the interface away."""
        change(RTM_DELLINK, link_header(self.index))


@contextlib.contextmanager
def dummy(name: str, *addresses: str) -> Iterator[Link]:
    """Make a dummy interface that is on and has `addresses`, such as "10.0.0.1/24", for the time of a block."""
    with contextlib.suppress(OSError):
        Link(name, socket.if_nametoindex(name)).remove()
    kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"dummy"))
    change(RTM_NEWLINK, link_header() + attribute(IFLA_IFNAME, name.encode() + b"\0") + kind, NLM_F_CREATE)
    link = Link(name, socket.if_nametoindex(name))
    try:
        link.up()
        for address in addresses:
            host, _, prefix = address.partition("/")
            link.add(host, int(prefix))
        yield link
    finally:
        link.remove()


def link_names(found: Messages) -> set[str]:
    """Return the names of the interfaces in a dump of links."""
    return {attributes(payload[16:])[IFLA_IFNAME].rstrip(b"\0").decode() for _kind, payload in found}


def address_texts(found: Messages) -> set[str]:
    """Return the addresses in a dump of addresses."""
    texts = set()
    for _kind, payload in found:
        parts = attributes(payload[8:])
        data = parts.get(IFA_LOCAL) or parts[IFA_ADDRESS]
        texts.add(socket.inet_ntop(payload[0], data))
    return texts


def route_links(found: Messages) -> set[int]:
    """Return the numbers of the interfaces that routes of a dump lead over."""
    links = set()
    for _kind, payload in found:
        data = attributes(payload[12:]).get(RTA_OIF)
        if data is not None:
            links.add(struct.unpack("i", data)[0])
    return links
