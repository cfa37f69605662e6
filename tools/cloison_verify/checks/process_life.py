# SPDX-License-Identifier: GPL-2.0-or-later
"""Init of a context, orphans, and who is killed when memory runs out."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloison.abi import MAX_XID, MIN_XID
from cloison.context import Context
from cloison.flags import NO_FLAGS, ContextFlags
from cloison.launch import Creation, creation_steps
from cloison.syscall import Vserver
from cloison_verify.acts import KILL, Answers, answering, ask, combined, expect_ready, fate, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.scene import Actor, Link, Scene, SceneError, Seen, attempt

MADV_POPULATE_WRITE = 23


def free_context() -> Context:
    """Return a context object of an id that nobody uses; it is not made."""
    kernel = Vserver()
    for xid in range(MIN_XID + 10_000 + os.getpid() % 9_000, MAX_XID):
        context = Context(xid, kernel)
        if not context.exists():
            return context
    raise SceneError("no context id is free")


@contextlib.contextmanager
def _with_init(
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
    with _with_init(scene, NO_FLAGS) as (context, init):

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
    with _with_init(scene, ContextFlags.INFO_INIT) as (context, _init):

        def body() -> Seen:
            context.enter()
            return Seen(f"process {_parent_of_an_orphan()}")

        return scene.attack(body, inside=False)


def _kill_init(scene: Scene, flags: ContextFlags, *, from_inside: bool) -> Seen:
    """Kill a context's init from inside, or from the host by ``ctx_kill``."""
    with _with_init(scene, flags) as (context, init):
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
    with _with_init(scene, NO_FLAGS, answers, begin) as (context, init):

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


def _immune(scene: Scene, *, inside: bool) -> Seen:
    def operation() -> str:
        path = Path("/proc/self/oom_score_adj")
        descriptor = os.open(path, os.O_RDWR)
        os.write(descriptor, b"-1000")
        return "immune" if path.read_text(encoding="ascii").strip() == "-1000" else "clamped"

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.oom-immunity",
    title="a process cannot exempt itself from being killed when memory runs out",
    attack="oom_score_adj=-1000 as user 0",
    expected=("EACCES", "EPERM", "clamped"),
    control=instead(lambda scene: _immune(scene, inside=False), "immune", "the same on the host"),
    vectors=["P62"],
)(lambda scene: _immune(scene, inside=True))


def _take(size: int) -> mmap.mmap:
    """Take and touch memory."""
    area = mmap.mmap(-1, size)
    area.madvise(MADV_POPULATE_WRITE)
    return area


@contextlib.contextmanager
def _quiet_console() -> Iterator[None]:
    """Keep warnings off the console: killing for memory prints a call trace, which looks like an oops there."""
    loudness = Path("/proc/sys/kernel/printk")
    before = loudness.read_text(encoding="ascii")
    loudness.write_text("4 4 1 7", encoding="ascii")
    try:
        yield
    finally:
        loudness.write_text(before, encoding="ascii")


def _available() -> int:
    """Return the memory in bytes that the kernel says is available."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _hog(size: int) -> Seen:
    """Fork children that each take memory, until one of them has been killed or there are too many."""
    pids: list[int] = []
    for _ in range(40):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            _kept = _take(size)
            os.write(writing, b"x")
            while True:
                signal.pause()
        os.close(writing)
        pids.append(pid)
        os.read(reading, 1)
        os.close(reading)
        if any(os.waitpid(pid, os.WNOHANG)[0] for pid in pids):
            return Seen("one of its own killed")
    return Seen("none of its own killed")


@check(
    "process.oom-victim",
    title="who runs the machine out of memory loses his own processes",
    attack="processes inside take all memory of the machine beside a larger process outside",
    expected="one of its own killed, victim alive",
    control=same_context(("one of its own killed, victim dead", "none of its own killed, victim dead")),
    vectors=["P61"],
    seconds=120,
)
def oom_victim(scene: Scene) -> Seen:
    """Use up the machine's memory while a larger process, which the kernel would choose, stands outside."""
    kept: list[mmap.mmap] = []
    size = _available() // 8
    with _quiet_console():
        aim = victim(scene, begin=lambda: kept.append(_take(size * 4 // 3)))
        seen = scene.attack(lambda: _hog(size))
        return combined(seen, f"victim {fate(aim)}")
