# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts: the loopback addresses that each has for itself."""

from __future__ import annotations

import socket
from collections.abc import Callable

from cloison.flags import NETWORK_DEFAULT, NetworkFlags
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.nets import (
    A6,
    B6,
    A,
    B,
    asked,
    bound,
    inside,
    outside,
    port_of,
    server,
)
from cloison_verify.scene import Scene, Seen

STREAM, DATAGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW


def in_a(operation: Callable[[], object]) -> Probe:
    """Return a probe of an operation in a context with A's addresses."""
    return lambda scene: inside(scene, [A, A6], operation)


def private(scene: Scene, address: str, place: str) -> Seen:
    """Serve on a loopback address in A; call it from A itself, from B, or from the host."""

    def own() -> str:
        with bound(address) as end, socket.create_connection((address, port_of(end)), 5) as caller_:
            peer, who_ = end.accept()
            with peer:
                return f"{end.getsockname()[0]} {caller_.getpeername()[0]} {who_[0]}"

    if place == "A":
        return inside(scene, [A, A6], own)
    _, port = server(scene, "A", lambda: bound(address), [A, A6])
    if place == "B":
        return inside(scene, [B, B6], lambda: asked(address, port))
    return outside(scene, lambda: asked(address, port))


def loopback(address: str, place: str) -> Probe:
    """Return the probe `private` with these arguments."""
    return lambda scene: private(scene, address, place)


for _name, _loop, _row in (("4", "127.0.0.1", "N49"), ("6", "::1", "N50")):
    for _place in ("B", "host"):
        check(
            f"net.loopback-{_name}-from-{_place.lower()}",
            title=f"what listens on {_loop} in a context is reached from there alone",
            attack=f"connect to {_loop} and the port, from {'another context' if _place == 'B' else 'the host'}",
            expected="ECONNREFUSED",
            control=instead(loopback(_loop, "A"), f"{_loop} {_loop} {_loop}", "from the context, names included"),
            vectors=[_row],
            seconds=40,
        )(loopback(_loop, _place))


def host_loopback(address: str, target: str, *, confined: bool) -> Probe:
    """Return a probe: the host serves on a loopback address, and `target` is called."""

    def probe(scene: Scene) -> Seen:
        _, port = server(scene, "host", lambda: bound(address))

        def operation() -> str:
            return asked(target, port).split()[0]

        return inside(scene, [A, A6], operation) if confined else outside(scene, operation)

    return probe


for _name, _serve, _to in (
    ("4", "127.0.0.1", "127.0.0.1"),
    ("6", "::1", "::1"),
    ("any-4", "127.0.0.1", "0.0.0.0"),
    ("any-6", "::1", "::"),
    ("mapped", "127.0.0.1", "::ffff:127.0.0.1"),
    ("other", "127.0.0.5", "127.0.0.5"),
):
    check(
        f"net.host-loopback-{_name}",
        title=f"{_to} does not lead to the host",
        attack=f"connect to {_to} while the host listens on {_serve}",
        expected="ECONNREFUSED",
        control=instead(host_loopback(_serve, _to, confined=False), "host", "from the host"),
        vectors=["N49"] if _name.startswith("any") else ["N50"],
        seconds=40,
    )(host_loopback(_serve, _to, confined=True))


def no_remap(flags: NetworkFlags) -> Probe:
    """Return a probe that sends a datagram to 127.0.0.1 in a context without a loopback address of its own."""

    def operation() -> None:
        with socket.socket(socket.AF_INET, DATAGRAM) as end:
            end.sendto(b"x", ("127.0.0.1", 9))

    return lambda scene: inside(scene, [A], operation, flags=flags)


_BARE = NETWORK_DEFAULT & ~(NetworkFlags.LBACK_REMAP | NetworkFlags.HIDE_LBACK)
check(
    "net.loopback-refused",
    title="without remapping and without leave, 127.0.0.1 is out of reach",
    attack="sendto 127.0.0.1",
    expected="EPERM",
    control=instead(no_remap(_BARE | NetworkFlags.LBACK_ALLOW), "ok", "with LBACK_ALLOW"),
    vectors=["N49"],
)(no_remap(_BARE))


def told(place: str) -> Probe:
    """Return a probe that sends to 127.0.0.1 from a context in which somebody listens there, or from another one."""

    def operation(port: int) -> str:
        with socket.socket(socket.AF_INET, DATAGRAM) as end:
            end.settimeout(1)
            end.sendto(b"?", ("127.0.0.1", port))
            try:
                return end.recvfrom(64)[0].decode()
            except TimeoutError:
                return "nothing"

    def own() -> str:
        with bound("127.0.0.1", 0, DATAGRAM) as end:
            port = port_of(end)
            with socket.socket(socket.AF_INET, DATAGRAM) as other:
                other.sendto(b"?", ("127.0.0.1", port))
                end.settimeout(5)
                return f"a message from {end.recvfrom(64)[1][0]}"

    def probe(scene: Scene) -> Seen:
        if place == "own":
            return inside(scene, [A], own)
        _, port = server(scene, "A", lambda: bound("127.0.0.1", 0, DATAGRAM), [A])
        return inside(scene, [B], lambda: operation(port))

    return probe


check(
    "net.loopback-message",
    title="messages to 127.0.0.1 stay in the context, and arrive there",
    attack="sendto 127.0.0.1 within a context",
    expected="a message from 127.0.0.1",
    control=instead(told("other"), "nothing", "from another context"),
    vectors=["N49"],
    seconds=40,
)(told("own"))


def shown(flags: NetworkFlags) -> Probe:
    """Return a probe that says as what 127.0.0.1 is seen after bind."""

    def operation() -> str:
        with bound("127.0.0.1") as end:
            return "127.0.0.1" if end.getsockname()[0] == "127.0.0.1" else "what it stands for"

    return lambda scene: inside(scene, [A], operation, flags=flags)


check(
    "net.loopback-hidden",
    title="what 127.0.0.1 stands for is not seen",
    attack="getsockname after bind to 127.0.0.1",
    expected="127.0.0.1",
    control=instead(shown(NETWORK_DEFAULT & ~NetworkFlags.HIDE_LBACK), "what it stands for", "without HIDE_LBACK"),
)(shown(NETWORK_DEFAULT))
