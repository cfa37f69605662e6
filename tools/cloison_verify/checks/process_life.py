# SPDX-License-Identifier: GPL-2.0-or-later
"""Init of a context, and orphans."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from cloison.abi import MAX_XID, MIN_XID
from cloison.context import Context
from cloison.flags import NO_FLAGS, ContextFlags
from cloison.launch import Creation, creation_steps
from cloison.syscall import Vserver
from cloison_verify.acts import KILL, Answers, answering, ask, call, combined, expect_ready, fate
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.process_identity import become_somebody, told
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt

PR_SET_PDEATHSIG = 1


def free_context() -> Context:
    """Return a context object of an id that nobody uses; it is not made."""
    kernel = Vserver()
    for xid in range(MIN_XID + 10_000 + os.getpid() % 9_000, MAX_XID):
        context = Context(xid, kernel)
        if not context.exists():
            return context
    raise SceneError("no context id is free")


@contextlib.contextmanager
def with_init(
    scene: Scene, flags: ContextFlags, answers: Answers | None = None, begin: Callable[[], object] | None = None
) -> Iterator[tuple[Context, Actor]]:
    """Make a context whose first process is its init and reaper; end it afterwards."""
    context = free_context()

    def body(link: Link) -> None:
        for _name, action in creation_steps(Creation(flags, init=True), context):
            action()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        answering(answers, begin)(link)

    try:
        yield context, expect_ready(scene.outsider(body))
    finally:
        try:
            scene.contexts.destroy(context.xid)
        except SceneError:
            if context.exists():  # else it has ended by itself, as it should with its last process
                raise


def _parent_of_an_orphan() -> int:
    """Fork a child that leaves a child behind; return whom that one gets as its parent."""
    reading, writing = os.pipe()
    if (first := os.fork()) == 0:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.002)
            os.write(writing, str(os.getppid()).encode())
        os._exit(0)
    os.waitpid(first, 0)
    return int(os.read(reading, 16))


@check(
    "process.orphan",
    title="an orphan gets the context's init as its parent",
    attack="a parent exits inside; getppid() of its child",
    expected="the context's init",
    control=instead(
        lambda scene: scene.attack(lambda: Seen(f"process {_parent_of_an_orphan()}"), inside=False),
        "process 1",
        "the same on the host",
    ),
    vectors=["P58"],
)
def orphan(scene: Scene) -> Seen:
    """Leave a child behind in a context that has an init."""
    with with_init(scene, NO_FLAGS) as (context, init):

        def body() -> Seen:
            context.enter()
            parent = _parent_of_an_orphan()
            return Seen("the context's init" if parent == init.pid else f"process {parent}")

        return scene.attack(body, inside=False)


@check(
    "process.orphan-fake-init",
    title="an orphan sees its context's init as process 1",
    attack="a parent exits inside a context with fake init; getppid() of its child, and its number outside",
    expected="process 1",
    control=instead(lambda scene: orphan(scene), "the context's init", "a context without fake init"),
    vectors=["P58"],
)
def orphan_fake_init(scene: Scene) -> Seen:
    """Leave a child behind in a context whose init is shown as process 1."""
    with with_init(scene, ContextFlags.INFO_INIT) as (context, _init):

        def body() -> Seen:
            context.enter()
            return Seen(f"process {_parent_of_an_orphan()}")

        return scene.attack(body, inside=False)


def _kill_init(scene: Scene, flags: ContextFlags, *, from_inside: bool) -> Seen:
    """Kill a context's init from inside, or from the host by ``ctx_kill``."""
    with with_init(scene, flags) as (context, init):
        number = 1 if ContextFlags.INFO_INIT in flags else init.pid

        def inside() -> Seen:
            context.enter()
            return attempt(os.kill, number, KILL)

        seen = scene.attack(inside, inside=False) if from_inside else attempt(context.kill, KILL, 1)
        return combined(seen, fate(init))


def _init_check(name: str, title: str, flags: ContextFlags) -> None:
    check(
        name,
        title=title,
        attack="kill(init, SIGKILL) by user 0 of the context",
        expected=("ok, alive", "EPERM, alive"),
        control=instead(lambda scene: _kill_init(scene, flags, from_inside=False), "ok, dead", "the host, by ctx_kill"),
        vectors=["P59"],
    )(lambda scene: _kill_init(scene, flags, from_inside=True))


