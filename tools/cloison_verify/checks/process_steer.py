# SPDX-License-Identifier: GPL-2.0-or-later
"""Steering a process: its class, processors, priorities, limits, memory nodes; and asking for its numbers."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import time
from collections.abc import Callable

from cloison_verify.acts import aimed, ask, call, combined, number_of, victim
from cloison_verify.catalogue import check, same_context
from cloison_verify.scene import Scene, Seen, attempt

SCHED_BATCH = 3
IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER = 1, 2, 3
BEST_EFFORT_3 = 2 << 13 | 3
BEST_EFFORT_7 = 2 << 13 | 7
FUTEX_LOCK_PI = 6
PR_SCHED_CORE, PR_SCHED_CORE_GET, PR_SCHED_CORE_SHARE_TO = 62, 0, 2
NO_NUMA = {"uml": "ARCH=um has no memory nodes, and so none of these calls"}
NO_SMT = {
    "uml": "ARCH=um has no core scheduling",
    "bochs": "one thread a core",
    "xen": "the hypervisor hides the threads of a core",
    "qemu-microvm": "one processor",
}


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))


def _set_attributes(pid: int) -> None:
    data = _buffer(struct.pack("IIQiIQQQ", 48, SCHED_BATCH, 0, 0, 0, 0, 0, 0))
    call("sched_setattr", pid, ctypes.addressof(data), 0)


def _get_attributes(pid: int) -> None:
    data = _buffer(bytes(48))
    call("sched_getattr", pid, ctypes.addressof(data), 48, 0)


_STEER: tuple[tuple[str, str, str, Callable[[int], object]], ...] = (
    ("setscheduler", "P26", "sched_setscheduler", lambda p: os.sched_setscheduler(p, SCHED_BATCH, os.sched_param(0))),
    ("setparam", "P26", "sched_setparam", lambda p: os.sched_setparam(p, os.sched_param(0))),
    ("setattr", "P26", "sched_setattr", _set_attributes),
    ("setaffinity", "P28", "sched_setaffinity", lambda p: os.sched_setaffinity(p, {0})),
    ("setpriority", "P29", "setpriority(PRIO_PROCESS)", lambda p: os.setpriority(os.PRIO_PROCESS, p, 5)),
    (
        "ioprio-set",
        "P31",
        "ioprio_set(IOPRIO_WHO_PROCESS)",
        lambda p: _quiet(call("ioprio_set", IOPRIO_WHO_PROCESS, p, BEST_EFFORT_7)),
    ),
    (
        "prlimit-set",
        "P32",
        "prlimit64 that sets",
        lambda p: _quiet(resource.prlimit(p, resource.RLIMIT_NOFILE, (64, 64))),
    ),
)


def _quiet(_value: object) -> None:
    """Take a result that says nothing."""


for _name, _row, _call, _operation in _STEER:
    aimed(
        f"process.{_name}",
        [_row],
        title=f"{_call} does not reach a process outside",
        attack=f"{_call} with the pid of a process outside",
        operation=_operation,
    )


def _capabilities(pid: int) -> str:
    header = (ctypes.c_uint32 * 2)(0x20080522, pid)
    data = (ctypes.c_uint32 * 6)()
    call("capget", ctypes.addressof(header), ctypes.addressof(data))
    return "an answer"


def _answers(function: Callable[[int], object]) -> Callable[[int], str]:
    """Return an operation that hides the value it got."""

    def ask_it(pid: int) -> str:
        function(pid)
        return "an answer"

    return ask_it


_ASK: tuple[tuple[str, str, str, Callable[[int], object], str], ...] = (
    ("getscheduler", "P26", "sched_getscheduler", os.sched_getscheduler, "ESRCH"),
    ("getparam", "P26", "sched_getparam", os.sched_getparam, "ESRCH"),
    ("getattr", "P26", "sched_getattr", _get_attributes, "ESRCH"),
    ("rr-interval", "P26", "sched_rr_get_interval", os.sched_rr_get_interval, "ESRCH"),
    ("getaffinity", "P28", "sched_getaffinity", os.sched_getaffinity, "ESRCH"),
    ("getpriority", "P29", "getpriority(PRIO_PROCESS)", lambda p: os.getpriority(os.PRIO_PROCESS, p), "ESRCH"),
    ("ioprio-get", "P31", "ioprio_get", lambda p: call("ioprio_get", IOPRIO_WHO_PROCESS, p), "ESRCH"),
    ("prlimit-get", "P32", "prlimit64 that asks", lambda p: resource.prlimit(p, resource.RLIMIT_NOFILE), "ESRCH"),
    ("capget", "P34", "capget", _capabilities, "ESRCH"),
    ("cpu-clock", "P35", "clock_gettime of its CPU clock", lambda p: time.clock_gettime(~p << 3 | 2), "EINVAL"),
    (
        "cpu-clock-resolution",
        "P35",
        "clock_getres of it",
        lambda p: time.clock_getres(~p << 3 | 2),
        "EINVAL",
    ),
    ("getpgid", "P47", "getpgid", os.getpgid, "ESRCH"),
    ("getsid", "P47", "getsid", os.getsid, "ESRCH"),
)
for _name, _row, _call, _question, _error in _ASK:
    aimed(
        f"process.{_name}",
        [_row],
        title=f"{_call} tells nothing of a process outside",
        attack=f"{_call} with the pid of a process outside",
        operation=_answers(_question),
        expected=_error,
        control="an answer",
    )


def _nodes(pid: int) -> str:
    node = _buffer((1).to_bytes(8, "little"))
    return number_of(call("migrate_pages", pid, 64, ctypes.addressof(node), ctypes.addressof(node)), "moved")


aimed(
    "process.migrate-pages",
    ["P25"],
    title="the memory of a process outside is not moved between nodes",
    attack="migrate_pages(pid)",
    operation=_nodes,
    control="moved",
    not_on=NO_NUMA,
)
aimed(
    "process.move-pages",
    ["P25"],
    title="single pages of a process outside are not moved between nodes",
    attack="move_pages(pid)",
    operation=lambda pid: number_of(call("move_pages", pid, 0, 0, 0, 0, 0), "moved"),
    control="moved",
    not_on=NO_NUMA,
)


def _whole_user(
    scene: Scene,
    begin: Callable[[], object],
    question: str,
    look: Callable[[], object],
    change: Callable[[], object],
) -> Seen:
    """Change something for all processes of user 0 and ask the victim whether it was meant.

    The victim begins with a value of its own: it may have inherited what the control has set.
    """
    aim = victim(scene, {question: look}, begin)
    before = ask(aim, question)
    seen = scene.attack(lambda: attempt(change))
    return combined(seen, "unchanged" if ask(aim, question) == before else "changed")


@check(
    "process.renice-user",
    title="renicing all processes of user 0 stays inside",
    attack="setpriority(PRIO_USER, 0)",
    expected="ok, unchanged",
    control=same_context("ok, changed"),
    vectors=["P29"],
)
def renice_user(scene: Scene) -> Seen:
    """Renice everything of user 0."""
    return _whole_user(
        scene,
        lambda: os.setpriority(os.PRIO_PROCESS, 0, 3),
        "nice",
        lambda: os.getpriority(os.PRIO_PROCESS, 0),
        lambda: os.setpriority(os.PRIO_USER, 0, 7),
    )


@check(
    "process.ioprio-user",
    title="the IO priority of all processes of user 0 is set inside only",
    attack="ioprio_set(IOPRIO_WHO_USER, 0)",
    expected="ok, unchanged",
    control=same_context("ok, changed"),
    vectors=["P31"],
)
def ioprio_user(scene: Scene) -> Seen:
    """Set the IO priority of everything of user 0."""
    return _whole_user(
        scene,
        lambda: call("ioprio_set", IOPRIO_WHO_PROCESS, 0, BEST_EFFORT_3),
        "ioprio",
        lambda: call("ioprio_get", IOPRIO_WHO_PROCESS, 0),
        lambda: _quiet(call("ioprio_set", IOPRIO_WHO_USER, 0, BEST_EFFORT_7)),
    )


def _lock_of(pid: int) -> None:
    """Wait for a lock whose word says that `pid` holds it; an owner that is found makes the wait time out."""
    futex = (ctypes.c_uint32 * 1)(pid)
    until = time.clock_gettime(time.CLOCK_REALTIME) + 0.3
    timeout = _buffer(struct.pack("qq", int(until), int(until % 1 * 1_000_000_000)))
    call("futex", ctypes.addressof(futex), FUTEX_LOCK_PI, 0, ctypes.addressof(timeout), 0, 0)


aimed(
    "process.futex-owner",
    ["P37"],
    title="a lock cannot be said to belong to a thread outside",
    attack="futex(FUTEX_LOCK_PI) with the tid of a process outside in the lock",
    operation=_lock_of,
    control="ETIMEDOUT",
)


def _cookie(pid: int) -> str:
    value = _buffer(bytes(8))
    return number_of(call("prctl", PR_SCHED_CORE, PR_SCHED_CORE_GET, pid, 0, ctypes.addressof(value)), "a cookie")


aimed(
    "process.core-cookie",
    ["P38"],
    title="the core scheduling cookie of a process outside is not told",
    attack="prctl(PR_SCHED_CORE_GET, pid)",
    operation=_cookie,
    control="a cookie",
    not_on=NO_SMT,
)
aimed(
    "process.core-cookie-share",
    ["P38"],
    title="no core scheduling cookie is pushed on a process outside",
    attack="prctl(PR_SCHED_CORE_SHARE_TO, pid)",
    operation=lambda pid: _quiet(call("prctl", PR_SCHED_CORE, PR_SCHED_CORE_SHARE_TO, pid, 0, 0)),
    not_on=NO_SMT,
)
