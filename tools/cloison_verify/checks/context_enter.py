# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may enter a context, and with what at his heels."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextFlags
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.acts import call
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.scene import Link, Scene, Seen, attempt

PTRACE_TRACEME = 0
CLONE_FS, CLONE_FILES = 0x200, 0x400


def _private(operation: Callable[[Context], object], *, private: bool) -> Probe:
    def probe(scene: Scene) -> Seen:
        context = Context(scene.xid, Vserver())
        if private:
            bit = int(ContextFlags.INFO_PRIVATE)
            context.set_flags(Change(bit, bit))
        return scene.attack(lambda: attempt(operation, context), inside=False)

    return probe


for _name, _operation in (
    ("enter", lambda context: context.enter()),
    ("spaces", lambda context: context.enter_spaces()),
):
    check(
        f"context.private-{_name}",
        title="nobody enters a private context" + (" by its namespaces" if _name == "spaces" else ""),
        attack="the command on the host, with the flag PRIVATE",
        expected="EACCES",
        control=instead(_private(_operation, private=False), "ok", "without the flag"),
    )(_private(_operation, private=True))


def _enter_with(prepare: Callable[[], object]) -> Probe:
    def probe(scene: Scene) -> Seen:
        context = Context(scene.xid, Vserver())

        def body() -> Seen:
            prepare()
            return attempt(context.enter)

        return scene.attack(body, inside=False)

    return probe


def _nothing() -> None:
    """Prepare nothing."""


def _thread() -> None:
    """Start a thread, and share only memory with it: descriptors and folder have a rule of their own."""
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    System().unshare(CLONE_FILES | CLONE_FS)


def _shared_table() -> None:
    """Start a process that shares the table of descriptors."""
    words = (ctypes.c_uint64 * 11)(CLONE_FILES, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    if call("clone3", ctypes.addressof(words), 88) == 0:
        time.sleep(30)
        os._exit(0)


def _traced() -> None:
    """Become a child that is traced, while the parent passes on what the child says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        _pass_on(reading)
    call("ptrace", PTRACE_TRACEME, 0, 0, 0)


def _pass_on(_reading: int) -> None:
    """Wait for the child's end, and end."""
    while True:
        with contextlib.suppress(ChildProcessError):
            os.wait()
        time.sleep(0.05)


for _name, _prepare, _error, _what in (
    ("thread", _thread, "EINVAL", "a second thread"),
    ("shared-files", _shared_table, "EINVAL", "a process that shares its descriptors"),
    ("traced", _traced, "EACCES", "a tracer"),
):
    check(
        f"context.enter-with-{_name}",
        title=f"who has {_what} does not enter",
        attack=f"ctx_migrate of a process with {_what} that would stay outside",
        expected=_error,
        control=instead(_enter_with(_nothing), "ok", "a process without"),
        vectors=["K16"],
    )(_enter_with(_prepare))


def _enter_with_thread_that_was(scene: Scene, *, leader: bool) -> Seen:
    """Enter in the one thread that is left of two: the leader, or the other one."""
    context = Context(scene.xid, Vserver())

    def body(link: Link) -> None:
        def report() -> None:
            link.send(attempt(context.enter).text)
            os._exit(0)  # of itself: half of a member would not be found when its context ends

        def outlive() -> None:
            while _state_of_leader() != "Z":
                time.sleep(0.01)
            report()

        other = threading.Thread(target=time.sleep if leader else outlive, args=(0,) if leader else ())
        other.start()
        if leader:
            other.join()
            while len(list(Path("/proc/self/task").iterdir())) > 1:  # joined is not yet gone
                time.sleep(0.01)
            report()
        call("exit", 0)  # of this thread alone

    return Seen(scene.outsider(body).link.receive())


def _state_of_leader() -> str:
    """Return the letter of the process's first thread."""
    with open(f"/proc/self/task/{os.getpid()}/stat", encoding="ascii") as stream:
        return stream.read().rpartition(") ")[2][0]


check(
    "context.enter-without-leader",
    title="a thread that has outlived its process's leader does not enter",
    attack="ctx_migrate of the last thread, which is not the first one",
    expected="EINVAL",
    control=instead(
        lambda scene: _enter_with_thread_that_was(scene, leader=True), "ok", "the first thread, after the other's end"
    ),
)(lambda scene: _enter_with_thread_that_was(scene, leader=False))
