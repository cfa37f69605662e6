# SPDX-License-Identifier: GPL-2.0-or-later
"""Contexts themselves: who may give which command, who may enter, and what a context's own root cannot undo."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloison import abi
from cloison.abi import Command
from cloison.context import Context
from cloison.flags import NO_FLAGS, Change, ContextFlags
from cloison.launch import Creation, creation_steps
from cloison.syscall import Vserver, VserverError
from cloison_verify.acts import KILL, aimed, answering, call, combined, expect_ready, fate, number_of
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.process_life import free_context
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt
from cloison_verify.syscalls import capset

EVERYTHING = 1 << 63 | (1 << 41) - 1
SYS_ADMIN, SYS_RESOURCE, NET_RAW = 21, 24, 13
REBOOT_MAGIC, REBOOT_MAGIC2, RESTART = 0xFEE1DEAD, 672274793, 0x01234567


def _plain(body: Callable[[Scene], Callable[[], object]], *, inside: bool = False) -> Probe:
    """Return a probe that does in one place what `body` says."""

    def probe(scene: Scene) -> Seen:
        operation = body(scene)
        return scene.attack(lambda: attempt(operation), inside=inside)

    return probe


def _giving_away(capability: int, operation: Callable[[], object]) -> Callable[[], object]:
    """Return an operation that gives one capability away first."""

    def done() -> object:
        left = EVERYTHING & ~(1 << capability)
        capset(left, left)
        return operation()

    return done


def _needs(identifier: str, capability: int, what: str, operation: Callable[[Scene], Callable[[], object]]) -> None:
    check(
        identifier,
        title=f"a command of the host needs {what}",
        attack=f"the command as user 0 with every capability but {what}",
        expected="EPERM",
        control=instead(_plain(operation), "ok", "with every capability"),
    )(_plain(lambda scene: _giving_away(capability, operation(scene))))


def _ask(scene: Scene) -> Callable[[], object]:
    context = Context(scene.xid, Vserver())
    return lambda: context.flags() and None


def _test_kill(scene: Scene) -> Callable[[], object]:
    expect_ready(scene.insider(answering()))
    context = Context(scene.xid, Vserver())
    return lambda: context.kill(0)


_needs("context.needs-admin", SYS_ADMIN, "CAP_SYS_ADMIN", _ask)
_needs("context.needs-resource", SYS_RESOURCE, "CAP_SYS_RESOURCE", _test_kill)


@contextlib.contextmanager
def _another(flags: ContextFlags = NO_FLAGS) -> Iterator[tuple[Context, int]]:
    """Make a second context with one process, which ends at the end."""
    context = free_context()
    reading, writing = os.pipe()
    ready_reading, ready_writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(writing)
            for _name, action in creation_steps(Creation(flags), context):
                action()
            os.write(ready_writing, b"x")
            os.read(reading, 1)
        finally:
            os._exit(0)
    os.close(ready_writing)
    if not os.read(ready_reading, 1):
        raise SceneError("no second context")
    try:
        yield context, child
    finally:
        os.close(writing)
        with contextlib.suppress(VserverError):
            context.kill(KILL)
        os.waitpid(child, 0)


def _on_another(operation: Callable[[Context], object], *, inside: bool) -> Probe:
    """Return a probe that does something to a second context, from the first or from the host."""

    def probe(scene: Scene) -> Seen:
        with _another() as (context, _):
            return scene.attack(lambda: attempt(operation, context), inside=inside)

    return probe


for _name, _title, _operation, _error in (
    ("enter", "no member moves to another context", lambda context: context.enter(), "EPERM"),
    ("kill", "no member kills another context", lambda context: context.kill(0), "EPERM"),
    ("information", "no member asks for another context", lambda context: context.flags() and None, "ESRCH"),
):
    check(
        f"context.{_name}-from-inside",
        title=_title,
        attack=f"the command {_name} with the id of another context, as user 0 of a context",
        expected=_error,
        control=instead(_on_another(_operation, inside=False), "ok", "the same on the host"),
        vectors=["K19"],
    )(_on_another(_operation, inside=True))


def _own_flags(scene: Scene) -> Callable[[], object]:
    context = Context(scene.xid, Vserver())
    bit = int(ContextFlags.VIRT_UPTIME)
    return lambda: context.set_flags(Change(bit, bit))


def _create(_scene: Scene) -> Callable[[], object]:
    context = free_context()

    def operation() -> None:
        child = os.fork()
        if child == 0:
            try:
                context.create(NO_FLAGS)
            except VserverError as error:
                os._exit(error.errno or 255)
            os._exit(0)
        code = os.waitpid(child, 0)[1] >> 8
        if code:
            raise OSError(code, os.strerror(code))

    return operation


def _become_host(_scene: Scene) -> Callable[[], object]:
    kernel = Vserver()
    return lambda: kernel.call(Command.CTX_MIGRATE_V0, abi.HOST) and None


for _name, _title, _body, _expected, _what in (
    ("own-flags", "a sealed context does not change its own flags", _own_flags, "EPERM", "set_cflags of the own id"),
    ("nested", "no member makes contexts", _create, "EPERM", "ctx_create"),
):
    check(
        f"context.{_name}",
        title=_title,
        attack=f"{_what} as user 0 of a context",
        expected=_expected,
        control=instead(_plain(_body), "ok", "the same on the host"),
        vectors=["K19", "K20"],
    )(_plain(_body, inside=True))


def _spectator(scene: Scene) -> Callable[[], object]:
    kernel = Vserver()
    return lambda: kernel.call(Command.CTX_MIGRATE_V0, abi.SPECTATOR)


check(
    "context.become-spectator",
    title="no member becomes a spectator",
    attack="ctx_migrate to id 1 as user 0 of a context",
    expected="EPERM",
    control=instead(_plain(_spectator), "1", "the same on the host"),
    vectors=["K19", "K29"],
)(_plain(_spectator, inside=True))
check(
    "context.become-host",
    title="no member becomes the host",
    attack="ctx_migrate to id 0 as user 0 of a context",
    expected=("EPERM", "ESRCH"),
    control=instead(_plain(_spectator), "1", "migration to the spectator's id on the host"),
    vectors=["K19"],
)(_plain(_become_host, inside=True))

aimed(
    "context.task-xid",
    ["P34"],
    title="the context of a process outside is not told",
    attack="task_xid(pid)",
    operation=lambda pid: number_of(Vserver().task_xid(pid), "an id"),
    control="an id",
)


def _on_sealed(operation: Callable[[Context, int], object], *, sealed: bool) -> Probe:
    """Return a probe in which the host commands a context, closed to it or not."""

    def probe(scene: Scene) -> Seen:
        with _another() as (context, member):
            if sealed:
                context.set_flags(Change(0, int(ContextFlags.STATE_ADMIN)))
            return scene.attack(lambda: attempt(operation, context, member), inside=False)

    return probe


def _change_flags(context: Context, _member: int) -> None:
    bit = int(ContextFlags.VIRT_UPTIME)
    context.set_flags(Change(bit, bit))


for _name, _title, _sealed_operation in (
    ("sealed-flags", "the flags of a context closed to the host stay", _change_flags),
    ("sealed-kill", "a process of a context closed to the host is not signalled", lambda c, pid: c.kill(0, pid)),
):
    check(
        f"context.{_name}",
        title=_title,
        attack="the command on the host, after STATE_ADMIN was cleared",
        expected="EACCES",
        control=instead(_on_sealed(_sealed_operation, sealed=False), "ok", "with STATE_ADMIN"),
    )(_on_sealed(_sealed_operation, sealed=True))


def _proc_virtual(scene: Scene, *, inside: bool) -> Seen:
    with _another() as (context, _):

        def look() -> str:
            listed = str(context.xid) in os.listdir("/proc/virtual")  # noqa: PTH208
            opened = attempt(lambda: Path(f"/proc/virtual/{context.xid}/status").read_text(encoding="ascii") and None)
            return f"{'listed' if listed else 'not listed'}, {opened.text}"

        return scene.attack(lambda: attempt(look), inside=inside)


check(
    "context.proc-virtual",
    title="a context sees no other in /proc/virtual",
    attack="getdents(/proc/virtual) and open(/proc/virtual/XID/status) of another context",
    expected=("not listed, ENOENT", "ENOENT"),
    control=instead(lambda scene: _proc_virtual(scene, inside=False), "listed, ok", "the same on the host"),
    vectors=["L34"],
)(lambda scene: _proc_virtual(scene, inside=True))


def _raw_socket(scene: Scene, *, bounded: bool) -> Seen:
    if bounded:
        Context(scene.xid, Vserver()).set_bound(Change(0, 1 << NET_RAW))

    def operation() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    return scene.attack(lambda: attempt(operation), inside=True)


check(
    "context.bound",
    title="a capability outside of the bound has no effect",
    attack="socket(SOCK_RAW) as user 0 of a context without NET_RAW in its bound",
    expected="EPERM",
    control=instead(lambda scene: _raw_socket(scene, bounded=False), "ok", "a context with it"),
    vectors=["K28"],
)(lambda scene: _raw_socket(scene, bounded=True))


def _reboot(scene: Scene, *, flag: bool) -> Seen:
    """Reboot from inside; with the flag REBOOT_KILL that ends the context, and in any case not the machine."""
    helper = Path("/proc/sys/kernel/vshelper")
    before = helper.read_text(encoding="ascii")
    helper.write_text("/bin/true", encoding="ascii")
    try:
        if flag:
            bit = int(ContextFlags.REBOOT_KILL)
            Context(scene.xid, Vserver()).set_flags(Change(bit, bit))
        member = expect_ready(scene.insider(answering()))
        attacker = scene.insider(_reboot_body)
        with contextlib.suppress(SceneError, ConnectionResetError):
            attacker.link.receive()
        return combined(Seen("the machine lives"), f"member {_fate_soon(member)}")
    finally:
        helper.write_text(before, encoding="ascii")


def _reboot_body(link: Link) -> None:
    seen = attempt(lambda: call("reboot", REBOOT_MAGIC, REBOOT_MAGIC2, RESTART, 0) or None)
    link.send(seen.text)


def _fate_soon(member: Actor) -> str:
    time.sleep(0.2)
    return fate(member)


check(
    "context.reboot",
    title="a reboot inside ends the context, never the machine",
    attack="reboot(RESTART) as user 0 of a context with the flag REBOOT_KILL",
    expected="the machine lives, member dead",
    control=instead(lambda scene: _reboot(scene, flag=False), "the machine lives, member alive", "without the flag"),
    vectors=["K01"],
)(lambda scene: _reboot(scene, flag=True))
