# SPDX-License-Identifier: GPL-2.0-or-later
"""io_uring: a context has no rings unless granted, and a ring from outside is of no use inside."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextCaps
from cloison.syscall import Vserver
from cloison_verify.acts import call
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.scene import Placement, Scene, Seen, attempt

IORING_OFF_SQES = 0x10000000
IORING_REGISTER_PROBE, IORING_REGISTER_PERSONALITY = 8, 9
IORING_ENTER_GETEVENTS = 1
IORING_OP_MSG_RING = 40
ENTRIES = 4
IORING_SETUP_SQPOLL = 2


def _setup(flags: int = 0) -> tuple[int, bytes]:
    """Make a ring; return its descriptor and the kernel's parameters."""
    parameters = (ctypes.c_uint32 * 30)(0, 0, flags)
    descriptor = call("io_uring_setup", ENTRIES, ctypes.addressof(parameters))
    os.set_inheritable(descriptor, True)
    return descriptor, bytes(parameters)


def _grant(scene: Scene) -> None:
    """Let the scene's context make rings."""
    bit = int(ContextCaps.GRANT_IO_URING)
    Context(scene.xid, Vserver()).set_caps(Change(bit, bit))


def _make(scene: Scene, *, granted: bool) -> Seen:
    if granted:
        _grant(scene)

    def operation() -> str:
        os.close(_setup()[0])
        return "a ring"

    return scene.attack(lambda: attempt(operation), inside=True)


check(
    "ring.setup",
    title="a context makes no ring that is not granted",
    attack="io_uring_setup",
    expected=("EPERM", "EACCES", "ENOSYS"),
    control=instead(lambda scene: _make(scene, granted=True), "a ring", "a context with the grant io_uring"),
    vectors=["K31"],
)(lambda scene: _make(scene, granted=False))


def _with_ring(scene: Scene, operation: Callable[[int], object], flags: int = 0) -> Seen:
    """Attack with a ring that the attacker made before it entered, or, in the control, after.

    A ring is not passed by SCM_RIGHTS (EINVAL since 6.7); what is left is to keep it, or to inherit it.
    """
    _grant(scene)
    xid = scene.xid

    def body() -> Seen:
        context = Context(xid, Vserver())
        if scene.placement is Placement.TOGETHER:
            context.enter()
            return attempt(operation, _setup(flags)[0])
        return _in_a_child(_setup(flags)[0], context, operation)

    return scene.attack(body, inside=False)


def _in_a_child(ring: int, context: Context, operation: Callable[[int], object]) -> Seen:
    """Enter in a child, so that the task that made the ring stays outside."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        context.enter()
        os.write(writing, attempt(operation, ring).text.encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    return Seen(os.read(reading, 4096).decode())


@check(
    "ring.enter",
    title="a ring from outside is not entered",
    attack="io_uring_enter on a ring made outside",
    expected=("EACCES", "EPERM"),
    control=same_context("ok"),
    vectors=["I17"],
)
def enter(scene: Scene) -> Seen:
    """Submit nothing to a kept ring."""
    return _with_ring(scene, lambda ring: call("io_uring_enter", ring, 0, 0, 0, 0, 0) or None)


@check(
    "ring.register",
    title="nothing is registered with a ring from outside",
    attack="io_uring_register(IORING_REGISTER_PERSONALITY) on a ring made outside",
    expected=("EACCES", "EPERM"),
    control=same_context("a personality"),
    vectors=["I17"],
)
def register(scene: Scene) -> Seen:
    """Register the caller's credentials with a kept ring."""

    def operation(ring: int) -> str:
        call("io_uring_register", ring, IORING_REGISTER_PERSONALITY, 0, 0)
        return "a personality"

    return _with_ring(scene, operation)


@check(
    "ring.map",
    title="a ring from outside is not mapped",
    attack="mmap of a ring made outside",
    expected=("EACCES", "EPERM"),
    control=same_context("ok"),
    vectors=["I17"],
)
def map_ring(scene: Scene) -> Seen:
    """Map the queue of a kept ring."""
    return _with_ring(scene, lambda ring: mmap.mmap(ring, 4096, offset=IORING_OFF_SQES).close())


def _message(target: int) -> str:
    """Send a message from a ring of one's own to another; return the completion's result."""
    ring, parameters = _setup()
    words = struct.unpack("30I", parameters)
    offsets = words[10:20]  # of the submission queue: head, tail, mask, entries, flags, dropped, array, …
    completions = words[20:30]  # head, tail, mask, entries, overflow, cqes, flags, …
    size = completions[5] + 16 * words[1]
    queue = mmap.mmap(ring, max(size, offsets[6] + 4 * words[0]))
    entries = mmap.mmap(ring, 64 * words[0], offset=IORING_OFF_SQES)
    entries[:64] = struct.pack("BBHiQQII", IORING_OP_MSG_RING, 0, 0, target, 0, 0, 0, 0) + bytes(32)
    struct.pack_into("I", queue, offsets[6], 0)
    struct.pack_into("I", queue, offsets[1], 1)
    call("io_uring_enter", ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0)
    result = int(struct.unpack_from("i", queue, completions[5] + 8)[0])
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return "delivered"


@check(
    "ring.message",
    title="no message goes to a ring from outside",
    attack="IORING_OP_MSG_RING from a granted ring to one made outside",
    expected=("EACCES", "EPERM"),
    control=same_context("delivered"),
    vectors=["I19"],
)
def message(scene: Scene) -> Seen:
    """Post a completion to a kept ring."""
    return _with_ring(scene, _message)


@check(
    "ring.description",
    title="a ring from outside is not described",
    attack="read(/proc/self/fdinfo) of a ring made outside, with a thread of the kernel that polls it",
    expected="nothing of the ring",
    control=same_context("entries, a thread"),
    vectors=["P47", "I17"],
)
def description(scene: Scene) -> Seen:
    """Read what the kernel tells about a kept ring."""

    def operation(ring: int) -> str:
        text = Path(f"/proc/self/fdinfo/{ring}").read_text(encoding="ascii")
        lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        found = ["entries"] if "SQEs" in lines else []
        found += ["a thread"] if int(lines.get("SqThread", "-1")) > 0 else []
        return ", ".join(found) or "nothing of the ring"

    return _with_ring(scene, operation, IORING_SETUP_SQPOLL)
