# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of a foreign /proc/PID that were opened outside: those that keep the process in mind, and not its number."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable

from cloison_verify.acts import answering, call, expect_ready
from cloison_verify.catalogue import check, same_context
from cloison_verify.checks.process_trace import SECRET
from cloison_verify.scene import Link, Scene, Seen, attempt

PAGEMAP_SCAN, PAGE_IS_PRESENT = 0xC0606610, 1 << 3
PROCMAP_QUERY, PROCMAP_QUERY_COVERING_OR_NEXT_VMA = 0xC0686611, 0x10
SIGEV_NONE = 1


def _first(descriptor: int) -> bytes:
    return os.read(descriptor, 64)


def _secret(descriptor: int) -> bytes:
    return os.pread(descriptor, 4, ctypes.addressof(SECRET))


def _page(descriptor: int) -> bytes:
    return os.pread(descriptor, 8, ctypes.addressof(SECRET) // mmap.PAGESIZE * 8)


def _scan(descriptor: int) -> bytes:
    """Ask which pages around the secret are in memory."""
    start = ctypes.addressof(SECRET) & -mmap.PAGESIZE
    found = ctypes.create_string_buffer(24)
    words = (96, 0, start, start + mmap.PAGESIZE, 0, ctypes.addressof(found), 1, 0, 0, PAGE_IS_PRESENT, 0)
    fcntl.ioctl(descriptor, PAGEMAP_SCAN, struct.pack("12Q", *words, PAGE_IS_PRESENT))
    return found.raw.strip(b"\0")


def _area(descriptor: int) -> bytes:
    """Ask where the first mapped area is."""
    words = (104, PROCMAP_QUERY_COVERING_OR_NEXT_VMA, 0, 0, 0, 0, 0, 0, 0)
    answer = fcntl.ioctl(descriptor, PROCMAP_QUERY, struct.pack("9Q4I2Q", *words, 0, 0, 0, 0, 0, 0))
    start: int = struct.unpack_from("Q", answer, 24)[0]
    return start.to_bytes(8, "little").strip(b"\0")


_KEPT: tuple[tuple[str, str, Callable[[int], bytes]], ...] = (
    ("environ", "environ", _first),
    ("auxv", "auxv", _first),
    ("mem", "mem", _secret),
    ("pagemap", "pagemap", _page),
    ("pagemap by ioctl", "pagemap", _scan),
    ("maps", "maps", _first),
    ("maps by ioctl", "maps", _area),
    ("timers", "timers", _first),
)


def _prepare() -> None:
    """Have something to show: a page with a secret in it, and a timer."""
    SECRET.value = b"kept"
    event = ctypes.create_string_buffer(struct.pack("Qii", 0, signal.SIGUSR1, SIGEV_NONE) + bytes(48), 64)
    number = (ctypes.c_int32 * 1)()
    call("timer_create", time.CLOCK_MONOTONIC, ctypes.addressof(event), ctypes.addressof(number))


@check(
    "process.kept-files",
    title="files of a foreign /proc/PID opened outside tell nothing inside",
    attack="read and ioctl of descriptors of a foreign /proc/PID/{environ,auxv,mem,pagemap,maps,timers}",
    expected="nothing",
    control=same_context(", ".join(name for name, _, _ in _KEPT)),
    vectors=["P05", "P04"],
)
def kept_files(scene: Scene) -> Seen:
    """Use descriptors that the victim has opened of itself: no content, and an error only if it is ESRCH."""
    names = list(dict.fromkeys(file for _, file, _ in _KEPT))

    def body(link: Link) -> None:
        _prepare()
        link.send("take", [os.open(f"/proc/self/{name}", os.O_RDONLY) for name in names])
        answering()(link)

    aim = scene.victim(body)
    _, descriptors = aim.link.receive_with_descriptors()
    expect_ready(aim)
    kept = dict(zip(names, descriptors, strict=True))

    def use() -> Seen:
        told = []
        for name, file, look in _KEPT:
            os.lseek(kept[file], 0, os.SEEK_SET)
            seen = attempt(look, kept[file])
            if seen.errno not in (None, "ESRCH"):
                told.append(f"{name}: {seen.errno}")
            elif seen.errno is None and seen.text != "b''":
                told.append(name)
        return Seen(", ".join(told) or "nothing")

    return scene.attack(use, keep=descriptors)
