# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices: a node in the files of a context is worth nothing unless the host has mapped the device."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison import abi
from cloison.abi import Command
from cloison.context import Context
from cloison.devices import ALL, DeviceRights, paths, rules
from cloison.syscall import Vserver
from cloison_verify.acts import call
from cloison_verify.catalogue import check, instead
from cloison_verify.mounting import NOTHING, PLACE, each, grant, guest, node
from cloison_verify.scene import Scene, Seen, attempt

Number = tuple[str, int, int]
OPEN = DeviceRights.OPEN


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))


def _reached(path: str) -> str:
    """Say how far an open got: refused before the driver, or decided by it."""
    found = attempt(_open, path).text
    return found if found in ("EACCES", "EPERM") else "the driver"


def _reach(numbers: tuple[Number, ...]) -> str:
    return " ".join(sorted({_reached(f"{PLACE}/{kind}-{major}-{minor}") for kind, major, minor in numbers}))


def _nodes(numbers: tuple[Number, ...]) -> None:
    for number in numbers:
        node(*number)


def _closed(name: str, vectors: list[str], what: str, *numbers: Number) -> None:
    """Register a check of devices that no context opens; control: the host, with the same nodes, reaches their drivers.

    A driver that the kernel lacks says ENXIO or ENODEV there, which is an answer too: nothing stood before it.
    """
    check(
        f"device.{name}",
        title=f"a context does not open {what}",
        attack=f"open of nodes {' '.join(f'{kind} {major}:{minor}' for kind, major, minor in numbers)}",
        expected="EACCES",
        control=instead(
            lambda scene: guest(scene, lambda: _reach(numbers), before=lambda: _nodes(numbers), inside=False),
            "the driver",
            "the host",
        ),
        vectors=vectors,
    )(lambda scene: guest(scene, lambda: _reach(numbers), before=lambda: _nodes(numbers)))


_closed("memory", ["D01"], "physical memory and ports", ("c", 1, 1), ("c", 1, 2), ("c", 1, 4))
_closed("kernel-log", [], "the kernel's log", ("c", 1, 11))
_closed("consoles", ["D08"], "consoles and their screens", ("c", 5, 1), ("c", 4, 1), ("c", 7, 0), ("c", 7, 128))
_closed("input", ["D08"], "input devices", ("c", 13, 64), ("c", 13, 63), ("c", 10, 223))
_closed("loop-control", ["D10"], "loop devices and their control", ("c", 10, 237), ("b", 7, 0))
_closed("fuse", ["D11"], "FUSE and CUSE", ("c", 10, 229), ("c", 10, 203))
_closed("hardware", ["D13"], "the state of hardware", ("c", 10, 144), ("c", 10, 135), ("c", 202, 0))
_closed("scsi", ["D14"], "SCSI devices", ("c", 21, 0), ("b", 8, 0), ("b", 11, 0))
_closed("snapshot", ["D17"], "the image of hibernation", ("c", 10, 231))
_closed(
    "controls",
    ["D19"],
    "control nodes of file systems and radios",
    ("c", 10, 234),
    ("c", 10, 235),
    ("c", 10, 242),
    ("c", 108, 0),
    ("c", 10, 238),
)
_closed("mapper", ["F49"], "the device mapper's control", ("c", 10, 236), ("b", 253, 0))
_closed("block-control", ["F50"], "other block devices", ("b", 43, 0), ("b", 9, 0), ("b", 254, 0), ("c", 10, 126))
_closed("quota-proxy", ["D20"], "a quota proxy", ("b", 4, 0))


def _disk() -> Number:
    """Return the block device that / lies on."""
    device = Path("/").stat().st_dev
    return "b", os.major(device), os.minor(device)


def _read_disk(number: Number) -> str:
    descriptor = os.open(f"{PLACE}/{number[0]}-{number[1]}-{number[2]}", os.O_RDONLY)
    try:
        return f"{len(os.read(descriptor, 512))} bytes"
    finally:
        os.close(descriptor)


def _image(scene: Scene, *, inside: bool) -> Seen:
    number = _disk()
    return guest(scene, lambda: _read_disk(number), before=lambda: node(*number), inside=inside)


check(
    "device.node-in-image",
    title="a node of the host's disk that came with an image does not open",
    attack="open of a node of the disk, made before the context came",
    expected="EACCES",
    control=instead(lambda scene: _image(scene, inside=False), "512 bytes", "the host"),
    vectors=["F16"],
)(lambda scene: _image(scene, inside=True))


def _userfaultfd() -> Number:
    for line in Path("/proc/misc").read_text(encoding="ascii").splitlines():
        minor, name = line.split()
        if name == "userfaultfd":
            return "c", 10, int(minor)
    raise OSError("no userfaultfd")


