# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: their life, who may rule them, what becomes of sockets, and many addresses."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from cloison.flags import NETWORK_DEFAULT, Change, NetworkFlags
from cloison.network import Address, Network
from cloison.syscall import Vserver
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import HOST, A, B, bound, give, join, machine, outlived, outside, server, who
from cloison_verify.scene import Link, Scene, Seen, attempt

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def member(scene: Scene, addresses: Sequence[str], flags: NetworkFlags = NETWORK_DEFAULT) -> tuple[Link, int, int]:
    """Start a process in a network context of its own; its link, pid and nid."""
    machine()

    def body(link: Link) -> None:
        link.send(str(join(addresses, flags=flags).nid))
        while link.receive() == "leave":
            os._exit(0)

    actor = scene.outsider(body)
    return actor.link, actor.pid, int(actor.link.receive())


def _life(scene: Scene) -> Seen:
    """Say what is known of a network context before and after its last process has ended."""
    link, pid, nid = member(scene, [A])
    network = Network(nid, Vserver())
    words = ["there" if network.exists() else "not there"]
    words.append("as task_nid says" if Vserver().task_nid(pid) == nid else "not as task_nid says")
    words.append("listed" if (Path("/proc/virtnet") / str(nid)).is_dir() else "not listed")
    link.send("leave")
    os.waitpid(pid, 0)
    words.append("there" if network.exists() else "gone")
    words.append("listed" if (Path("/proc/virtnet") / str(nid)).exists() else "not listed")
    return Seen(", ".join(words))


def _lasting(scene: Scene) -> Seen:
    link, pid, nid = member(scene, [A], NETWORK_DEFAULT | NetworkFlags.PERSISTENT)
    network = Network(nid, Vserver())
    link.send("leave")
    os.waitpid(pid, 0)
    there = network.exists()
    if there:
        network.set_flags(Change(0, int(NetworkFlags.PERSISTENT)))
    return Seen(f"{'there' if there else 'gone'}, then {'there' if network.exists() else 'gone'}")


check(
    "net.life",
    title="a network context lives as long as its processes",
    attack="create, look, let the last process end, look again",
    expected="there, as task_nid says, listed, gone, not listed",
    control=instead(_lasting, "there, then gone", "a persistent one, until the flag is taken"),
    seconds=40,
)(_life)


def created(again: bool) -> Probe:
    """Return a probe that creates a network context with an id that is in use, or with a new one."""

    def probe(scene: Scene) -> Seen:
        _, _, nid = member(scene, [A])
        number = nid if again else nid + 1
        return outside(scene, lambda: Network(number, Vserver()).create())

    return probe


check(
    "net.create-taken",
    title="an id is given once",
    attack="net_create with the id of a living network context",
    expected="EEXIST",
    control=instead(created(False), "ok", "an id that is free"),
)(created(True))


def entered(flags: NetworkFlags, change: Change | None = None) -> Probe:
    """Return a probe that enters a network context made with these flags."""

    def probe(scene: Scene) -> Seen:
        _, _, nid = member(scene, [A], flags)
        network = Network(nid, Vserver())
        if change is not None:
            network.set_flags(change)
        return outside(scene, network.enter)

    return probe


_PRIVATE, _ADMIN = int(NetworkFlags.INFO_PRIVATE), int(NetworkFlags.STATE_ADMIN)
check(
    "net.private",
    title="nobody enters a private network context",
    attack="net_migrate after private has been set",
    expected="EACCES",
    control=instead(entered(NETWORK_DEFAULT), "ok", "one that is not private"),
)(entered(NETWORK_DEFAULT, Change(_PRIVATE, _PRIVATE)))
check(
    "net.sealed",
    title="a network context without STATE_ADMIN is not the host's any more",
    attack="net_migrate after state_admin has been cleared",
    expected="EACCES",
    control=instead(entered(NETWORK_DEFAULT), "ok", "one that still has it"),
)(entered(NETWORK_DEFAULT, Change(0, _ADMIN)))


def ruled(operation: Callable[[Network, Scene], object], *, within: bool) -> Probe:
    """Return a probe: a member of a process context, or the host, does something to a network context."""

    def probe(scene: Scene) -> Seen:
        _, pid, nid = member(scene, [A])
        network = Network(nid, Vserver())
        del pid
        return scene.attack(lambda: attempt(operation, network, scene), inside=within)

    return probe


