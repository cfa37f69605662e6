# SPDX-License-Identifier: GPL-2.0-or-later
"""What no context gets whatever its bound: the kernel's insides, its log, swap, whole file systems, odd sockets."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from cloison.context import Context
from cloison.devices import DeviceRights
from cloison.flags import ContextCaps
from cloison.syscall import Vserver
from cloison_verify.acts import call, number_of
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.process_stream import libc_mount
from cloison_verify.checks.process_trace import NO_PERF, perf
from cloison_verify.checks.rights import inside
from cloison_verify.scene import Scene, Seen, attempt

AT_FDCWD = -100 & 0xFFFFFFFF
BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY = 0, 2
FAN_MARK_ADD, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM, FAN_OPEN = 1, 0x10, 0x100, 0x20
FIFREEZE, FITRIM, FS_IOC_GETFLAGS = 0xC0045877, 0xC0185879, 0x80086601
O_CLOEXEC = 0o2000000
Q_GETQUOTA = 0x800007 << 8
SYSLOG_READ, SYSLOG_READ_ALL, SYSLOG_SIZE_UNREAD = 2, 3, 9
AF_ALG, AF_VSOCK = 38, 40
AREA = Path("/run/cloison")


def _address(data: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    buffer = ctypes.create_string_buffer(data, len(data))
    return buffer, ctypes.addressof(buffer)


def _opened(descriptor: int, what: str) -> str:
    os.close(descriptor)
    return number_of(descriptor, what)


def _map() -> str:
    data, address = _address(struct.pack("IIII", BPF_MAP_TYPE_ARRAY, 4, 4, 1) + bytes(56))
    descriptor = call("bpf", BPF_MAP_CREATE, address, len(data))
    return _opened(descriptor, "a map")


def _unload_kernel() -> None:
    call("kexec_load", 0, 0, 0, 0)


def _swap(name: str) -> Callable[[], None]:
    """Return a swap call on a file that is no swap area, so that EINVAL says that it was looked at."""

    def operation() -> None:
        path = AREA / f"swap-{os.getpid()}"
        path.write_bytes(bytes(65536))
        text, address = _address(str(path).encode() + b"\0")
        try:
            call(name, address, 0)
        finally:
            path.unlink()
            del text

    return operation


def _mark(kind: int) -> Callable[[], None]:
    """Return an operation that marks a file, which is allowed, and then more than a file."""

    def operation() -> None:
        group = call("fanotify_init", 0, os.O_RDONLY)
        path, address = _address(b"/run/cloison\0")
        try:
            call("fanotify_mark", group, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, address)
        except OSError as error:
            raise RuntimeError("no mark on a file") from error
        call("fanotify_mark", group, FAN_MARK_ADD | kind, FAN_OPEN, AT_FDCWD, address)
        del path

    return operation


def _fault_handler() -> str:
    return _opened(call("userfaultfd", O_CLOEXEC), "a descriptor")


def _open_handle() -> None:
    """Make a handle of a directory and open it."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    path, address = _address(b"/run/cloison\0")
    call("name_to_handle_at", AT_FDCWD, address, ctypes.addressof(handle), ctypes.addressof(mount), 0)
    del path
    directory = os.open(AREA, os.O_RDONLY)
    os.close(call("open_by_handle_at", directory, ctypes.addressof(handle), os.O_RDONLY))


def _file_system_command(command: int) -> Callable[[], None]:
    """Return an operation on a file system that can do neither; asking for attributes of a file must work."""

    def operation() -> None:
        descriptor = os.open(AREA, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8))
        except OSError as error:
            raise RuntimeError("no attributes of a file") from error
        fcntl.ioctl(descriptor, command, bytes(24))

    return operation


def _quota() -> None:
    """Ask for the quota of another user, where there are none."""
    data, address = _address(bytes(128))
    call("quotactl_fd", os.open("/", os.O_RDONLY), Q_GETQUOTA, 12345, address)
    del data


def _family(family: int, kind: int) -> Callable[[], None]:
    def operation() -> None:
        for usual in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            socket.socket(usual, socket.SOCK_DGRAM).close()
        socket.socket(family, kind, 0).close()

    return operation


def _refused(
    name: str,
    grant: ContextCaps,
    rows: Sequence[str],
    operation: Callable[[], object],
    expected: str | Sequence[str],
    control: str | Sequence[str],
    attack: str,
    not_on: dict[str, str] | None = None,
) -> None:
    """Register a check of something that is refused in spite of a full bound, and allowed with a grant."""
    check(
        f"refusals.{name}",
        title=f"{attack} is refused, whatever the bound",
        attack=f"{attack} as root of a context with the full bound",
        expected=expected,
        control=instead(inside(operation, grant), control, f"with {str(grant.name).lower()}"),
        vectors=rows,
        not_on=not_on,
    )(inside(operation))


