# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways round what a network context sees: attributes, passed sockets, other namespaces, tunnels and names of others."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from cloison.flags import NetworkCaps
from cloison_verify import netlink, rtnl
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.netview_refused import (
    IFF_NO_PI,
    IFF_TUN,
    IPPROTO_SCTP,
    ON_HOST,
    TUNSETIFF,
)
from cloison_verify.nets import join
from cloison_verify.networks import NEAR, OTHER4, OWN4, each, enter, looked, street
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK = 4, 20, 18
INET_DIAG_REQ_PROTOCOL, UDP, TCP, PORT, MANY = 3, 17, 6, 8079, 300
TUNSETPERSIST, TUN_NAME = 0x400454CB, b"tunview1"
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
RTM_NEWNSID, RTM_DELNSID, NETNSA_NSID, NETNSA_PID = 88, 89, 1, 2
IFLA_TARGET_NETNSID, NSID = 46, 7707
EVERYTHING = 0xFFFFFFFF


def _diag() -> socket.socket:
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    end.settimeout(5)
    return end


def _request(protocol: int) -> bytes:
    """Return a struct inet_diag_req_v2 for all sockets of IPv4."""
    return struct.pack("BBBBI48x", socket.AF_INET, protocol, 0, 0, EVERYTHING)


def _listed(end: socket.socket, kind: int, wanted: bytes, address: str) -> str:
    """Say whether a dump has a socket that is bound to an address."""
    found = [payload[8:12] for _kind, payload in rtnl.dump(end, kind, wanted)]
    return "listed" if socket.inet_aton(address) in found else "not"


def _by_attribute() -> str:
    """Ask for sockets of SCTP under the name of TCP, in both forms that there are."""
    other = netlink.attribute(INET_DIAG_REQ_PROTOCOL, struct.pack("I", IPPROTO_SCTP))
    old = struct.pack("BBBB48xII", socket.AF_INET, 0, 0, 0, EVERYTHING, 0)

    def asked(kind: int, wanted: bytes) -> Callable[[], str]:
        def operation() -> str:
            with _diag() as end:
                return _listed(end, kind, wanted + other, OTHER4)

        return operation

    return each({"request": asked(SOCK_DIAG_BY_FAMILY, _request(TCP)), "old request": asked(TCPDIAG_GETSOCK, old)})()


def _associations(scene: Scene, *, inside: bool) -> Seen:
    with street() as place, socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP) as end:
        end.bind((OTHER4, PORT))
        end.listen(1)
        return place.look(scene, _by_attribute, inside=inside)


check(
    "netview.diag-attribute",
    title="sock_diag lists nothing of protocols that contexts do not have, whatever the request pretends to be for",
    attack="dumps of TCP sockets with INET_DIAG_REQ_PROTOCOL for SCTP, by SOCK_DIAG_BY_FAMILY and TCPDIAG_GETSOCK",
    expected="ENOENT",
    control=instead(lambda scene: _associations(scene, inside=False), "listed", ON_HOST),
    vectors=["N40", "N41"],
)(lambda scene: _associations(scene, inside=True))


@contextlib.contextmanager
def _bound(address: str, count: int) -> Iterator[None]:
    """Open sockets of UDP."""
    with contextlib.ExitStack() as stack:
        for _number in range(count):
            end = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            end.bind((address, 0))
        yield


def _rest(end: socket.socket) -> str:
    """Read the rest of a dump that somebody else began."""
    found: set[bytes] = set()
    while True:
        data = end.recv(1 << 18)
        while len(data) >= 16:
            length, kind = struct.unpack_from("IH", data)
            if kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                code = -struct.unpack_from("i", data, 16)[0]
                if code > 0:
                    raise OSError(code, os.strerror(code))
                return "listed" if socket.inet_aton(OTHER4) in found else "not"
            found.add(data[24:28])
            data = data[(length + 3) & ~3 :]


def _whole(end: socket.socket) -> str:
    return _listed(end, SOCK_DIAG_BY_FAMILY, _request(UDP), OTHER4)


