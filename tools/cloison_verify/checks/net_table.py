# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: random lists of addresses, networks and ranges, against a model that asks every entry."""

from __future__ import annotations

import errno
import random
import socket
from ipaddress import IPv4Address

from cloison.abi_network import AddressType
from cloison.network import Address, Network
from cloison.syscall import ExistsError
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import bound, give, join, machine, port_of
from cloison_verify.scene import Link, Scene, Seen, attempt

FIRST, SIZE, ROUNDS = IPv4Address("10.79.0.0"), 16, 40


def _entry(chance: random.Random) -> Address:
    a, b = sorted(chance.randrange(SIZE) for _ in range(2))
    kind = chance.choice((AddressType.ADDR, AddressType.MASK, AddressType.RANGE))
    bits = chance.randrange(4)
    if kind is AddressType.MASK:
        start = FIRST + (a >> bits << bits)
        return Address(kind, start, start, 32 - bits)
    return Address(kind, FIRST + a, FIRST + (b if kind is AddressType.RANGE else a), 32)


def _has(entry: Address, address: IPv4Address) -> bool:
    size = 1 << 32 - entry.prefix if entry.kind is AddressType.MASK else int(entry.last) - int(entry.first) + 1
    return int(entry.first) <= int(address) < int(entry.first) + size


def _owned(entries: list[Address]) -> set[IPv4Address]:
    return {FIRST + n for n in range(SIZE) if any(_has(entry, FIRST + n) for entry in entries)}


def _change(network: Network, entries: list[Address], chance: random.Random) -> None:
    """Add or remove an entry, in the kernel and in the model."""
    if entries and (len(entries) > 5 or chance.random() < 0.4):
        gone = entries.pop(chance.randrange(len(entries)))
        network.remove(gone)
        return
    new = _entry(chance)
    try:
        network.add(new)
    except ExistsError:
        if new not in entries:
            raise
        return
    entries.append(new)


def _bindable() -> set[IPv4Address]:
    """Return the addresses that the caller can bind to."""
    found = set()
    for number in range(SIZE):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            try:
                end.bind((str(FIRST + number), 0))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                continue
            found.add(FIRST + number)
    return found


def compared(forget: int) -> Probe:
    """Return a probe that changes two contexts at random; the model forgets its last `forget` entries.

    One context tells the other what it has and holds a port on any address; the other one binds.
    """

    def probe(scene: Scene) -> Seen:
        machine()
        give(*(str(FIRST + number) for number in range(SIZE)))
        chance = random.Random(4711)

        def other(link: Link) -> None:
            network, entries, mine = join([]), list[Address](), random.Random(42)
            end = bound("0.0.0.0", 0, socket.SOCK_DGRAM)
            while True:
                _change(network, entries, mine)
                numbers = sorted(int(one) - int(FIRST) for one in _owned(entries))
                link.send(" ".join([str(port_of(end)), *map(str, numbers)]))
                link.receive()

        actor = scene.outsider(other)

        def told() -> tuple[int, set[IPv4Address]]:
            port, *numbers = (int(word) for word in actor.link.receive().split())
            return port, {FIRST + number for number in numbers}

        def body() -> Seen:
            network, entries = join([]), list[Address]()
            for _turn in range(ROUNDS):
                port, theirs = told()
                _change(network, entries, chance)
                wrong = _compare(entries[: len(entries) - forget], theirs, port)
                if wrong:
                    return Seen("differs" if forget else wrong)
                actor.link.send("next")
            return Seen("as the entries say")

        return scene.attack(body, inside=False, keep=[actor.link.socket.fileno()])

    return probe


def _compare(entries: list[Address], theirs: set[IPv4Address], port: int) -> str:
    """Say what the kernel does otherwise than these entries say; '' if nothing."""
    owned = _owned(entries)
    if _bindable() != owned:
        return f"binds to {sorted(_bindable() ^ owned)} otherwise"
    seen = attempt(_wildcard, port).errno
    expected = "EADDRINUSE" if owned & theirs else None
    return "" if seen == expected else f"any address: {seen} instead of {expected}"


def _wildcard(port: int) -> None:
    bound("0.0.0.0", port, socket.SOCK_DGRAM).close()


check(
    "net.table-random",
    title="what a list of entries means is what each of them means",
    attack="change two lists at random; bind to every address, and to any address on a port of the other context",
    expected="as the entries say",
    control=instead(compared(1), "differs", "a model that forgets an entry"),
    vectors=["N04"],
    seconds=120,
)(compared(0))
