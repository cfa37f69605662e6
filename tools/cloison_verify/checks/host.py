# SPDX-License-Identifier: GPL-2.0-or-later
"""The wall from the other side: what the host sees of a context, and cannot do to it by a slip."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from cloison.context import Context
from cloison.flags import NO_FLAGS, Change, ContextFlags
from cloison.launch import Creation, creation_steps
from cloison.syscall import NoSuchContextError, Vserver
from cloison_verify.acts import KILL, answering, ask, call, combined, expect_ready, fate, own_group
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.process_identity import become_somebody, told
from cloison_verify.checks.process_life import free_context
from cloison_verify.scene import Actor, Link, Scene, Seen, attempt

PTRACE_SEIZE = 0x4206


def visible(scene: Scene) -> None:
    """Open the scene's context to the host's eyes and signals."""
    bit = int(ContextFlags.HOST_VISIBLE)
    Context(scene.xid, Vserver()).set_flags(Change(bit, bit))


def on_member(operation: Callable[[Actor], object], *, visible_to_host: bool, deadly: bool) -> Probe:
    """Return a probe in which a process of the host does something to a member of a context."""

    def probe(scene: Scene) -> Seen:
        if visible_to_host:
            visible(scene)
        member = expect_ready(scene.insider(answering(begin=own_group)))
        seen = scene.attack(lambda: attempt(operation, member), inside=False)
        return combined(seen, fate(member)) if deadly else seen

    return probe


def _host(
    identifier: str, title: str, attack: str, operation: Callable[[Actor], object], expected: str, control: str
) -> None:
    """Register a check of the host against a member; control: the same with HOST_VISIBLE."""
    deadly = control.endswith("dead")
    check(
        identifier,
        title=title,
        attack=attack,
        expected=expected,
        control=instead(
            on_member(operation, visible_to_host=True, deadly=deadly), control, "a context with the flag HOST_VISIBLE"
        ),
    )(on_member(operation, visible_to_host=False, deadly=deadly))


def quiet(_value: object) -> None:
    """Take a result that says nothing."""


_host(
    "host.kill",
    "the host's kill finds nobody in a context",
    "kill(pid of a member, SIGKILL) on the host",
    lambda member: os.kill(member.pid, KILL),
    "ESRCH, alive",
    "ok, dead",
)
_host(
    "host.kill-group",
    "the host's kill finds no group in a context",
    "kill(-pgid of a member, SIGKILL) on the host",
    lambda member: os.kill(-member.pid, KILL),
    "ESRCH, alive",
    "ok, dead",
)
_host(
    "host.tgkill",
    "the host's tgkill finds no thread in a context",
    "tgkill(pid, tid of a member, SIGKILL) on the host",
    lambda member: quiet(call("tgkill", member.pid, member.pid, KILL)),
    "ESRCH, alive",
    "ok, dead",
)
_host(
    "host.proc",
    "the host's /proc does not show a member",
    "open(/proc/PID of a member) on the host",
    lambda member: os.close(os.open(f"/proc/{member.pid}", os.O_RDONLY)),
    "ENOENT",
    "ok",
)
_host(
    "host.listing",
    "the host's /proc does not list a member",
    "getdents(/proc) on the host",
    lambda member: "listed" if str(member.pid) in os.listdir("/proc") else "not listed",  # noqa: PTH208
    "not listed",
    "listed",
)


def _kill_all(scene: Scene, *, visible_to_host: bool) -> Seen:
    """Send everybody a signal that is ignored by default; the member counts it."""
    if visible_to_host:
        visible(scene)
    arrived: list[int] = []

    def begin() -> None:
        signal.signal(signal.SIGWINCH, lambda number, _frame: arrived.append(number))

    answers = {"signal": lambda: "signalled" if arrived else "not signalled"}
    member = expect_ready(scene.insider(answering(answers, begin)))
    seen = scene.attack(lambda: attempt(os.kill, -1, signal.SIGWINCH), inside=False)
    return combined(seen, ask(member, "signal"))


check(
    "host.kill-all",
    title="the host's kill(-1) ends at the wall",
    attack="kill(-1, SIGWINCH) on the host",
    expected="ok, not signalled",
    control=instead(
        lambda scene: _kill_all(scene, visible_to_host=True), "ok, signalled", "a context with the flag HOST_VISIBLE"
    ),
    vectors=["P08"],
)(lambda scene: _kill_all(scene, visible_to_host=False))


def _trace_sealed(scene: Scene, *, sealed: bool) -> Seen:
    """Trace a member of a context from the host, after the context was closed to the host or before."""
    context = free_context()

    def body(link: Link) -> None:
        for _name, action in creation_steps(Creation(NO_FLAGS), context):
            action()
        link.send("ready")
        link.receive()

    member = expect_ready(scene.outsider(body))
    try:
        if sealed:
            context.set_flags(Change(0, int(ContextFlags.STATE_ADMIN)))
        return scene.attack(
            lambda: attempt(lambda: quiet(call("ptrace", PTRACE_SEIZE, member.pid, 0, 0))), inside=False
        )
    finally:
        member.link.send("leave")
        context.kill(KILL, 0)


check(
    "host.sealed-trace",
    title="a context that was closed to the host is not traced from there",
    attack="ptrace(PTRACE_SEIZE, pid of a member) on the host without STATE_ADMIN",
    expected="EACCES",
    control=instead(lambda scene: _trace_sealed(scene, sealed=False), "ok", "a context that is administrated"),
)(lambda scene: _trace_sealed(scene, sealed=True))


def _vinfo(scene: Scene, *, hidden: bool) -> Seen:
    """Look for the xid among one's own files."""
    if hidden:
        bit = int(ContextFlags.HIDE_VINFO)
        Context(scene.xid, Vserver()).set_flags(Change(bit, bit))

    def look() -> str:
        with open("/proc/self/status", encoding="ascii") as stream:
            shown = "shown" if f"VxID:\t{scene.xid}\n" in stream.read() else "hidden"
        return f"{shown}, vinfo {attempt(lambda: os.close(os.open('/proc/self/vinfo', os.O_RDONLY))).text}"

    return scene.attack(lambda: attempt(look), inside=True)