def _passed(scene: Scene, use: Callable[[socket.socket], str], *, inside: bool, begun: bool) -> Seen:
    """Let a process of the host use a socket of sock_diag that a member made, and maybe began a dump with."""

    def helper(link: Link) -> None:
        _text, descriptors = link.receive_with_descriptors()
        with socket.socket(fileno=descriptors[0]) as end:
            end.settimeout(5)
            seen = attempt(use, end)
        link.send(seen.text)

    def body(link: Link) -> None:
        if inside:
            enter()
        with _bound(OWN4, MANY), _diag() as end:
            if begun:
                flags = netlink.NLM_F_REQUEST | rtnl.NLM_F_DUMP
                end.send(netlink.message(SOCK_DIAG_BY_FAMILY, flags, _request(UDP)))
            link.send("begun", [end.fileno()])
            link.receive()

    with street(), _bound(OTHER4, MANY):
        maker, user = scene.outsider(body), scene.outsider(helper)
        text, descriptors = maker.link.receive_with_descriptors()
        if text != "begun":
            raise SceneError(text)
        user.link.send(text, descriptors)
        os.close(descriptors[0])
        seen = user.link.receive()
        maker.link.send("enough")
        return Seen(seen)


for _name, _use, _begun in (("passed", _whole, False), ("continued", _rest, True)):
    check(
        f"netview.diag-{_name}",
        title=f"a socket of sock_diag that a member made shows nothing through a process outside: {_name}",
        attack="a process of the host reads from, or asks with, a descriptor that it was given",
        expected="EPERM",
        control=instead(
            lambda scene, use=_use, begun=_begun: _passed(scene, use, inside=False, begun=begun),  # type: ignore[misc]
            "listed",
            ON_HOST,
        ),
        vectors=["N41", "N38"],
    )(lambda scene, use=_use, begun=_begun: _passed(scene, use, inside=True, begun=begun))  # type: ignore[misc]


@contextlib.contextmanager
def _namespace(scene: Scene) -> Iterator[None]:
    """Make another network namespace that this one has a number for."""

    def body(link: Link) -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        link.send("apart")

    actor = scene.outsider(body)
    if actor.link.receive() != "apart":
        raise SceneError("no other network namespace")
    number = netlink.attribute(NETNSA_NSID, struct.pack("i", NSID))
    rtnl.change(RTM_NEWNSID, bytes(4) + number + netlink.attribute(NETNSA_PID, struct.pack("I", actor.pid)))
    yield


def _there() -> str:
    wanted = rtnl.link_header() + netlink.attribute(IFLA_TARGET_NETNSID, struct.pack("i", NSID))
    with rtnl.opened() as end:
        return " ".join(sorted(rtnl.link_names(rtnl.dump(end, rtnl.RTM_GETLINK, wanted)) & {"lo"})) or "nothing"


def _elsewhere(scene: Scene, *, inside: bool) -> Seen:
    with street() as place, _namespace(scene):
        return place.look(scene, _there, inside=inside)


check(
    "netview.other-namespace",
    title="interfaces of other network namespaces are not own ones because their numbers are",
    attack="RTM_GETLINK with IFLA_TARGET_NETNSID",
    expected="nothing",
    control=instead(lambda scene: _elsewhere(scene, inside=False), "lo", ON_HOST),
    vectors=["N25"],
)(lambda scene: _elsewhere(scene, inside=True))


