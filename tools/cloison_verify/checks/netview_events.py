# SPDX-License-Identifier: GPL-2.0-or-later
"""What a network context is told: notifications of netlink, device events, messages of other processes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from cloison_verify import netlink, rtnl
from cloison_verify.acts import answering, ask, expect_ready
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.netview_netlink import neighbour
from cloison_verify.checks.netview_refused import ON_HOST
from cloison_verify.networks import FAR, OWN4, street
from cloison_verify.scene import Link, Scene, SceneError, Seen

NETLINK_USERSOCK, NETLINK_KOBJECT_UEVENT = 2, 15
GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
"""Links, neighbours, addresses and routes of both families."""


def _told(scene: Scene, deed: Callable[[], None]) -> tuple[int, Callable[[], None]]:
    """Return a descriptor and what to call to have `deed` done by a process of the host."""
    reading, writing = os.pipe()

    def body(link: Link) -> None:
        link.send("ready")
        os.read(reading, 1)
        deed()

    expect_ready(scene.outsider(body, keep=[reading]))
    os.close(reading)

    def tell() -> None:
        os.write(writing, b"x")

    return writing, tell


def _notified(scene: Scene, *, inside: bool) -> Seen:
    """Listen while addresses come and go, at last the own one."""
    with street() as place:

        def deed() -> None:
            place.far.add("10.77.2.9", 24)
            neighbour(FAR)
            place.near.drop(OWN4, 24)
            place.near.add(OWN4, 24)

        writing, tell = _told(scene, deed)

        def operation() -> str:
            with rtnl.opened() as end:
                end.bind((0, GROUPS))
                tell()
                heard: set[str] = set()
                while True:
                    data = end.recv(1 << 16)
                    kind = struct.unpack_from("H", data, 4)[0]
                    if kind != rtnl.RTM_NEWADDR:
                        heard |= {"routes"} if kind in (24, 25) else {"neighbours"} if kind in (28, 29) else set()
                        continue
                    heard |= (texts := rtnl.address_texts([(kind, data[16:])]))
                    if OWN4 in texts:
                        return " ".join(sorted(heard - {"routes"}))

        return place.look(scene, operation, inside=inside, keep=(writing,))


check(
    "netview.notifications",
    title="a network context is told of its own addresses only",
    attack="bind to the groups of routing netlink while the host changes addresses and neighbours",
    expected=OWN4,
    control=instead(lambda scene: _notified(scene, inside=False), f"{OWN4} 10.77.2.9 neighbours", ON_HOST),
    vectors=["N32", "N26"],
)(lambda scene: _notified(scene, inside=True))


def _device_events(scene: Scene, *, inside: bool) -> Seen:
    with street() as place:

        def deed() -> None:
            Path(f"/sys/class/net/{FAR}/uevent").write_text("change", encoding="ascii")

        writing, tell = _told(scene, deed)

        def operation() -> str:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as end:
                end.bind((0, 1))
                end.settimeout(1)
                tell()
                with contextlib.suppress(TimeoutError):
                    end.recv(1 << 16)
                    return "an event"
                return "nothing"

        return place.look(scene, operation, inside=inside, keep=(writing,))


check(
    "netview.device-events",
    title="a network context hears of no devices",
    attack="bind to NETLINK_KOBJECT_UEVENT while a device changes",
    expected="nothing",
    control=instead(lambda scene: _device_events(scene, inside=False), "an event", ON_HOST),
    vectors=["N32"],
)(lambda scene: _device_events(scene, inside=True))


def _ear(scene: Scene, *, groups: int) -> tuple[int, Callable[[], str]]:
    """Start a process of the host that listens on NETLINK_USERSOCK; return its address and how to ask it."""
    ends: list[socket.socket] = []

    def begin() -> None:
        end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK)
        end.bind((0, groups))
        end.settimeout(1)
        ends.append(end)

    def heard() -> str:
        with contextlib.suppress(TimeoutError):
            ends[0].recv(100)
            return "heard"
        return "nothing"

    actor = expect_ready(scene.outsider(answering({"port": lambda: ends[0].getsockname()[0], "heard": heard}, begin)))
    return int(ask(actor, "port")), lambda: ask(actor, "heard")


def _whisper(scene: Scene, *, inside: bool) -> Seen:
    with street() as place:
        port, _heard = _ear(scene, groups=0)

        def operation() -> None:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK) as end:
                end.sendto(netlink.message(16, 0, b"word"), (port, 0))

        return place.look(scene, operation, inside=inside)


check(
    "netview.user-netlink",
    title="no message goes by netlink to a process outside",
    attack="NETLINK_USERSOCK, sendto() the port of a process of the host",
    expected="ECONNREFUSED",
    control=instead(lambda scene: _whisper(scene, inside=False), "ok", ON_HOST),
    vectors=["N34"],
)(lambda scene: _whisper(scene, inside=True))


def _shout(scene: Scene, *, inside: bool) -> Seen:
    with street() as place:
        _port, heard = _ear(scene, groups=1)

        def operation() -> None:
            with (
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK) as end,
                contextlib.suppress(ConnectionRefusedError),  # nobody has the number 0 there
            ):
                end.sendto(netlink.message(16, 0, b"word"), (0, 1))

        seen = place.look(scene, operation, inside=inside)
        if seen.text != "ok":
            raise SceneError(f"nothing was sent: {seen.text}")
        return Seen(heard())


check(
    "netview.user-broadcast",
    title="no message goes by netlink to a group in which processes outside listen",
    attack="NETLINK_USERSOCK, sendto() a group",
    expected="nothing",
    control=instead(lambda scene: _shout(scene, inside=False), "heard", ON_HOST),
    vectors=["N34"],
)(lambda scene: _shout(scene, inside=True))