_init_check("process.init-killed", "init of a context is not killed from inside", NO_FLAGS)
_init_check("process.fake-init-killed", "init shown as process 1 is not killed from inside", ContextFlags.INFO_INIT)


def _signal_init(scene: Scene, *, everybody: bool) -> Seen:
    """Send a signal, which init would count, to everybody in its context or to init alone."""
    arrived: list[int] = []

    def begin() -> None:
        signal.signal(signal.SIGTERM, lambda number, _frame: arrived.append(number))

    answers = {"signal": lambda: "init signalled" if arrived else "init not signalled"}
    with with_init(scene, NO_FLAGS, answers, begin) as (context, init):

        def body() -> Seen:
            context.enter()
            sibling = os.fork()
            if sibling == 0:
                while True:
                    signal.pause()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            seen = attempt(os.kill, -1 if everybody else init.pid, signal.SIGTERM)
            if everybody and os.waitpid(sibling, 0)[1] != signal.SIGTERM:
                return Seen("the sibling was not signalled")
            return seen

        return combined(scene.attack(body, inside=False), ask(init, "signal"))


check(
    "process.kill-all-init",
    title="kill(-1) inside leaves the context's init alone",
    attack="kill(-1, SIGTERM) in a context with an init that handles it",
    expected="ok, init not signalled",
    control=instead(
        lambda scene: _signal_init(scene, everybody=False), "ok, init signalled", "kill(init, SIGTERM) inside"
    ),
    vectors=["P08", "P59"],
)(lambda scene: _signal_init(scene, everybody=True))


def _parent_dies(scene: Scene, *, enters: bool) -> Seen:
    """Ask for a signal at the parent's death, enter or not, and say what comes when the parent ends."""
    xid = scene.xid
    reading, writing = os.pipe()
    parents: list[int] = []

    def child(ready: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        call("prctl", PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
        if enters:
            Context(xid, Vserver()).enter()
        os.write(ready, b"x")
        info = signal.sigtimedwait({signal.SIGUSR1}, 5)
        os.write(writing, f"{info.si_pid} {info.si_uid}".encode() if info else b"nothing")

    def parent(_link: Link) -> None:
        waiting, ready = os.pipe()
        if os.fork() == 0:
            try:
                os.close(waiting)
                child(ready)
            finally:
                os._exit(0)
        os.close(ready)
        if os.read(waiting, 1):
            become_somebody()
            os._exit(0)

    parents.append(scene.outsider(parent, keep=[writing]).pid)
    os.close(writing)
    heard = os.read(reading, 32).decode()
    if not heard:
        raise SceneError("the child did not get that far")
    return Seen(heard) if heard == "nothing" else Seen(f"heard, {told(heard, parents[0]).text}")


check(
    "process.parent-death",
    title="who asked for a signal at the death of a parent outside gets it, from nobody",
    attack="prctl(PR_SET_PDEATHSIG), enter, then the parent outside exits",
    expected="heard, nobody, user 0",
    control=instead(
        lambda scene: _parent_dies(scene, enters=False), "heard, the sender, user 65534", "without entering"
    ),
    vectors=["P58", "P47"],
)(lambda scene: _parent_dies(scene, enters=True))


@check(
    "process.orphan-outside",
    title="a child that stayed outside is not given to a context's init",
    attack="enter a context that has an init, leaving a child outside, and exit; getppid() of the child",
    expected="process 1",
    control=instead(lambda scene: orphan(scene), "the context's init", "a child that is born inside"),
    vectors=["P58"],
)
def orphan_outside(scene: Scene) -> Seen:
    """Enter a context that has an init while a child stays outside; end; say whom the child gets as its parent."""
    reading, writing = os.pipe()
    with with_init(scene, NO_FLAGS) as (context, init):

        def body(_link: Link) -> None:
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() in (parent, 0):  # it has no number from when it is inside
                    time.sleep(0.002)
                found = os.getppid()
                os.write(writing, b"the context's init" if found == init.pid else f"process {found}".encode())
                os._exit(0)
            context.enter()
            os._exit(0)

        scene.outsider(body, keep=[writing])
        os.close(writing)
        return Seen(os.read(reading, 32).decode())
