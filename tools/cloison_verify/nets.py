# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts for the checks: the machine's addresses, who has which, servers that say who they are.

All addresses lie on the loopback interface of the test machine, so no packet leaves it. Two guests,
A and B, have one of each family; the host has one that nobody else has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence

from cloison.abi import MAX_XID, MIN_XID
from cloison.flags import NETWORK_DEFAULT, Change, NetworkCaps, NetworkFlags
from cloison.network import Address, Network
from cloison.syscall import BusyError, ExistsError, Vserver
from cloison_verify.netlink import NLM_F_ACK, NLM_F_REQUEST, attribute, request
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt

HOST, A, B = "10.77.0.1", "10.77.0.2", "10.77.0.3"
HOST6, A6, B6 = "fd77::1", "fd77::2", "fd77::3"
NO_CAPS = NetworkCaps(0)
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
RTM_NEWADDR, NLM_F_CREATE, NLM_F_REPLACE = 20, 0x400, 0x100
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 2
WAIT = 5.0
"""Seconds that a peer which must answer may take."""


def family(address: str) -> socket.AddressFamily:
    """Return the family of an address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        name = struct.pack("16s24x", b"lo")
        flags = struct.unpack_from("H", fcntl.ioctl(end, SIOCGIFFLAGS, name), 16)[0]
        fcntl.ioctl(end, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def give(*addresses: str) -> None:
    """Put addresses on the loopback interface; those that are there stay."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as end:
        for address in addresses:
            kind = family(address)
            data = socket.inet_pton(kind, address)
            head = struct.pack("BBBBI", kind, 8 * len(data), IFA_F_NODAD, 0, socket.if_nametoindex("lo"))
            body = head + attribute(IFA_ADDRESS, data) + attribute(IFA_LOCAL, data)
            with contextlib.suppress(FileExistsError):
                request(end, RTM_NEWADDR, body, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)


def machine() -> None:
    """Let the test machine have the addresses of the checks."""
    _raise_loopback()
    give(HOST, A, B, HOST6, A6, B6)


def join(
    addresses: Iterable[str], *, flags: NetworkFlags = NETWORK_DEFAULT, caps: NetworkCaps = NO_CAPS, nid: int = 0
) -> Network:
    """Move the calling process into a new network context with these addresses."""
    kernel = Vserver()
    numbers = [nid] if nid else range(MIN_XID + 20_000 + os.getpid() % 9_000, MAX_XID)
    for number in numbers:
        network = Network(number, kernel)
        try:
            network.create(flags)
        except (ExistsError, BusyError):
            continue
        for address in addresses:
            network.add(Address.parse(address))
        network.set_caps(Change(int(caps), int(caps)))
        return network
    raise SceneError("no id of a network context is free")


def inside(
    scene: Scene,
    addresses: Sequence[str],
    operation: Callable[[], object],
    *,
    flags: NetworkFlags = NETWORK_DEFAULT,
    caps: NetworkCaps = NO_CAPS,
) -> Seen:
    """Do an operation in a network context of its own; errors outside of it break the scene."""
    machine()

    def body() -> Seen:
        join(addresses, flags=flags, caps=caps)
        return attempt(operation)

    return scene.attack(body, inside=False)


def outside(scene: Scene, operation: Callable[[], object]) -> Seen:
    """Do an operation on the host."""
    machine()
    return scene.attack(lambda: attempt(operation), inside=False)


Begin = Callable[[], socket.socket]


def bound(
    address: str, port: int = 0, kind: socket.SocketKind = socket.SOCK_STREAM, *options: tuple[int, int]
) -> socket.socket:
    """Return a bound socket with options (of SOL_SOCKET) set before; a stream socket listens."""
    end = socket.socket(family(address), kind)
    for name, value in options:
        end.setsockopt(socket.SOL_SOCKET, name, value)
    if family(address) == socket.AF_INET6:
        end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    end.bind((address, port))
    if kind == socket.SOCK_STREAM:
        end.listen(8)
    return end


def port_of(end: socket.socket) -> int:
    """Return the port that a socket is bound to."""
    return int(end.getsockname()[1])


def serving(name: str, begin: Begin, place: Callable[[], object] | None = None) -> Callable[[Link], None]:
    """Return a body that goes to a place, opens a socket, tells its port, and then tells callers its name.

    Says "!ERRNO" instead of the port when the socket cannot be opened. A stream server answers
    "NAME CALLER", a datagram server too.
    """

    def body(link: Link) -> None:
        if place is not None:
            place()
        try:
            end = begin()
        except OSError as error:
            link.send("!" + errno.errorcode.get(error.errno or 0, "?"))
            return
        link.send(str(port_of(end)))
        while True:
            if end.type == socket.SOCK_STREAM:
                peer, caller = end.accept()
                with peer:
                    peer.sendall(f"{name} {caller[0]}".encode())
            else:
                _data, caller = end.recvfrom(64)
                end.sendto(f"{name} {caller[0]}".encode(), caller)

    return body


def server(
    scene: Scene,
    name: str,
    begin: Begin,
    addresses: Sequence[str] | None = None,
    *,
    flags: NetworkFlags = NETWORK_DEFAULT,
    caps: NetworkCaps = NO_CAPS,
) -> tuple[Actor, int]:
    """Start a server, in a network context with these addresses or (None) on the host; its port."""
    machine()

    def place() -> None:
        if addresses is not None:
            join(addresses, flags=flags, caps=caps)

    actor = scene.outsider(serving(name, begin, place))
    said = actor.link.receive()
    if not said.isdecimal():
        raise SceneError(f"{name}: {said}")
    return actor, int(said)


def asked(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM, source: str = "") -> str:
    """Ask the server at an address who it is; raises OSError when nobody answers."""
    with socket.socket(family(address), kind) as end:
        end.settimeout(WAIT)
        if source:
            end.bind((source, 0))
        end.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            end.send(b"?")
        answer = end.recv(256).decode()
        if not answer:
            raise ConnectionResetError(errno.ECONNRESET, "closed without an answer")
        return answer


def who(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> str:
    """Return the name of the server at an address, or the name of the error."""
    seen = attempt(asked, address, port, kind)
    return seen.errno or seen.text.split()[0]


def outlived(scene: Scene, own: str, at: str) -> tuple[int, int, socket.socket]:
    """Let a listener at `at` outlive its context, which has address `own`; return the context's id, port and socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def old(link: Link) -> None:
        network = join([own])
        end = bound(at)
        socket.send_fds(theirs, [f"{network.nid} {port_of(end)}".encode()], [end.fileno()])
        link.send("done")
        link.receive()
        os._exit(0)

    with contextlib.closing(ours), contextlib.closing(theirs):
        actor = scene.outsider(old, keep=[theirs.fileno()])
        data, kept, _, _ = socket.recv_fds(ours, 256, 4)
    nid, port = (int(word) for word in data.decode().split())
    actor.link.receive()
    actor.link.send("leave")
    os.waitpid(actor.pid, 0)
    return nid, port, socket.socket(fileno=kept[0])
