# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose sockets a network context sees: tables of /proc/net, sock_diag."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from cloison.flags import NETWORK_DEFAULT, NetworkFlags
from cloison_verify import netlink, rtnl
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.netview_refused import ON_HOST, refused
from cloison_verify.networks import OTHER4, OTHER6, OWN4, OWN6, each, enter, street
from cloison_verify.scene import Scene, Seen, attempt

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 4, 20, 21
TCP, UDP, RAW, PORT = 6, 17, 255, 8077
NO_COOKIE = struct.pack("II", 0xFFFFFFFF, 0xFFFFFFFF)
TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "icmp", "unix", "netlink")
Sockets = dict[str, socket.socket]


@contextlib.contextmanager
def _sockets(address4: str, address6: str) -> Iterator[Sockets]:
    """Open a socket for each table that /proc/net has of them."""
    groups = Path("/proc/sys/net/ipv4/ping_group_range")
    with contextlib.ExitStack() as stack:
        if os.access(groups, os.W_OK):
            groups.write_text("0 0", encoding="ascii")
        made: Sockets = {}
        for name, family, kind, protocol, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, 0, (address4, PORT)),
            ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, 0, (address6, PORT)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, 0, (address4, PORT)),
            ("udp6", socket.AF_INET6, socket.SOCK_DGRAM, 0, (address6, PORT)),
            ("raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, (address4, 0)),
            ("icmp", socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP, (address4, 77)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, 0, f"\0netview-{os.getpid()}"),
            ("netlink", socket.AF_NETLINK, socket.SOCK_RAW, 0, (0, 0)),
        ):
            made[name] = stack.enter_context(socket.socket(family, kind, protocol))
            made[name].bind(address)
            if kind == socket.SOCK_STREAM:
                made[name].listen(1)
        yield made


def _inodes(sockets: Sockets) -> dict[str, int]:
    return {name: os.fstat(end.fileno()).st_ino for name, end in sockets.items()}


def _in_tables(inodes: dict[str, int]) -> str:
    found = []
    for name in TABLES:
        lines = Path("/proc/self/net", name).read_text(encoding="ascii", errors="replace").splitlines()
        found += [name] if any(str(inodes[name]) in line.split() for line in lines) else []
    return " ".join(found) or "none"


def _foreign(scene: Scene, look: Callable[[dict[str, int]], str], *, inside: bool) -> Seen:
    """Look for sockets of the host."""
    with street() as place, _sockets(OTHER4, OTHER6) as sockets:
        inodes = _inodes(sockets)
        return place.look(scene, lambda: look(inodes), inside=inside)


def _own(scene: Scene, look: Callable[[dict[str, int]], str]) -> Seen:
    """Look for sockets of the context."""

    def operation() -> str:
        with _sockets(OWN4, OWN6) as sockets:
            return look(_inodes(sockets))

    with street() as place:
        return place.look(scene, operation, inside=True)


check(
    "netview.tables",
    title="sockets of the host are in no table of a network context",
    attack="reading /proc/net/{tcp,tcp6,udp,udp6,raw,icmp,unix,netlink}",
    expected="none",
    control=instead(lambda scene: _foreign(scene, _in_tables, inside=False), " ".join(TABLES), ON_HOST),
    vectors=["N46"],
)(lambda scene: _foreign(scene, _in_tables, inside=True))

check(
    "netview.own-tables",
    title="sockets of a network context are in its tables",
    attack="reading /proc/net/{tcp,tcp6,udp,udp6,raw,icmp,unix,netlink}",
    expected=" ".join(TABLES),
    control=instead(lambda scene: _foreign(scene, _in_tables, inside=True), "none", "sockets of the host"),
    vectors=["N46"],
)(lambda scene: _own(scene, _in_tables))


