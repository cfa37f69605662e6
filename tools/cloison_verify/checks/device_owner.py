# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that belong to a context: loop devices, mapped devices, pseudo terminals."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloison.context import Context
from cloison.devices import DeviceRights, paths
from cloison.flags import ContextCaps
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.mounting import NOTHING, PLACE, grant, guest, node, own_mounts
from cloison_verify.scene import Link, Scene, Seen, attempt

OPEN = DeviceRights.OPEN
LOOP_SET_FD, LOOP_CLR_FD = 0x4C00, 0x4C01
LOOP = 7
"""The minor number of the loop device of these checks."""


def _map(context: Context, *devices: str) -> None:
    for device in devices:
        with paths(device) as (path, target):
            context.map_device(path, target, OPEN)


# Loop devices


def _loop(scene: Scene) -> Seen:
    """Open a loop device that the victim has set up; the device is mapped to the attacker's context."""
    context = grant(scene, NOTHING)
    _map(context, f"b:7:{LOOP}")
    own_mounts()
    path = node("b", 7, LOOP)

    def set_up(link: Link) -> None:
        backing = os.open(f"{PLACE}/file", os.O_RDWR | os.O_CREAT)
        os.truncate(backing, 1 << 20)
        device = os.open(path, os.O_RDWR)
        fcntl.ioctl(device, LOOP_SET_FD, backing)
        link.send("ready")
        link.receive()
        fcntl.ioctl(device, LOOP_CLR_FD)
        os.close(device)
        link.send("done")

    victim = scene.victim(set_up)
    victim.link.receive()
    try:
        return scene.attack(lambda: attempt(lambda: os.close(os.open(path, os.O_RDWR))))
    finally:
        victim.link.send("end")
        victim.link.receive()


check(
    "device.loop",
    title="a context does not open the loop device of another, though it is mapped",
    attack="open of a mapped loop device that the host has set up",
    expected="EACCES",
    control=same_context("ok"),
    vectors=["F16"],
)(_loop)


def _bind(scene: Scene, *, inside: bool) -> Seen:
    """Set up a loop device that somebody had opened while it was free."""
    _map(grant(scene, NOTHING), f"b:7:{LOOP}")
    own_mounts()
    path = node("b", 7, LOOP)

    def wait(link: Link) -> None:
        device = os.open(path, os.O_RDWR)
        link.send("open")
        link.receive()
        os.close(device)
        link.send("closed")

    def set_up() -> None:
        backing = os.open(f"{PLACE}/file", os.O_RDWR | os.O_CREAT)
        os.truncate(backing, 1 << 20)
        device = os.open(path, os.O_RDWR)
        try:
            fcntl.ioctl(device, LOOP_SET_FD, backing)
            fcntl.ioctl(device, LOOP_CLR_FD)
        finally:
            os.close(device)
            os.close(backing)

    waiting = scene.insider(wait) if inside else scene.outsider(wait)
    waiting.link.receive()
    seen = attempt(set_up)
    waiting.link.send("end")
    waiting.link.receive()
    return Seen(f"{seen.text}, then {attempt(set_up).text}", seen.errno)


check(
    "device.loop-waiting",
    title="nobody gets a loop device that a context had opened before",
    attack="LOOP_SET_FD by the host while a process of a context has the device open, and when it has closed it",
    expected="EBUSY, then ok",
    control=instead(lambda scene: _bind(scene, inside=False), "ok, then ok", "a process of the host has it open"),
    vectors=["F16"],
)(lambda scene: _bind(scene, inside=True))

# The device mapper

_DM_SIZE = 312
REMOVE_ALL, LIST, CREATE, REMOVE, RENAME, STATUS = 1, 2, 3, 4, 5, 7


def _dm(control: int, command: int, name: str = "", data: bytes = b"") -> bytes:
    """Make an ioctl of the device mapper; return what it answers."""
    size = 16384
    head = struct.pack("<3I2IIIiII Q128s129s7s", 4, 0, 0, size, _DM_SIZE, 0, 0, 0, 0, 0, 0, name.encode(), b"", b"")
    buffer = ctypes.create_string_buffer(head + data, size)
    fcntl.ioctl(control, 0xC138FD00 | command, buffer, True)
    return buffer.raw


def _control() -> int:
    return os.open(f"{PLACE}/c-10-236", os.O_RDWR)