check(
    "host.hide-vinfo",
    title="a context does not learn its number where that is hidden",
    attack="/proc/self/status and vinfo in a context with the flag HIDE_VINFO",
    expected="hidden, vinfo ENOENT",
    control=instead(lambda scene: _vinfo(scene, hidden=False), "shown, vinfo ok", "a context without the flag"),
    vectors=["L34"],
)(lambda scene: _vinfo(scene, hidden=True))


def _sender(scene: Scene, *, from_host: bool) -> Seen:
    """Let a member of a visible context get a signal from a user of the host's kill(2), or from its own context's."""
    visible(scene)
    member = expect_ready(scene.insider(answering({"sender": _wait_for_sender}, _block)))
    start = scene.outsider if from_host else scene.insider
    sender = expect_ready(start(answering({"kill": lambda: os.kill(member.pid, signal.SIGUSR1)}, become_somebody)))
    ask(sender, "kill")
    return told(ask(member, "sender"), sender.pid)


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def _wait_for_sender() -> str:
    info = signal.sigtimedwait({signal.SIGUSR1}, 5)
    return f"{info.si_pid} {info.si_uid}" if info else "-1 -1"


check(
    "host.signal-sender",
    title="a signal that the host sends into a visible context names nobody and no user",
    attack="si_pid and si_uid of a signal by kill(2) from the host",
    expected="nobody, user 0",
    control=instead(
        lambda scene: _sender(scene, from_host=False), "the sender, user 65534", "a signal from the same context"
    ),
    vectors=["P47", "I20"],
)(lambda scene: _sender(scene, from_host=True))


def _kill_visible_init(scene: Scene, *, visible: bool) -> Seen:
    context = free_context()

    def body(link: Link) -> None:
        for _name, action in creation_steps(Creation(flags, init=True), context):
            action()
        answering()(link)

    flags = ContextFlags.INFO_INIT | (ContextFlags.HOST_VISIBLE if visible else NO_FLAGS)
    init = expect_ready(scene.outsider(body))
    try:
        return combined(scene.attack(lambda: attempt(os.kill, init.pid, KILL), inside=False), fate(init))
    finally:
        with contextlib.suppress(NoSuchContextError):  # it ends by itself when its init was the last to die
            context.kill(KILL, 0)


check(
    "host.kill-init",
    title="the host kills the init of a context only where that is visible to it",
    attack="kill(pid of init, SIGKILL) on the host",
    expected="ESRCH, alive",
    control=instead(
        lambda scene: _kill_visible_init(scene, visible=True), "ok, dead", "a context with the flag HOST_VISIBLE"
    ),
)(lambda scene: _kill_visible_init(scene, visible=False))