def _host_tables(scene: Scene, *, inside: bool) -> Seen:
    """Look from the host for sockets that stand in the context, or on the host."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    with street():
        addresses = (OWN4, OWN6) if inside else (OTHER4, OTHER6)

        def body() -> Seen:
            if inside:
                enter()
            with _sockets(*addresses) as sockets:
                theirs.send(" ".join(str(inode) for inode in _inodes(sockets).values()).encode())
                return attempt(theirs.recv, 100)

        def watch() -> str:
            numbers = [int(text) for text in ours.recv(1000).split()]
            seen = _in_tables(dict(zip(TABLES, numbers, strict=True)))
            ours.send(b"enough")
            return seen

        watcher = Watcher(scene, watch, ours.fileno())
        scene.attack(body, inside=False, keep=(theirs.fileno(),))
        return watcher.saw()


class Watcher:
    """A process of the host that looks while another does something."""

    def __init__(self, scene: Scene, look: Callable[[], str], keep: int) -> None:
        self._actor = scene.outsider(lambda link: link.send(look()), keep=[keep])

    def saw(self) -> Seen:
        """Return what it saw."""
        return Seen(self._actor.link.receive())


check(
    "netview.host-tables",
    title="the host's tables have the host's sockets, as its process table has its processes",
    attack="reading /proc/net of the host while a context has sockets",
    expected="none",
    control=instead(lambda scene: _host_tables(scene, inside=False), " ".join(TABLES), "sockets of the host"),
    vectors=["N46"],
)(lambda scene: _host_tables(scene, inside=True))


def _closing(scene: Scene, *, inside: bool) -> Seen:
    """Look for a connection of the host that is in TIME_WAIT."""
    word = bytes(reversed(socket.inet_aton(OTHER4))).hex().upper()

    def operation() -> str:
        text = Path("/proc/self/net/tcp").read_text(encoding="ascii")
        waiting = [line for line in text.splitlines() if word in line and line.split()[3] == "06"]
        return "in TIME_WAIT" if waiting else "shown" if word in text else "nothing"

    with street() as place:
        with socket.create_server((OTHER4, PORT)) as server, socket.create_connection((OTHER4, PORT)) as client:
            accepted = server.accept()[0]
            client.shutdown(socket.SHUT_RDWR)
            accepted.close()
        return place.look(scene, operation, inside=inside)


check(
    "netview.time-wait",
    title="connections of the host that have ended are in no table of a network context",
    attack="reading /proc/net/tcp",
    expected="nothing",
    control=instead(lambda scene: _closing(scene, inside=False), "in TIME_WAIT", ON_HOST),
    vectors=["N46"],
)(lambda scene: _closing(scene, inside=True))


def _identity(source: tuple[str, int] | None = None, *, swapped: bool = False) -> bytes:
    """Return a struct inet_diag_sockid; asking for UDP has source and destination exchanged."""
    address, port = source or ("", 0)
    here = struct.pack("!H", port), (rtnl.packed(address) if address else b"").ljust(16, b"\0")
    nowhere = bytes(2), bytes(16)
    first, second = (nowhere, here) if swapped else (here, nowhere)
    return first[0] + second[0] + first[1] + second[1] + bytes(4) + NO_COOKIE


def _inet(
    family: int, protocol: int, source: tuple[str, int] | None = None, *, pad: int = 0, swapped: bool = False
) -> bytes:
    """Return a struct inet_diag_req_v2 for sockets in any state."""
    head = struct.pack("BBBBI", family, protocol, 0, pad, 0xFFFFFFFF)
    return head + _identity(source, swapped=swapped)


def _unix(inode: int = 0) -> bytes:
    """Return a struct unix_diag_req."""
    return struct.pack("BBHIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, 1) + NO_COOKIE


def _diag() -> socket.socket:
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    end.settimeout(5)
    return end


REQUESTS = {
    "tcp": (_inet(socket.AF_INET, TCP), 68),
    "tcp6": (_inet(socket.AF_INET6, TCP), 68),
    "udp": (_inet(socket.AF_INET, UDP), 68),
    "udp6": (_inet(socket.AF_INET6, UDP), 68),
    "raw": (_inet(socket.AF_INET, RAW), 68),
    "unix": (_unix(), 4),
}
"""What to ask for each table, and where an answer has the inode."""


def _in_dumps(inodes: dict[str, int]) -> str:
    found = []
    with _diag() as end:
        for name, (wanted, at) in REQUESTS.items():
            answers = rtnl.dump(end, SOCK_DIAG_BY_FAMILY, wanted)
            numbers = {struct.unpack_from("I", payload, at)[0] for _kind, payload in answers}
            found += [name] if inodes[name] in numbers else []
    return " ".join(found) or "none"


check(
    "netview.diag",
    title="sock_diag lists no sockets of the host",
    attack="dumps of inet_diag and unix_diag",
    expected="none",
    control=instead(lambda scene: _foreign(scene, _in_dumps, inside=False), " ".join(REQUESTS), ON_HOST),
    vectors=["N40", "N41"],
)(lambda scene: _foreign(scene, _in_dumps, inside=True))

check(
    "netview.own-diag",
    title="sock_diag lists the sockets of a network context to it",
    attack="dumps of inet_diag and unix_diag",
    expected=" ".join(REQUESTS),
    control=instead(lambda scene: _foreign(scene, _in_dumps, inside=True), "none", "sockets of the host"),
    vectors=["N40", "N41"],
)(lambda scene: _own(scene, _in_dumps))


def _one(kind: int, wanted: bytes, flags: int = netlink.NLM_F_REQUEST) -> None:
    with _diag() as end:
        netlink.request(end, kind, wanted, flags)


def _exactly(inodes: dict[str, int]) -> str:
    """Ask for one socket at a time."""
    questions = {
        "tcp": _inet(socket.AF_INET, TCP, (OTHER4, PORT)),
        "tcp6": _inet(socket.AF_INET6, TCP, (OTHER6, PORT)),
        "udp": _inet(socket.AF_INET, UDP, (OTHER4, PORT), swapped=True),
        "udp6": _inet(socket.AF_INET6, UDP, (OTHER6, PORT), swapped=True),
        "raw": _inet(socket.AF_INET, RAW, (OTHER4, 0), pad=socket.IPPROTO_ICMP),
        "unix": _unix(inodes["unix"]),
    }

    def asked(wanted: bytes) -> Callable[[], None]:
        return lambda: _one(SOCK_DIAG_BY_FAMILY, wanted)

    return each({name: asked(wanted) for name, wanted in questions.items()})()


check(
    "netview.diag-exact",
    title="sock_diag does not know a socket of the host by its addresses or number",
    attack="SOCK_DIAG_BY_FAMILY for one TCP, UDP, raw and Unix socket",
    expected="ENOENT",
    control=instead(lambda scene: _foreign(scene, _exactly, inside=False), "ok", ON_HOST),
    vectors=["N40", "N41"],
)(lambda scene: _foreign(scene, _exactly, inside=True))


def _destroy(_inodes: dict[str, int]) -> str:
    wanted = _inet(socket.AF_INET, UDP, (OTHER4, PORT))
    return attempt(_one, SOCK_DESTROY, wanted, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK).text


check(
    "netview.diag-destroy",
    title="a network context destroys no socket of the host",
    attack="SOCK_DESTROY of a UDP socket",
    expected="EPERM",
    control=instead(lambda scene: _foreign(scene, _destroy, inside=False), "ok", ON_HOST),
    vectors=["N43"],
)(lambda scene: _foreign(scene, _destroy, inside=True))


def _packets() -> None:
    with _diag() as end:
        rtnl.dump(end, SOCK_DIAG_BY_FAMILY, struct.pack("BBHIIII", socket.AF_PACKET, 0, 0, 0, 1, 0, 0))


refused(
    "netview.diag-packet",
    ["N41"],
    title="sock_diag knows no packet sockets in a network context",
    attack="dump of packet_diag",
    operation=_packets,
    expected="ENOENT",
)


def _own_loopback(family: int) -> tuple[socket.socket, int]:
    end = socket.socket(family, socket.SOCK_STREAM)
    end.bind(("127.0.0.1" if family == socket.AF_INET else "::1", PORT))
    end.listen(1)
    return end, os.fstat(end.fileno()).st_ino


def _in_file(family: int) -> str:
    """Say which address a file of /proc/net gives a socket that is bound to the loopback address."""
    end, inode = _own_loopback(family)
    with end:
        text = Path("/proc/self/net", "tcp" if family == socket.AF_INET else "tcp6").read_text(encoding="ascii")
    line = next(line.split() for line in text.splitlines() if str(inode) in line.split())
    words = struct.unpack(f"!{len(line[1]) // 8}I", bytes.fromhex(line[1].partition(":")[0]))
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _in_diag(family: int) -> str:
    """Say which address sock_diag gives such a socket."""
    end, inode = _own_loopback(family)
    with end, _diag() as asking:
        for _kind, payload in rtnl.dump(asking, SOCK_DIAG_BY_FAMILY, _inet(family, TCP)):
            if struct.unpack_from("I", payload, 68)[0] == inode:
                return socket.inet_ntop(family, payload[8 : 12 if family == socket.AF_INET else 24])
    return "none"


def _loopback(scene: Scene, look: Callable[[int], str], *, hide: bool) -> Seen:
    """Look at both families, in a context that has its loopback addresses hidden or not."""

    def operation() -> str:
        seen = [look(family) for family in (socket.AF_INET, socket.AF_INET6)]
        return " ".join(seen) if seen == ["127.0.0.1", "::1"] or hide else "its own numbers"

    def body() -> Seen:
        enter(flags=NETWORK_DEFAULT if hide else NETWORK_DEFAULT & ~NetworkFlags.HIDE_LBACK)
        return attempt(operation)

    with street():
        return scene.attack(body, inside=False)


for _name, _look in (("tables", _in_file), ("diag", _in_diag)):
    check(
        f"netview.loopback-{_name}",
        title=f"what a context has bound to its loopback addresses is shown so: {_name}",
        attack="bind(127.0.0.1), bind(::1) and looking",
        expected="127.0.0.1 ::1",
        control=instead(
            lambda scene, look=_look: _loopback(scene, look, hide=False),  # type: ignore[misc]
            "its own numbers",
            "a context without HIDE_LBACK",
        ),
        vectors=["N50"],
    )(lambda scene, look=_look: _loopback(scene, look, hide=True))  # type: ignore[misc]