for _name, _what, _operation, _refusal in (
    ("enter", "net_migrate", lambda n, s: n.enter(), ("EPERM", "ENOSYS")),
    ("add", "net_add", lambda n, s: n.add(Address.parse("10.77.8.8")), ("EPERM", "ENOSYS")),
    ("flags", "set_nflags", lambda n, s: n.set_flags(Change(0, 8)), ("EPERM", "ENOSYS")),
    ("look", "get_nflags", lambda n, s: n.flags() and None, ("ESRCH", "ENOSYS")),
):
    check(
        f"net.command-{_name}",
        title=f"a member of a process context rules no network context ({_what})",
        attack=f"{_what} of a foreign network context, by root of a context",
        expected=_refusal,
        control=instead(ruled(_operation, within=False), "ok", "by the host"),
    )(ruled(_operation, within=True))


def named(within: bool) -> Probe:
    """Return a probe that asks for the network context of a foreign process."""

    def probe(scene: Scene) -> Seen:
        _, pid, _ = member(scene, [A])
        return scene.attack(
            lambda: attempt(lambda: "a number" if Vserver().task_nid(pid) > 1 else "none"), inside=within
        )

    return probe


check(
    "net.command-task",
    title="a member does not learn the network of a process that it cannot see",
    attack="task_nid with the pid of a process outside",
    expected=("ESRCH", "ENOSYS"),
    control=instead(named(False), "a number", "by the host"),
)(named(True))


# --- sockets that outlive


def reused(scene: Scene) -> Seen:
    """Let a listener outlive its context in other hands, and a new context take id and address."""
    machine()
    nid, port, kept = outlived(scene, A, "0.0.0.0")

    def new() -> str:
        network = join([B], nid=nid)
        end = bound("0.0.0.0", port)
        network.add(Address.parse("10.77.0.4"))
        end.close()
        return "bound"

    seen = scene.attack(lambda: attempt(new), inside=False)
    give("10.77.0.4")
    with kept:
        heard = [who(one, port) if one != A else backlog(one, port) for one in (A, B, "10.77.0.4")]
    return Seen(f"{seen.text}; {' '.join(heard)}")


def backlog(address: str, port: int) -> str:
    """Say whether a connection is taken by a listener that nobody serves."""
    try:
        socket.create_connection((address, port), 5).close()
    except OSError as error:
        return type(error).__name__
    return "old"


check(
    "net.reused-id",
    title="a new context of an old number does not adopt the sockets of the old one",
    attack="keep a listener of a context that has ended, make a context of its number with other addresses",
    expected="bound; old ECONNREFUSED ECONNREFUSED",
    control=instead(
        lambda s: Seen(who(A, server(s, "A", lambda: bound("0.0.0.0"), [A])[1])), "A", "a context that lives"
    ),
    vectors=["N74"],
    seconds=60,
)(reused)


def accepted(scene: Scene, *, confined: bool) -> Seen:
    """Accept in the hands of another: from where does the accepted socket's sibling call?"""
    machine()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def opener(link: Link) -> None:
        if confined:
            join([A])
        end = socket.socket(socket.AF_INET, STREAM)
        socket.send_fds(theirs, [b"here"], [end.fileno()])
        link.receive()

    scene.outsider(opener, keep=[theirs.fileno()])
    _, kept, _, _ = socket.recv_fds(ours, 64, 4)
    end = socket.socket(fileno=kept[0])
    return attempt(lambda: end.bind((HOST, 0)))


check(
    "net.socket-keeps-context",
    title="a socket keeps the context in which it was made",
    attack="pass a socket of a context to the host, which binds it to the host's address",
    expected="EADDRNOTAVAIL",
    control=instead(lambda s: accepted(s, confined=False), "ok", "a socket of the host"),
    vectors=["N68"],
)(lambda s: accepted(s, confined=True))


def passed(option: tuple[int, int, bytes] | None, address: str, *, confined: bool) -> Probe:
    """Return a probe that uses a socket of the host in a context: an option, or a bind to the host's address."""

    def probe(scene: Scene) -> Seen:
        machine()
        end = socket.socket(socket.AF_INET, DATAGRAM)

        def body() -> Seen:
            if confined:
                join([A])
            if option is not None:
                return attempt(end.setsockopt, *option)
            return attempt(end.bind, (address, 0))

        return scene.attack(body, inside=False, keep=[end.fileno()])

    return probe


_GROUP = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.7.7.8") + socket.inet_aton(HOST))
for _name, _option, _address, _error in (
    ("bind", None, HOST, "EADDRNOTAVAIL"),
    ("wildcard", None, "0.0.0.0", "EADDRNOTAVAIL"),
    ("join", _GROUP, HOST, "EPERM"),
):
    check(
        f"net.passed-{_name}",
        title=f"a socket of the host in a context follows the rules of the context ({_name})",
        attack="inherit a socket of the host and use it from inside",
        expected=_error,
        control=instead(passed(_option, _address, confined=False), "ok", "the host itself"),
        vectors=["N71"],
    )(passed(_option, _address, confined=True))
