# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of contexts: how people write them, the kernel's table of them, and what a context may mount."""

from __future__ import annotations

import argparse
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from cloison.errors import CloisonError, Exit
from cloison.flags import ContextCaps, parse

ALL = 0
"""Id that stands for all contexts in the commands about devices."""

HARMLESS = "null, zero, full, random, urandom, tty, ptmx, pts/*"
"""What every context may open from the start."""


class DeviceRights(IntFlag):
    """What a context may do with a device."""

    CREATE = 0x1
    OPEN = 0x2


RIGHT_WORDS: dict[str, int] = {"create": DeviceRights.CREATE, "open": DeviceRights.OPEN}
MOUNT_WORDS: dict[str, int] = {
    "mount": ContextCaps.SECURE_MOUNT,
    "binary": ContextCaps.BINARY_MOUNT,
    "remount": ContextCaps.SECURE_REMOUNT,
    "devices": ContextCaps.DEV_MOUNT,
}
"""What the host can grant about mounts, by the words of ``cloison mount``."""
MOUNT_MEANING: dict[str, str] = {
    "mount": "mount, move and unmount in a mount namespace of its own",
    "binary": "file systems without a device, such as tmpfs, overlay and nfs",
    "remount": "change options of a file system that others may use too",
    "devices": "mounts on which device nodes work",
}

_NUMBER = re.compile(r"([bc]):(\d+):(\d+)")
_LINE = re.compile(r"([bc]) (\*|\d+:\d+) ([0-9a-f]+)")


@dataclass(frozen=True)
class Rule:
    """A line of a context's table. `number` is "major:minor", or "*" for every device of the kind (b or c)."""

    kind: str
    number: str
    rights: DeviceRights


def rules(xid: int, proc: Path = Path("/proc")) -> list[Rule]:
    """Read the table of a context, or of all contexts together (`ALL`). Raises FileNotFoundError, ValueError."""
    source = proc / "virtual" / (f"{xid}/devices" if xid else "devices")
    found = []
    for line in source.read_text(encoding="ascii").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{source}: no rule: {line}")
        found.append(Rule(match[1], match[2], DeviceRights(int(match[3], 16))))
    return sorted(found, key=lambda rule: (rule.kind, rule.number))


@contextmanager
def paths(device: str) -> Iterator[tuple[str | None, str | None]]:
    """Give the paths that a command wants for what people wrote: the device's, and for a default the kind's.

    A device is a path, ``c:MAJOR:MINOR`` or ``b:MAJOR:MINOR`` (which need no node), or ``char`` or ``block``
    for every device of that kind. Nodes are made where nobody else looks, for as long as the command takes.
    """
    number = _NUMBER.fullmatch(device)
    default = {"char": (stat.S_IFCHR, 1, 3), "block": (stat.S_IFBLK, 7, 0)}.get(device)
    if number is None and default is None:
        if not device.startswith("/"):
            raise CloisonError(
                f"'{device}' is no device", hint="a path, c:10:229, b:7:0, char or block", status=Exit.USAGE
            )
        if not Path(device).is_char_device() and not Path(device).is_block_device():
            raise CloisonError(f"{device} is no device node", hint="ls -l shows b or c in front of one")
        yield device, None
        return
    with tempfile.TemporaryDirectory(prefix="cloison-", dir="/run") as folder:
        node = f"{folder}/node"
        if number is not None:
            kind = stat.S_IFBLK if number[1] == "b" else stat.S_IFCHR
            os.mknod(node, kind | 0o600, os.makedev(int(number[2]), int(number[3])))
            yield node, None
        else:
            assert default is not None
            os.mknod(node, default[0] | 0o600, os.makedev(*default[1:]))
            yield None, node


def rights(text: str) -> DeviceRights:
    """Read a list of rights, such as "open,create", or "none"."""
    try:
        return DeviceRights(parse(text, RIGHT_WORDS, every=3).value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


Row = tuple[str, str, str, tuple[tuple[str, str], ...]]
HELP: tuple[Row, ...] = (
    (
        "device",
        "show or change which devices a context may use",
        "A context may open " + HARMLESS + " and no other device, whatever nodes its files contain; it may make nodes"
        " of no device. 'map' lets it, 'unmap' takes the newest such rule back, 'list' shows the rules. CONTEXT 'all'"
        " means every context without a rule of its own. DEVICE is a path, c:MAJOR:MINOR or b:MAJOR:MINOR, or 'char'"
        " or 'block' for every device of that kind. What is open stays open.",
        (
            ("cloison device map web /dev/fuse", "let it open /dev/fuse"),
            ("cloison device map web b:7:3 --rights open,create", "a loop device, and nodes of it"),
            ("cloison device map web /dev/full --rights none", "take one away that all have"),
            ("cloison device unmap web /dev/fuse", ""),
            ("cloison device list web --json", ""),
        ),
    ),
    (
        "mount",
        "show or change what a context may mount",
        "A context mounts nothing unless the host lets it, and never in the mount namespace of the host: start it with"
        " run --unshare mount. CHANGE is a list of words, '~' takes back: mount (mount, move, unmount; proc, devpts and"
        " file systems on devices that it may open), binary (also file systems without a device, such as tmpfs),"
        " remount (options of the file system itself), devices (device nodes work on what it mounts).",
        (
            ("cloison mount web", "what it may now"),
            ("cloison mount web mount,binary", "let it mount, tmpfs too"),
            ("cloison mount web none", "take everything back"),
        ),
    ),
)
"""Name, brief, text and examples of the subcommands of this module, for the parser."""


def add_arguments(
    made: Mapping[str, argparse.ArgumentParser], change_of: Callable[..., Callable[[str], object]]
) -> None:
    """Add the arguments of these subcommands."""
    device = made["device"]
    device.add_argument("action", choices=("list", "map", "unmap"), metavar="ACTION", help="list, map or unmap")
    device.add_argument("context", metavar="CONTEXT", help="name or xid, or 'all'")
    device.add_argument("device", nargs="?", metavar="DEVICE", help="path, c:MAJOR:MINOR, b:MAJOR:MINOR, char or block")
    device.add_argument(
        "--rights", type=rights, default=DeviceRights.OPEN, metavar="LIST", help="open, create, none (default open)"
    )
    mount = made["mount"]
    mount.add_argument("context", metavar="CONTEXT", help="name or xid")
    every = 0
    for bit in MOUNT_WORDS.values():
        every |= bit
    mount.add_argument("change", nargs="?", type=change_of(MOUNT_WORDS, every), metavar="CHANGE")
    for name in ("device", "mount"):
        made[name].add_argument("--json", action="store_true", help="print JSON for programs")
