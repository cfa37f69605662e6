# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is killed when memory runs out: the init that took it, the member of a shared group, or who asks not to be."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloison.context import Context
from cloison.flags import NO_FLAGS
from cloison.syscall import Vserver
from cloison_verify.acts import answering, ask, combined, expect_ready, fate, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.process_group import below, remove_group
from cloison_verify.checks.process_life import with_init
from cloison_verify.checks.process_stream import GROUPS
from cloison_verify.scene import Actor, Scene, SceneError, Seen, attempt

MEBIBYTE = 1 << 20
MADV_POPULATE_WRITE = 23
ADJUST = Path("/proc/self/oom_score_adj")
NEARLY_IMMUNE, IMMUNE = "-900", "-1000"


def _adjust(value: str) -> str:
    """Ask for a value of ``oom_score_adj``; return what it is then. A refusal is as good as a value."""
    with contextlib.suppress(PermissionError):
        ADJUST.write_text(value, encoding="ascii")
    return ADJUST.read_text(encoding="ascii").strip()


def _immune(scene: Scene, *, inside: bool) -> Seen:
    return scene.attack(lambda: attempt(lambda: f"{_adjust(IMMUNE)}, {_adjust(NEARLY_IMMUNE)}"), inside=inside)


check(
    "process.oom-immunity",
    title="a process cannot make itself less likely to be killed when memory runs out",
    attack="oom_score_adj=-1000, then -900, as user 0",
    expected="0, 0",
    control=instead(lambda scene: _immune(scene, inside=False), "-1000, -900", "the same on the host"),
    vectors=["P62"],
)(lambda scene: _immune(scene, inside=True))


def _inherited(scene: Scene, *, enters: bool) -> Seen:
    """Let somebody immune enter, or fork where he is, and ask what his child has."""
    xid = scene.xid

    def body() -> Seen:
        before = _adjust(IMMUNE)
        if before != IMMUNE:
            raise SceneError(f"the launcher is at {before}")
        if enters:
            Context(xid, Vserver()).enter()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, ADJUST.read_bytes().strip())
            os._exit(0)
        os.wait()
        return Seen(f"{ADJUST.read_text(encoding='ascii').strip()}, child {os.read(reading, 16).decode()}")

    return scene.attack(body, inside=False)


check(
    "process.oom-immunity-inherited",
    title="a launcher that is spared when memory runs out does not bring that along",
    attack="oom_score_adj=-1000, then enter, then fork",
    expected="0, child 0",
    control=instead(lambda scene: _inherited(scene, enters=False), "-1000, child -1000", "without entering"),
    vectors=["P62"],
)(lambda scene: _inherited(scene, enters=True))


def take(size: int) -> mmap.mmap:
    """Take and touch memory: private, for what is shared is only given back when a killed process has ended."""
    area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(MADV_POPULATE_WRITE)
    return area


@contextlib.contextmanager
def quiet_console() -> Iterator[None]:
    """Keep warnings off the console: killing for memory prints a call trace, which looks like an oops there."""
    loudness = Path("/proc/sys/kernel/printk")
    before = loudness.read_text(encoding="ascii")
    loudness.write_text("4 4 1 7", encoding="ascii")
    try:
        yield
    finally:
        loudness.write_text(before, encoding="ascii")


def available() -> int:
    """Return the memory in bytes that the kernel says is available."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _lives_through(actor: Actor, question: str) -> str:
    """Ask a question that may be the actor's last one."""
    try:
        ask(actor, question)
    except (SceneError, BrokenPipeError, ConnectionResetError):
        return "dead"
    return "alive"


def _settle() -> None:
    """Leave the processor to who has just answered: if he used memory when none is left, it would be his own turn."""
    time.sleep(0.2)