def _faults(scene: Scene, *, inside: bool) -> Seen:
    number = _userfaultfd()
    return guest(scene, lambda: _reach((number,)), before=lambda: node(*number), inside=inside)


check(
    "device.userfaultfd",
    title="a context does not open /dev/userfaultfd",
    attack="open of its node",
    expected="EACCES",
    control=instead(lambda scene: _faults(scene, inside=False), "the driver", "the host"),
    vectors=["D16"],
    not_on={"uml": "ARCH=um has no userfaultfd"},
)(lambda scene: _faults(scene, inside=True))

_HARMLESS: tuple[tuple[str, Number], ...] = (
    ("null", ("c", 1, 3)),
    ("zero", ("c", 1, 5)),
    ("full", ("c", 1, 7)),
    ("random", ("c", 1, 8)),
    ("urandom", ("c", 1, 9)),
    ("tty", ("c", 5, 0)),
)


def _usable() -> str:
    """Return which of the devices that everybody has can be used. Without a terminal, tty answers ENXIO."""
    found = [name for name, (kind, a, b) in _HARMLESS if _reached(f"{PLACE}/{kind}-{a}-{b}") == "the driver"]
    master, slave = os.openpty()
    if _reached(os.ttyname(slave)) == "the driver":
        found.append("ptmx pts")
    os.close(master)
    os.close(slave)
    return " ".join(found)


def _harmless_nodes() -> None:
    _nodes(tuple(number for _, number in _HARMLESS))


def _without_null(scene: Scene) -> Seen:
    """Take one of them away."""
    Context(scene.xid, Vserver()).map_device("/dev/null", None, DeviceRights(0))
    return guest(scene, _usable, before=_harmless_nodes)


check(
    "device.everybody",
    title="a context has the devices that every program needs",
    attack="open of null, zero, full, random, urandom, tty, ptmx, pts",
    expected="null zero full random urandom tty ptmx pts",
    control=instead(
        _without_null, "zero full random urandom tty ptmx pts", "a context from which the host has taken null"
    ),
    vectors=["D22"],
)(lambda scene: guest(scene, _usable, before=_harmless_nodes))


def _make_nodes() -> str:
    def made(name: str, kind: int, number: int = 0) -> Callable[[], object]:
        return lambda: os.mknod(f"{PLACE}/{name}", kind | 0o600, number)

    return each(
        fifo=made("fifo", stat.S_IFIFO),
        socket=made("socket", stat.S_IFSOCK),
        whiteout=made("whiteout", stat.S_IFCHR),
        null=made("null", stat.S_IFCHR, os.makedev(1, 3)),
        disk=made("disk", stat.S_IFBLK, os.makedev(7, 0)),
    )


def _mapped_nodes(scene: Scene) -> Seen:
    context = grant(scene, NOTHING)
    for kind in ("char", "block"):
        with paths(kind) as (device, target):
            context.map_device(device, target, OPEN | DeviceRights.CREATE)
    return guest(scene, _make_nodes)


check(
    "device.nodes",
    title="a context makes FIFOs, sockets and whiteouts, but no nodes of devices",
    attack="mknod with CAP_MKNOD",
    expected="fifo ok, socket ok, whiteout ok, null EPERM, disk EPERM",
    control=instead(
        _mapped_nodes, "fifo ok, socket ok, whiteout ok, null ok, disk ok", "a context to which all devices are mapped"
    ),
    vectors=["F17"],
)(lambda scene: guest(scene, _make_nodes))

_FULL: Number = ("c", 10, 229)


def _mapping(steps: Callable[[Context], object]) -> Callable[[Scene], Seen]:
    """Return a probe that opens /dev/fuse in a context after the host has done something with its table."""

    def probe(scene: Scene) -> Seen:
        steps(grant(scene, NOTHING))
        return guest(scene, lambda: _reach((_FULL,)), before=lambda: node(*_FULL))

    return probe


@contextmanager
def _fuse() -> Iterator[str]:
    with paths("c:10:229") as (device, _):
        assert device is not None
        yield device


def _map_unmap(context: Context) -> None:
    with _fuse() as device:
        context.map_device(device, None, OPEN)
        if [(rule.number, rule.rights) for rule in rules(context.xid)] != [("10:229", OPEN)]:
            raise OSError("the table does not show the rule")
        context.unmap_device(device, None)


def _map(context: Context) -> None:
    with _fuse() as device:
        context.map_device(device, None, OPEN)


