# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking into a process: tracing, its memory, its kernel objects, its counters, its seccomp listener."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable

from cloison_verify.acts import aimed, answering, call, expect_ready, number_of, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.scene import Link, Scene, Seen, attempt

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
KCMP_FILES = 2
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
PERF_FLAG_PID_CGROUP = 4
NO_PERF = {"uml": "ARCH=um has no perf events"}

# Made before any process of a scene, so that it has the same address in all of them.
SECRET = ctypes.create_string_buffer(b"host", 16)

aimed(
    "process.ptrace-attach",
    ["P17"],
    title="a process outside is not traced",
    attack="ptrace(PTRACE_ATTACH, pid)",
    operation=lambda pid: _done(call("ptrace", PTRACE_ATTACH, pid, 0, 0)),
    expected=("ESRCH", "EPERM"),
)
aimed(
    "process.ptrace-seize",
    ["P17"],
    title="a process outside is not traced without stopping it",
    attack="ptrace(PTRACE_SEIZE, pid)",
    operation=lambda pid: _done(call("ptrace", PTRACE_SEIZE, pid, 0, 0)),
    expected=("ESRCH", "EPERM"),
)


def _done(_result: int) -> None:
    """Take a result that says nothing."""


def _vectors(buffer: ctypes.Array[ctypes.c_char]) -> tuple[bytes, bytes]:
    """Return the two struct iovec of a transfer between `buffer` and the victim's `SECRET`."""
    return (
        struct.pack("NN", ctypes.addressof(buffer), 5),
        struct.pack("NN", ctypes.addressof(SECRET), 5),
    )


def _address(data: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    kept = ctypes.create_string_buffer(data, len(data))
    return kept, ctypes.addressof(kept)


def _transfer(name: str, pid: int) -> str:
    buffer = ctypes.create_string_buffer(b"evil", 16)
    local, remote = (_address(vector) for vector in _vectors(buffer))
    call(name, pid, local[1], 1, remote[1], 1, 0)
    return buffer.value.decode()


def _mark_secret() -> None:
    SECRET.value = b"seen"


aimed(
    "process.memory-read",
    ["P19"],
    title="the memory of a process outside is not read",
    attack="process_vm_readv(pid)",
    operation=lambda pid: _transfer("process_vm_readv", pid),
    control="seen",
    begin=_mark_secret,
)


@check(
    "process.memory-write",
    title="the memory of a process outside is not written",
    attack="process_vm_writev(pid)",
    expected="ESRCH, memory seen",
    control=same_context("evil, memory evil"),
    vectors=["P19"],
)
def memory_write(scene: Scene) -> Seen:
    """Write over the victim's buffer and let it look."""
    aim = victim(scene, {"memory": lambda: SECRET.value.decode()}, _mark_secret)
    seen = scene.attack(lambda: attempt(_transfer, "process_vm_writev", aim.pid))
    aim.link.send("memory")
    return Seen(f"{seen.text}, memory {aim.link.receive()}", seen.errno)


aimed(
    "process.kcmp",
    ["P20"],
    title="kernel objects of a process outside are not compared",
    attack="kcmp(self, pid, KCMP_FILES)",
    operation=lambda pid: number_of(call("kcmp", os.getpid(), pid, KCMP_FILES, 0, 0), "compared"),
    control="compared",
)


def perf(pid: int, processor: int, flags: int = 0, *, kernel: bool = False) -> str:
    """Open a counter of task time, in software, which every machine with perf events has; `kernel` counts there too."""
    exclude_kernel = 0 if kernel else 1 << 5
    attributes, address = _address(struct.pack("IIQ24xQ", 1, 128, 1, exclude_kernel) + bytes(80))
    descriptor = call("perf_event_open", address, pid, processor, -1, flags)
    os.close(descriptor)
    del attributes
    return "a counter"


aimed(
    "process.perf-task",
    ["P22"],
    title="the counters of a process outside are not read",
    attack="perf_event_open(pid)",
    operation=lambda pid: perf(pid, -1),
    control="a counter",
    not_on=NO_PERF,
)


def _system_wide() -> str:
    return perf(-1, 0)


def _of_group() -> str:
    descriptor = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY)
    return perf(descriptor, 0, PERF_FLAG_PID_CGROUP)


def _plain(operation: Callable[[], object]) -> Callable[[Scene], Seen]:
    return lambda scene: scene.attack(lambda: attempt(operation), inside=False)


def _within(operation: Callable[[], object]) -> Callable[[Scene], Seen]:
    return lambda scene: scene.attack(lambda: attempt(operation), inside=True)


check(
    "process.perf-system",
    title="no counters of the whole machine",
    attack="perf_event_open(-1, cpu 0)",
    expected=("EACCES", "EPERM"),
    control=instead(_plain(_system_wide), "a counter", "the same call on the host"),
    vectors=["P23"],
    not_on=NO_PERF,
)(_within(_system_wide))
check(
    "process.perf-cgroup",
    title="no counters of a control group",
    attack="perf_event_open(PERF_FLAG_PID_CGROUP)",
    expected=("EACCES", "EPERM"),
    control=instead(_plain(_of_group), "a counter", "the same call on the host"),
    vectors=["P23"],
    not_on=NO_PERF,
)(_within(_of_group))


def _install_listener() -> int:
    """Put a filter that lets everything through on this process; return its listener."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    instruction, code = _address(struct.pack("HBBI", 0x06, 0, 0, SECCOMP_RET_ALLOW))
    program, address = _address(struct.pack("HxxxxxxN", 1, code))
    descriptor = call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, address)
    del instruction, program
    return descriptor


@check(
    "process.seccomp-listener",
    title="a passed seccomp listener of a process outside is of no use",
    attack="SECCOMP_IOCTL_NOTIF_ADDFD on the listener of a process outside",
    expected=("ESRCH", "EPERM", "EACCES"),
    control=same_context("ENOENT"),
    vectors=["P64"],
)
def seccomp_listener(scene: Scene) -> Seen:
    """Add a descriptor in answer to a request that does not exist: ENOENT says that the listener was usable."""

    def body(link: Link) -> None:
        link.send("take", [_install_listener()])
        answering()(link)

    aim = scene.victim(body)
    _, descriptors = aim.link.receive_with_descriptors()
    expect_ready(aim)
    request = struct.pack("QIIII", 1, 0, 0, 0, 0)

    def operation() -> None:
        fcntl.ioctl(descriptors[0], SECCOMP_IOCTL_NOTIF_ADDFD, request)

    return scene.attack(lambda: attempt(operation), keep=descriptors)