def _mapper(*, granted: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        context = grant(scene, ContextCaps.ADMIN_MAPPER if granted else NOTHING)
        _map(context, "c:10:236")
        return guest(scene, lambda: _dm(_control(), LIST) and None, before=lambda: node("c", 10, 236))

    return probe


check(
    "device.mapper-control",
    title="the device mapper's control is of no use without the grant",
    attack="DM_LIST_DEVICES through a mapped control node, with every capability",
    expected="EACCES",
    control=instead(_mapper(granted=True), "ok", "a context with ADMIN_MAPPER"),
    vectors=["F49"],
)(_mapper(granted=False))


@contextmanager
def _mapped_device(name: str) -> Iterator[None]:
    control = _control()
    _dm(control, CREATE, name)
    try:
        yield
    finally:
        for each in (name, "stolen"):
            with contextlib.suppress(OSError):
                _dm(control, REMOVE, each)
        os.close(control)


def _touch(name: str) -> str:
    control = _control()
    listed = name.encode() in _dm(control, LIST)
    status = attempt(lambda: _dm(control, STATUS, name) and None).text
    renamed = attempt(lambda: _dm(control, RENAME, name, b"stolen\0") and None).text
    return f"{'listed' if listed else 'not listed'}, status {status}, rename {renamed}"


def _owned(scene: Scene) -> Seen:
    context = grant(scene, ContextCaps.ADMIN_MAPPER)
    _map(context, "c:10:236")
    own_mounts()
    node("c", 10, 236)

    def make(link: Link) -> None:
        with _mapped_device("check"):
            link.send("ready")
            link.receive()
        link.send("done")

    owner = scene.victim(make)
    owner.link.receive()
    try:
        return scene.attack(lambda: attempt(lambda: _touch("check")))
    finally:
        owner.link.send("end")
        owner.link.receive()


check(
    "device.mapper-owner",
    title="a context neither finds nor changes a mapped device of another",
    attack="DM_LIST_DEVICES, DM_DEV_STATUS, DM_DEV_RENAME with ADMIN_MAPPER",
    expected="not listed, status ENXIO, rename ENXIO",
    control=same_context("listed, status ok, rename ok"),
    vectors=["F49"],
)(_owned)


def _remove_all(*, inside: bool) -> Callable[[Scene], Seen]:
    def probe(scene: Scene) -> Seen:
        _map(grant(scene, ContextCaps.ADMIN_MAPPER), "c:10:236")
        return guest(
            scene, lambda: _dm(_control(), REMOVE_ALL) and None, before=lambda: node("c", 10, 236), inside=inside
        )

    return probe


check(
    "device.mapper-remove-all",
    title="only the host removes all mapped devices at once",
    attack="DM_REMOVE_ALL with ADMIN_MAPPER",
    expected="EPERM",
    control=instead(_remove_all(inside=False), "ok", "the host"),
    vectors=["F49"],
)(_remove_all(inside=True))

# Pseudo terminals

TIOCGPTPEER, TIOCSPTLCK = 0x5441, 0x40045431


def _terminal(operation: Callable[[int, str], object]) -> Callable[[Scene], Seen]:
    """Return a probe that does something with the pseudo terminal of the victim; it gets the master, too."""

    def probe(scene: Scene) -> Seen:
        def own(link: Link) -> None:
            master, slave = pty.openpty()
            link.send(os.ttyname(slave), [master])
            link.receive()

        owner = scene.victim(own)
        name, (master,) = owner.link.receive_with_descriptors()
        try:
            return scene.attack(lambda: attempt(operation, master, name), keep=[master])
        finally:
            os.close(master)

    return probe


def _peer(master: int, _name: str) -> None:
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    os.close(fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY))


for _name, _operation in (
    ("open", lambda _master, name: os.close(os.open(name, os.O_RDWR | os.O_NOCTTY))),
    ("peer", _peer),
):
    check(
        f"device.pty-{_name}",
        title="the pseudo terminal of another context does not open",
        attack="open(/dev/pts/N) of the host" if _name == "open" else "TIOCGPTPEER on a master that the host handed in",
        expected="ENOENT",
        control=same_context("ok"),
        vectors=["F71"],
    )(_terminal(_operation))


def _own_terminal(scene: Scene, *, controlling: bool) -> Seen:
    """Open by name the terminal that the host has given to the context's session, as cloison exec does."""
    context = grant(scene, NOTHING)

    def body() -> Seen:
        _master, slave = pty.openpty()  # stays open: without it the session hangs up
        name = os.ttyname(slave)
        os.setsid()
        if controlling:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        context.enter()
        return attempt(lambda: os.close(os.open(name, os.O_RDWR | os.O_NOCTTY)))

    return scene.attack(body, inside=False)


check(
    "device.pty-controlling",
    title="a terminal that the host made opens inside only as the controlling one",
    attack="open(/dev/pts/N) of a terminal that is inherited, and not the controlling one",
    expected="ENOENT",
    control=instead(lambda scene: _own_terminal(scene, controlling=True), "ok", "the controlling terminal"),
    vectors=["F71"],
)(lambda scene: _own_terminal(scene, controlling=False))