def _attach(*, persist: int | None = None) -> None:
    """Attach to a tunnel, which is made if it does not exist."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", TUN_NAME, IFF_TUN | IFF_NO_PI).ljust(40, b"\0"))
        if persist is not None:
            fcntl.ioctl(end, TUNSETPERSIST, persist)
    finally:
        os.close(end)


def _left(scene: Scene, *, inside: bool) -> Seen:
    """Attach to a tunnel that the host has left for later."""
    with street(NetworkCaps.TUN_CREATE) as place:
        _attach(persist=1)
        try:
            return place.look(scene, _attach, inside=inside)
        finally:
            _attach(persist=0)


def _kept() -> None:
    """Leave a tunnel for later, and take it up again."""
    _attach(persist=1)
    _attach(persist=0)


check(
    "netview.tunnel-owner",
    title="a tunnel of the host is not a context's that may have tunnels",
    attack="TUNSETIFF with the name of a persistent device",
    expected="EPERM",
    control=instead(lambda scene: _left(scene, inside=False), "ok", ON_HOST),
    vectors=["N55"],
)(lambda scene: _left(scene, inside=True))

check(
    "netview.tunnel-kept",
    title="a context attaches to a tunnel that it has made before",
    attack="TUNSETPERSIST, close() and TUNSETIFF again",
    expected="ok",
    control=instead(lambda scene: _left(scene, inside=True), "EPERM", "a tunnel of the host"),
    vectors=["N55"],
)(looked(_kept, inside=True, caps=NetworkCaps.TUN_CREATE))


def _nested(*, apart: bool) -> Callable[[], None]:
    """Make a tunnel with all the capabilities of a user namespace of one's own, or with those that one has."""

    def operation() -> None:
        end = os.open("/dev/net/tun", os.O_RDWR)
        try:
            if apart and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
                raise SceneError(f"unshare(): {os.strerror(ctypes.get_errno())}")
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", TUN_NAME, IFF_TUN | IFF_NO_PI).ljust(40, b"\0"))
        finally:
            os.close(end)

    return operation


check(
    "netview.tunnel-nested",
    title="who makes a user namespace in a context has no tunnels by that",
    attack="unshare(CLONE_NEWUSER), TUNSETIFF",
    expected="EPERM",
    control=instead(
        looked(_nested(apart=False), inside=True, caps=NetworkCaps.TUN_CREATE), "ok", "without a user namespace"
    ),
    vectors=["N55"],
)(looked(_nested(apart=True), inside=True, caps=NetworkCaps.TUN_CREATE))


def _folder(scene: Scene, *, inside: bool) -> Seen:
    """Look into the directory of an interface, into which the host has just looked."""
    folder = Path("/sys/class/net", NEAR)

    def operation() -> str:
        wanted = {"address", "mtu", "queues", "statistics"}
        found = " ".join(sorted({path.name for path in folder.iterdir()} & wanted))
        return f"{found}; {'there' if (folder / 'queues').exists() else 'not'}"

    with street() as place:
        list((folder / "queues").iterdir())
        return place.look(scene, operation, inside=inside)


check(
    "netview.sysfs-folder",
    title="the directory of an interface has what tells of it alone",
    attack="readdir(/sys/class/net/near0), stat() of queues there",
    expected="address mtu statistics; not",
    control=instead(lambda scene: _folder(scene, inside=False), "address mtu queues statistics; there", ON_HOST),
    vectors=["N25", "N28"],
)(lambda scene: _folder(scene, inside=True))


def _secret() -> None:
    os.close(os.open("/proc/sys/net/ipv4/tcp_fastopen_key", os.O_RDONLY))


check(
    "netview.sysctl",
    title="keys of the whole machine are not read in a network context",
    attack="open(/proc/sys/net/ipv4/tcp_fastopen_key) by user 0",
    expected="EACCES",
    control=instead(looked(_secret, inside=False), "ok", ON_HOST),
    vectors=["N67"],
)(looked(_secret, inside=True))


def _stolen(scene: Scene, where: str) -> Seen:
    """Bind a passed socket of the host to a name that the host has, and see who hears what is sent there."""
    name = f"\0netview-edges-{os.getpid()}"

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as passed,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending,
    ):
        ours.bind(name)

        def body() -> Seen:
            if where == "network":
                join(())
            return attempt(passed.bind, name)

        seen = scene.attack(body, inside=where == "process", keep=[passed.fileno()])
        sending.sendto(b"word", name)
        ours.setblocking(False)
        heard = attempt(ours.recv, 10)
        return Seen(f"{seen.text}, {'host' if heard.errno is None else 'stranger'}")


for _where in ("process", "network"):
    check(
        f"netview.abstract-stolen-{_where}",
        title=f"a name that a member binds a passed socket to is its own, and not the host's (a {_where} context)",
        attack="bind(@name) on an unbound datagram socket of the host, where the host has @name",
        expected="ok, host",
        control=instead(lambda scene: _stolen(scene, "host"), "EADDRINUSE, host", ON_HOST),
        vectors=["N35", "N38"],
    )(lambda scene, where=_where: _stolen(scene, where))  # type: ignore[misc]
