# SPDX-License-Identifier: GPL-2.0-or-later
"""A spectator sees every member of every context and changes none."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from cloison.context import become_spectator
from cloison.syscall import Vserver
from cloison_verify.acts import KILL, answering, combined, expect_ready, fate
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.host import on_member, quiet, visible
from cloison_verify.scene import Actor, Scene, Seen, attempt

SCHED_BATCH = 3


def _spectate(operation: Callable[[Actor], object], *, spectator: bool, seen_by_host: bool = False) -> Probe:
    """Return a probe that does something to a member as a spectator, or as the host, which may have to see it."""

    def probe(scene: Scene) -> Seen:
        if seen_by_host:
            visible(scene)
        member = expect_ready(scene.insider(answering()))

        def body() -> Seen:
            if spectator:
                become_spectator(Vserver())
            return attempt(operation, member)

        return combined(scene.attack(body, inside=False), fate(member))

    return probe


def _spectator(
    identifier: str, title: str, attack: str, operation: Callable[[Actor], object], expected: str, control: str
) -> None:
    """Register a check of what a spectator may do; control: the host does the same."""
    check(
        identifier,
        title=title,
        attack=f"{attack} as a spectator",
        expected=expected,
        control=instead(_spectate(operation, spectator=False), control, "the same on the host"),
    )(_spectate(operation, spectator=True))


_spectator(
    "host.spectator-sees",
    "a spectator sees the members of contexts",
    "open(/proc/PID of a member)",
    lambda member: os.close(os.open(f"/proc/{member.pid}", os.O_RDONLY)),
    "ok, alive",
    "ENOENT, alive",
)
_spectator(
    "host.spectator-renices",
    "a spectator does not renice",
    "setpriority(PRIO_PROCESS, pid of a member)",
    lambda member: os.setpriority(os.PRIO_PROCESS, member.pid, 5),
    "EPERM, alive",
    "ok, alive",
)
_spectator(
    "host.spectator-limits",
    "a spectator sets no limits",
    "prlimit64(pid of a member)",
    lambda member: quiet(resource.prlimit(member.pid, resource.RLIMIT_NOFILE, (64, 64))),
    "EPERM, alive",
    "ok, alive",
)
_spectator(
    "host.spectator-schedules",
    "a spectator does not change a scheduling class",
    "sched_setscheduler(pid of a member)",
    lambda member: os.sched_setscheduler(member.pid, SCHED_BATCH, os.sched_param(0)),
    "EPERM, alive",
    "ok, alive",
)


@check(
    "host.spectator-kills",
    title="a spectator does not kill",
    attack="kill(pid of a member, SIGKILL) as a spectator, in a context with the flag HOST_VISIBLE",
    expected="ESRCH, alive",
    control=instead(
        on_member(lambda member: os.kill(member.pid, KILL), visible_to_host=True, deadly=True),
        "ok, dead",
        "the host, in the same kind of context",
    ),
    vectors=["K29"],
)
def spectator_kills(scene: Scene) -> Seen:
    """Kill a member that the host could kill."""
    return _spectate(lambda member: os.kill(member.pid, KILL), spectator=True, seen_by_host=True)(scene)


def _write(path: str, word: str) -> None:
    """Write to a file that is there."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, word.encode())
    finally:
        os.close(descriptor)


def _changes(name: str, title: str, attack: str, operation: Callable[[Actor], object]) -> None:
    """Register a check of a change that the host may make to a member that it sees, and a spectator may not."""
    check(
        f"host.spectator-{name}",
        title=f"a spectator {title}",
        attack=f"{attack} as a spectator",
        expected=("EPERM, alive", "EACCES, alive", "ESRCH, alive"),
        control=instead(
            _spectate(operation, spectator=False, seen_by_host=True),
            "ok, alive",
            "the host, in a context with the flag HOST_VISIBLE",
        ),
        vectors=["K29"],
    )(_spectate(operation, spectator=True))


for _name, _what, _word in (
    ("oom_score_adj", "decides nothing about who is killed when memory runs out", "500"),
    ("coredump_filter", "does not choose what a core dump holds", "0x1"),
    ("clear_refs", "does not clear marks of used pages", "1"),
):
    _changes(
        _name.replace("_", "-"),
        _what,
        f"write(/proc/PID of a member/{_name})",
        lambda member, name=_name, word=_word: _write(f"/proc/{member.pid}/{name}", word),  # type: ignore[misc]
    )