def _mounted(kind: str) -> Path:
    """Return the place of a file system of the kernel, which the probe mounts where it is not."""
    place = AREA / kind
    place.mkdir(exist_ok=True)
    if not place.is_mount():
        libc_mount(kind.encode(), str(place).encode(), kind.encode())
    return place


def _kernel_file(kind: str, name: str, flags: int) -> Callable[[], str]:
    return lambda: _opened(os.open(AREA / kind / name, flags), "a descriptor")


def _with_mount(kind: str, probe: Probe) -> Probe:
    def mounted(scene: Scene) -> Seen:
        _mounted(kind)
        return probe(scene)

    return mounted


for _name, _kind, _operation, _rows in (
    ("sysfs-write", "sysfs", _kernel_file("sysfs", "kernel/mm/ksm/run", os.O_WRONLY), ["F55"]),
    ("debugfs", "debugfs", _kernel_file("debugfs", ".", os.O_RDONLY | os.O_DIRECTORY), ["F56"]),
    ("securityfs", "securityfs", _kernel_file("securityfs", ".", os.O_RDONLY | os.O_DIRECTORY), ["F56"]),
    ("fuse-control", "fusectl", _kernel_file("fusectl", ".", os.O_RDONLY | os.O_DIRECTORY), ["F56"]),
    ("interpreters", "binfmt_misc", _kernel_file("binfmt_misc", "register", os.O_WRONLY), ["F53"]),
):
    check(
        f"refusals.{_name}",
        title=f"{_kind} is the kernel's, and not for root of a context",
        attack="open of a file that belongs to user 0, as root of a context with the full bound",
        expected="EACCES",
        control=instead(
            _with_mount(_kind, inside(_operation, ContextCaps.GRANT_KERNEL_FS)),
            "a descriptor",
            "with grant_kernel_fs",
        ),
        vectors=_rows,
    )(_with_mount(_kind, inside(_operation)))


def _ports() -> None:
    call("iopl", 3)


NO_KEXEC = {"uml": "ARCH=um cannot start another kernel"}
NO_PORTS = {"uml": "ARCH=um has no ports"}
_refused("ports", ContextCaps.GRANT_RAWIO, ["D02"], _ports, "EPERM", "ok", "iopl", NO_PORTS)
_refused(
    "perf-kernel",
    ContextCaps.GRANT_PERF,
    ["P23"],
    lambda: perf(0, -1, kernel=True),
    "EACCES",
    "a counter",
    "perf_event_open of what the kernel does for the own process",
    NO_PERF,
)
_refused("bpf", ContextCaps.GRANT_BPF, ["K11"], _map, "EPERM", "a map", "bpf(MAP_CREATE)")
_refused("kexec", ContextCaps.GRANT_KEXEC, ["K02"], _unload_kernel, "EPERM", "ok", "kexec_load", NO_KEXEC)
_refused("swapon", ContextCaps.GRANT_SWAP, ["F47"], _swap("swapon"), "EPERM", "EINVAL", "swapon")
_refused("swapoff", ContextCaps.GRANT_SWAP, ["F47"], _swap("swapoff"), "EPERM", "EINVAL", "swapoff")
_refused(
    "mark-mount",
    ContextCaps.GRANT_FANOTIFY,
    ["F31"],
    _mark(FAN_MARK_MOUNT),
    "EPERM",
    "ok",
    "a fanotify mark on a mount",
)
_refused(
    "mark-filesystem",
    ContextCaps.GRANT_FANOTIFY,
    ["F31"],
    _mark(FAN_MARK_FILESYSTEM),
    "EPERM",
    "ok",
    "a fanotify mark on a file system",
)
_refused("userfaultfd", ContextCaps.GRANT_USERFAULTFD, ["D16"], _fault_handler, "EPERM", "a descriptor", "userfaultfd")
_refused("handle", ContextCaps.GRANT_HANDLE, ["F13"], _open_handle, "EPERM", "ok", "open_by_handle_at")
for _name, _command in (("freeze", FIFREEZE), ("trim", FITRIM)):
    _refused(
        _name,
        ContextCaps.GRANT_FS_IOCTL,
        ["F73"],
        _file_system_command(_command),
        "EPERM",
        ("ENOTSUP", "EOPNOTSUPP", "ENOTTY"),
        f"ioctl FI{_name.upper()}",
    )
_refused("quota", ContextCaps.QUOTA_CTL, ["L41"], _quota, "EPERM", ("ESRCH", "ENOSYS"), "quotactl(Q_GETQUOTA)")
for _name, _number, _type, _rows in (
    ("packet", int(socket.AF_PACKET), int(socket.SOCK_RAW), ["N55"]),
    ("vsock", AF_VSOCK, int(socket.SOCK_STREAM), ["N56"]),
    ("alg", AF_ALG, int(socket.SOCK_SEQPACKET), ["N55", "K04"]),
):
    _refused(
        f"socket-{_name}",
        ContextCaps.GRANT_FAMILIES,
        _rows,
        _family(_number, _type),
        "EAFNOSUPPORT",
        "ok",
        f"socket(AF_{_name.upper()})",
    )