check(
    "device.map-unmap",
    title="a rule that is taken back is gone, a rule that is there counts",
    attack="open(/dev/fuse) after map and unmap",
    expected="EACCES",
    control=instead(_mapping(_map), "the driver", "after map"),
    vectors=["D11"],
)(_mapping(_map_unmap))


def _all_but_one(context: Context) -> None:
    """Map the device to all contexts but this one."""
    with _fuse() as device:
        context.map_device(device, None, DeviceRights(0))
        Context(ALL, Vserver()).map_device(device, None, OPEN)


def _all(context: Context) -> None:
    with _fuse() as device:
        Context(ALL, Vserver()).map_device(device, None, OPEN)


def _and_back(probe: Callable[[Scene], Seen]) -> Callable[[Scene], Seen]:
    def done(scene: Scene) -> Seen:
        try:
            return probe(scene)
        finally:
            with _fuse() as device:
                Context(ALL, Vserver()).unmap_device(device, None)

    return done


check(
    "device.map-order",
    title="a rule of the context counts before one of all contexts",
    attack="open(/dev/fuse) where all contexts may and this one may not",
    expected="EACCES",
    control=instead(_and_back(_mapping(_all)), "the driver", "a context without a rule of its own"),
    vectors=["D11"],
)(_and_back(_mapping(_all_but_one)))


def _quota() -> None:
    """Ask the file system of / for its quotas."""
    number = _disk()
    path = f"{PLACE}/{number[0]}-{number[1]}-{number[2]}".encode()
    name, answer = ctypes.create_string_buffer(path), ctypes.create_string_buffer(256)
    q_getfmt = 0x800004 << 8
    call("quotactl", q_getfmt, ctypes.addressof(name), 0, ctypes.addressof(answer))


def _quotas(scene: Scene, *, inside: bool) -> Seen:
    number = _disk()
    return guest(scene, _quota, before=lambda: node(*number), inside=inside)


check(
    "device.quota",
    title="a context asks nothing of a file system's quotas",
    attack="quotactl(Q_GETFMT) on the disk with every capability",
    expected="EPERM",
    # No quota is on there: the file system answers.
    control=instead(lambda scene: _quotas(scene, inside=False), ("ESRCH", "ENOSYS", "ok"), "the host"),
    vectors=["D20", "L41"],
)(lambda scene: _quotas(scene, inside=True))


def _answer(xid: int, device: str | None, target: str | None, flags: int = OPEN, *, unset: bool = False) -> str:
    """Return what a command about devices answers."""
    command = Command.UNSET_MAPPING if unset else Command.SET_MAPPING
    names = [name.encode() if name is not None else None for name in (device, target)]
    data = abi.SetMapping(names[0], names[1], flags)
    return attempt(lambda: Vserver().call(command, xid, data)).text


def _wrong(scene: Scene) -> Seen:
    """Give the commands what they must refuse."""
    xid = scene.xid
    return Seen(
        ", ".join(
            (
                _answer(xid, None, None),
                _answer(xid, "/dev/null", "/dev/nowhere"),
                _answer(xid, "/etc/passwd", None),
                _answer(xid, "/dev/null", None, 0x10),
                _answer(xid, "/dev/null", None, 0x4),
                _answer(1, "/dev/null", None),
                _answer(xid, "/dev/null", None, unset=True),
            )
        )
    )


def _right(scene: Scene) -> Seen:
    """Give them what they must take; a default is taken back with the answer 0, also where there is none."""
    xid = scene.xid
    return Seen(
        ", ".join(
            (
                _answer(xid, "/dev/null", "/dev/zero"),
                _answer(xid, None, "/dev/zero"),
                _answer(xid, "/dev/null", None, unset=True),
                _answer(xid, None, "/dev/zero", unset=True),
                _answer(xid, None, "/dev/zero", unset=True),
            )
        )
    )


check(
    "device.commands",
    title="the commands about devices refuse what they cannot mean",
    attack="set_mapping without a device, with none, two types, REMAP, unknown flags, wrong ids; unset of nothing",
    expected="EINVAL, ENOENT, EINVAL, ENOTSUP, EINVAL, ESRCH, ENOENT",
    control=instead(_right, "0, 0, 1, 0, 0", "what they must take"),
)(_wrong)


def _from_inside(scene: Scene, *, inside: bool) -> Seen:
    xid = scene.xid
    return scene.attack(lambda: Seen(_answer(xid, "/dev/null", None)), inside=inside)


check(
    "device.commands-inside",
    title="a context does not change its own table",
    attack="set_mapping for the own context with every capability",
    expected="EPERM",
    control=instead(lambda scene: _from_inside(scene, inside=False), "0", "the host"),
    vectors=["F16"],
)(lambda scene: _from_inside(scene, inside=True))