def _hog(size: int) -> Seen:
    """Fork children that each take memory, until one of them has been killed or there are too many."""
    pids: list[int] = []
    for _ in range(40):
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            _kept = take(size)
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
    seconds=400,
)
def oom_victim(scene: Scene) -> Seen:
    """Use up the machine's memory while a larger process, which the kernel would choose, stands outside."""
    kept: list[mmap.mmap] = []
    size = available() // 8
    with quiet_console():
        aim = victim(scene, begin=lambda: kept.append(take(size * 4 // 3)))
        _settle()
        seen = scene.attack(lambda: _hog(size))
        return combined(seen, f"victim {fate(aim)}")


@contextlib.contextmanager
def _first_process(scene: Scene, answers: dict[str, Callable[[], object]], *, inside: bool) -> Iterator[Actor]:
    """Start the init of a new context, or a plain process."""
    if inside:
        with with_init(scene, NO_FLAGS, answers) as (_context, init):
            yield init
    else:
        yield expect_ready(scene.outsider(answering(answers)))


def _lonely_hog(scene: Scene, *, inside: bool) -> Seen:
    """Use up the machine's memory in one process, nearly immune, beside a larger one on the host.

    Both take three fifths of it: the second one cannot have what it wants, and never is the larger one. It
    stops there, so that whoever else runs on the machine is not next.
    """
    kept: list[mmap.mmap] = []
    share = available() * 3 // 5

    def hog() -> None:
        _adjust(NEARLY_IMMUNE)
        kept.append(take(share))

    with quiet_console():
        host = victim(scene, begin=lambda: kept.append(take(share)))
        with _first_process(scene, {"hog": hog}, inside=inside) as first:
            _settle()
            seen = f"hog {_lives_through(first, 'hog')}"
            return Seen(f"{seen}, host {_lives_through(host, 'ping')}")


check(
    "process.oom-init",
    title="a context of one process that runs the machine out of memory loses that one, its init",
    attack="init at oom_score_adj=-900 takes all memory of the machine beside a larger process outside",
    expected="hog dead, host alive",
    control=instead(lambda scene: _lonely_hog(scene, inside=False), "hog alive, host dead", "the same on the host"),
    vectors=["P61", "P62"],
    seconds=400,
)(lambda scene: _lonely_hog(scene, inside=True))


@contextlib.contextmanager
def _limited_group(limit: int) -> Iterator[Path]:
    """Make a control group with a limit of memory at the top, where no process stands in the way of that."""
    switch = GROUPS / "cgroup.subtree_control"
    had_memory = "memory" in switch.read_text(encoding="ascii").split()
    if not had_memory:
        switch.write_text("+memory", encoding="ascii")
    group = GROUPS / f"limited-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.max").write_text(str(limit), encoding="ascii")
        with contextlib.suppress(FileNotFoundError):
            (group / "memory.swap.max").write_text("0", encoding="ascii")
        yield group
    finally:
        remove_group(group)
        if not had_memory:
            switch.write_text("-memory", encoding="ascii")


@check(
    "process.oom-shared-group",
    title="who runs a shared control group out of memory loses his own processes",
    attack="a member takes 40 MiB in a group of 64 MiB that holds a process outside with 44 MiB",
    expected="attacker dead, victim alive",
    control=same_context(("attacker alive, victim dead", "attacker dead, victim dead")),
    vectors=["P61"],
    seconds=200,
)
def oom_shared_group(scene: Scene) -> Seen:
    """Reach the limit of a group beside somebody larger."""
    kept: list[mmap.mmap] = []
    with quiet_console(), _limited_group(64 * MEBIBYTE) as group:
        try:
            aim = victim(scene, {"take": lambda: kept.append(take(44 * MEBIBYTE))})
            attacker = expect_ready(scene.insider(answering({"take": lambda: kept.append(take(40 * MEBIBYTE))})))
            for actor in (aim, attacker):
                below(group, actor)
            if _lives_through(aim, "take") == "dead":
                raise SceneError("the victim alone is too much for the group")
            _settle()
            seen = f"attacker {_lives_through(attacker, 'take')}"
            return Seen(f"{seen}, victim {_lives_through(aim, 'ping')}")
        finally:
            scene.close()