# The kernel log.


def _log(action: int) -> Callable[[], str]:
    def operation() -> str:
        data, address = _address(bytes(4096))
        length = call("syslog", action, address, len(data))
        return "lines" if length else "nothing"

    return operation


def _open_log(path: str, flags: int) -> Callable[[], str]:
    return lambda: _opened(os.open(path, flags), "a descriptor")


def _on_host(operation: Callable[[], object]) -> Callable[[Scene], Seen]:
    return lambda scene: scene.attack(lambda: attempt(operation), inside=False)


check(
    "refusals.log",
    title="a context does not read the kernel log",
    attack="syslog(READ_ALL) as root of a context",
    expected="EPERM",
    control=instead(_on_host(_log(SYSLOG_READ_ALL)), "lines", "the same on the host"),
    vectors=["K05", "L01"],
)(inside(_log(SYSLOG_READ_ALL)))
check(
    "refusals.log-own",
    title="the log of a context to which it is granted is its own, and empty",
    attack="syslog(READ_ALL) as root of a context with the capability syslog",
    expected="nothing",
    control=instead(_on_host(_log(SYSLOG_READ_ALL)), "lines", "the same on the host"),
    vectors=["K05", "L01"],
)(inside(_log(SYSLOG_READ_ALL), ContextCaps.SYSLOG))
check(
    "refusals.log-user",
    title="the log of a context is for its root",
    attack="syslog(SIZE_UNREAD) as an ordinary user of a context with the capability syslog",
    expected="EPERM",
    control=instead(inside(_log(SYSLOG_SIZE_UNREAD), ContextCaps.SYSLOG), "nothing", "as its root"),
    vectors=["K26"],
)(inside(_log(SYSLOG_SIZE_UNREAD), ContextCaps.SYSLOG, user=True))


def _wait_for_line() -> str:
    """Read the log, which waits for a line; an alarm ends it."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return _log(SYSLOG_READ)()


check(
    "refusals.log-wait",
    title="reading the log of a context waits for ever",
    attack="syslog(READ) with an alarm, as root of a context with the capability syslog",
    expected="EINTR",
    control=instead(_on_host(_log(SYSLOG_READ)), "lines", "the same on the host"),
    vectors=["K05"],
)(inside(_wait_for_line, ContextCaps.SYSLOG))


def _mapped_log(path: str, flags: int) -> Probe:
    """Open it where the host has mapped the device, so that nothing but the rule of the log stands before it."""

    def probe(scene: Scene) -> Seen:
        if path.startswith("/dev/"):
            Context(scene.xid, Vserver()).map_device(path, None, DeviceRights.OPEN)
        return inside(_open_log(path, flags))(scene)

    return probe


for _name, _path, _flags, _refusal in (
    ("kmsg-read", "/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK, "EPERM"),
    ("kmsg-write", "/dev/kmsg", os.O_WRONLY, "EPERM"),
    ("proc-kmsg", "/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK, "ENOENT"),
):
    check(
        f"refusals.{_name}",
        title=f"{_path} is closed to contexts",
        attack=f"open({_path}) as root of a context to which the device is mapped",
        expected=_refusal,
        control=instead(_on_host(_open_log(_path, _flags)), "a descriptor", "the same on the host"),
        vectors=["L01", *(["R34"] if _name == "kmsg-write" else ["K05"])],
    )(_mapped_log(_path, _flags))


def _memory() -> str:
    return _opened(os.open("/dev/mem", os.O_RDONLY), "a descriptor")


check(
    "refusals.memory",
    title="the memory of the machine is closed to contexts",
    attack="open(/dev/mem) as root of a context",
    expected=("EPERM", "EACCES", "ENOENT"),
    control=instead(_on_host(_memory), "a descriptor", "the same on the host"),
    vectors=["D01"],
)(inside(_memory))


def _seal() -> None:
    """Seal the own process further, as sandboxes do."""
    call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    instruction, code = _address(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    program, address = _address(struct.pack("HxxxxxxN", 1, code))
    call("seccomp", 1, 0, address)
    rules, address = _address(struct.pack("Q", 1))
    try:
        os.close(call("landlock_create_ruleset", address, len(rules), 0))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    del instruction, program


check(
    "refusals.sandbox",
    title="a process of a context can still seal itself",
    attack="prctl(NO_NEW_PRIVS), seccomp and Landlock as root of a context",
    expected="ok",
    control=instead(_on_host(_seal), "ok", "the same on the host"),
    vectors=["K34"],
)(inside(_seal))
