# SPDX-License-Identifier: GPL-2.0-or-later
"""Making, stopping and removing contexts from the host."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

from cloison import supervise
from cloison.abi import MAX_XID, MIN_XID
from cloison.context import ALL, Context, Ending
from cloison.errors import CloisonError, Exit
from cloison.flags import Change, ContextFlags
from cloison.launch import Creation, creation_steps
from cloison.syscall import (
    BusyError,
    ExistsError,
    InterruptedCallError,
    NoSuchContextError,
    Vserver,
    VserverError,
)

FIRST_CHOSEN = 100
"""Where the search for a free xid begins, so that small numbers stay for those who choose their own."""
POLL = (0.001, 0.05)
"""Seconds between two looks at a context that is asked to end: the first pause and, after doublings, the longest."""


def candidates(taken: set[int]) -> Iterator[int]:
    """Return ids to try, lowest first from `FIRST_CHOSEN`, without those known to be taken."""
    for xid in chain(range(FIRST_CHOSEN, MAX_XID + 1), range(MIN_XID, FIRST_CHOSEN)):
        if xid not in taken:
            yield xid


def create_persistent(
    context: Context, creation: Creation, *, in_child: Callable[[Callable[[], bytes]], bytes] = supervise.in_child
) -> None:
    """Make a context that lives on without processes. Raises `ExistsError` or `BusyError` if the id is in use."""
    lasting = replace(creation, flags=creation.flags | ContextFlags.PERSISTENT, init=False)

    def make() -> bytes:
        for _name, action in creation_steps(lasting, context):
            action()
        return b""

    in_child(make)


def create_anywhere(kernel: Vserver, taken: set[int], make: Callable[[Context], None]) -> Context:
    """Call `make` with contexts of free ids until one is made; the id may be taken between look and try."""
    for xid in candidates(taken):
        context = Context(xid, kernel)
        try:
            make(context)
        except (ExistsError, BusyError):
            continue
        return context
    raise CloisonError("no context id is free", hint=f"{MAX_XID - MIN_XID + 1} contexts exist; remove some")


def members(context: Context) -> int:
    """Return the number of tasks in a context, without the claim that keeps a persistent one alive."""
    tasks = context.information().tasks
    return max(0, tasks - (1 if ContextFlags.PERSISTENT in context.flags() else 0))


def empty(context: Context, deadline: float) -> bool:
    """Wait until a context has no tasks or is gone; False when `deadline` (monotonic seconds) came first."""
    pause = POLL[0]
    while True:
        try:
            if members(context) == 0:
                return True
        except NoSuchContextError:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, POLL[1])


def stop(context: Context, grace: float, sig: int = signal.SIGTERM) -> None:
    """End every process of a context: `sig`, up to `grace` seconds, then SIGKILL until none is left.

    A context that forks while it is being killed is killed again, for up to 30 s.
    """
    with contextlib.suppress(NoSuchContextError):
        context.kill(sig, ALL)
        if grace > 0 and empty(context, time.monotonic() + grace):
            return
        last = time.monotonic() + 30.0
        while time.monotonic() < last:
            context.kill(signal.SIGKILL, ALL)
            if empty(context, time.monotonic() + 0.2):
                return
        raise CloisonError(
            f"context {context.xid} still has {members(context)} tasks after 30 s of SIGKILL",
            hint="a task in uninterruptible sleep cannot be killed; see /proc/PID/wchan of it",
        )


def remove(context: Context, *, force: bool, grace: float) -> None:
    """End a context; with processes in it only when `force` is given. Raises `NoSuchContextError` if absent."""
    count = members(context)
    if count and not force:
        raise CloisonError(
            f"context {context.xid} still has {count} task{'s' if count > 1 else ''}",
            hint="--force ends them (SIGTERM, a grace time, SIGKILL)",
        )
    if count:
        stop(context, grace)
    with contextlib.suppress(NoSuchContextError):
        context.set_flags(Change(0, int(ContextFlags.PERSISTENT)))
    deadline = time.monotonic() + 5.0
    pause = POLL[0]
    while context.exists():
        if time.monotonic() > deadline:
            raise CloisonError(
                f"context {context.xid} did not end", hint="a new process may have entered; try again with --force"
            )
        time.sleep(pause)
        pause = min(2 * pause, POLL[1])


def wait(context: Context, timeout: float | None) -> Ending:
    """Wait until a context has ended. Raises `CloisonError` with status 4 after `timeout` seconds."""
    expired: list[bool] = []

    def alarm(_number: int, _frame: object) -> None:
        expired.append(True)

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        if timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, max(timeout, 0.001), 0.1)
        while True:
            try:
                return context.wait()
            except InterruptedCallError:
                if expired:
                    raise CloisonError(
                        f"context {context.xid} did not end within {timeout:g} s", status=Exit.TIMEOUT
                    ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def explain(error: VserverError, name: str) -> CloisonError:
    """Turn a failed command into one line and a hint for an administrator."""
    if isinstance(error, NoSuchContextError):
        return CloisonError(f"{name}: no such context", hint="cloison list shows those that exist", status=Exit.ABSENT)
    if isinstance(error, (ExistsError, BusyError)):
        return CloisonError(f"{name}: {error.reason}", hint="choose another --xid, or leave it out")
    return CloisonError(f"{name}: {error.reason}", hint=_hint(error))


def _hint(error: VserverError) -> str:
    if error.errno == errno.ENOSYS:
        return "run it as root" if os.geteuid() != 0 else "cloison info tells what the running kernel offers"
    if error.errno == errno.EPERM:
        return "contexts are administrated from the host (xid 0) by root"
    return ""
