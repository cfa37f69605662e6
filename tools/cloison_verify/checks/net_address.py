# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: addresses that come and go, kinds of entries, and many of them."""

from __future__ import annotations

import socket

from cloison.network import Address
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.net_life import backlog
from cloison_verify.nets import A, B, bound, give, inside, join, machine, outside, port_of
from cloison_verify.scene import Link, Scene, Seen

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def moved(scene: Scene, *, remove: bool) -> Seen:
    """Have a connection and a listener, then take the address off the list; who still answers?"""
    machine()

    def body(link: Link) -> None:
        network = join([A, B])
        end = bound("0.0.0.0")
        link.send(str(port_of(end)))
        peer, _ = end.accept()
        link.receive()
        if remove:
            network.remove(Address.parse(A))
        link.send("removed")
        link.receive()
        peer.sendall(b"still here")
        link.receive()

    actor = scene.outsider(body)
    port = int(actor.link.receive())
    with socket.create_connection((A, port), 5) as end:
        actor.link.send("connected")
        actor.link.receive()
        new = [backlog(one, port) for one in (A, B)]
        actor.link.send("answer")
        end.settimeout(5)
        old = end.recv(64).decode()
    return Seen(f"{old}; {' '.join(new)}")


check(
    "net.address-removed",
    title="a removed address gets no new connections, and the old ones stay",
    attack="remove an address from the list while it is in use",
    expected="still here; ConnectionRefusedError old",
    control=instead(lambda s: moved(s, remove=False), "still here; old old", "nothing is removed"),
    vectors=["N73"],
    seconds=40,
)(lambda s: moved(s, remove=True))


def kinds(entry: str, address: str) -> Probe:
    """Return a probe that binds to an address in a context with one entry."""

    def operation() -> None:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, DATAGRAM) as end:
            end.bind((address, 0))

    def probe(scene: Scene) -> Seen:
        machine()
        give(address)
        return inside(scene, [entry], operation)

    return probe


for _name, _entry, _out, _in in (
    ("range", "10.77.3.10-10.77.3.13", "10.77.3.14", "10.77.3.13"),
    ("range-begin", "10.77.3.10-10.77.3.13", "10.77.3.9", "10.77.3.10"),
    ("network", "net:10.77.4.0/30", "10.77.4.4", "10.77.4.3"),
    ("network6", "net:fd77:4::/120", "fd77:4::100", "fd77:4::ff"),
):
    check(
        f"net.entry-{_name}",
        title=f"an entry stands for what it says and for no address more ({_name})",
        attack=f"bind to {_out} with {_entry}",
        expected="EADDRNOTAVAIL",
        control=instead(kinds(_entry, _in), "ok", f"bind to {_in}"),
    )(kinds(_entry, _out))


def edited(remove: str) -> Probe:
    """Return a probe that removes an entry of a list of four kinds."""

    def operation() -> str:
        network = join(["10.1.0.1/16", "net:10.2.0.0/16", "10.3.0.1-10.3.0.9", "fd77::7/64", "net:fd78::/64"])
        network.remove(Address.parse(remove))
        return ", ".join(str(address) for address in network.addresses())

    return lambda scene: outside(scene, operation)


check(
    "net.remove-exactly",
    title="an entry is removed by what it is, and by nothing else",
    attack="remove an entry with another mask, end or kind",
    expected="ESRCH",
    control=instead(
        edited("net:10.2.0.0/16"), "10.1.0.1/16, 10.3.0.1-10.3.0.9, fd77::7/64, net:fd78::/64", "the entry itself"
    ),
)(edited("net:10.2.0.0/17"))


def many(count: int) -> Probe:
    """Return a probe: a context with many addresses shares the last of them, or none, with one on the same port."""

    def probe(scene: Scene) -> Seen:
        machine()
        shared = Address.parse("10.78.39.16")

        def holder(link: Link) -> None:
            network = join([])
            for number in range(count):
                network.add(Address.parse(f"{Address.parse('10.78.0.0').first + number}"))
            end = bound("0.0.0.0")
            link.send(str(port_of(end)))
            link.receive()

        actor = scene.outsider(holder)
        port = int(actor.link.receive())
        return inside(scene, [str(shared), B], lambda: bound("0.0.0.0", port).close())

    return probe


check(
    "net.many-addresses",
    title="one address in common among ten thousand is found",
    attack="bind to any address and a port that a context with 10,001 addresses has, sharing the last of them",
    expected="EADDRINUSE",
    control=instead(many(10_000), "ok", "the list ends before the shared address"),
    vectors=["N04"],
    seconds=120,
)(many(10_001))
