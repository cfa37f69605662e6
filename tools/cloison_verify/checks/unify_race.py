# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: races for the copy, file systems without room for it, and who is killed while it is made."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

from cloison.context import Context
from cloison.syscall import Vserver
from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt
from cloison_verify.shared_files import (
    BROKEN,
    KEPT,
    MEBIBYTE,
    contents,
    effect,
    folder,
    leftovers,
    mark,
    open_to_write,
    pair,
    state,
    write_with,
)


def _openers(path: Path, number: int) -> list[str | None]:
    """Let threads open and append at the same moment; return their errors."""
    errors: list[str | None] = []
    gate = threading.Barrier(number)

    def run() -> None:
        gate.wait()
        errors.append(attempt(write_with(os.O_WRONLY | os.O_APPEND), path).errno)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _race(scene: Scene, number: int, *, marked: bool) -> Seen:
    with folder() as where:
        both = pair(where, os.urandom(4 * MEBIBYTE), marked=marked)
        before = contents(both.own)

        def body() -> Seen:
            return Seen(" ".join(sorted({error or "ok" for error in _openers(both.own, number)})))

        seen = scene.attack(body, inside=True)
        after = contents(both.own)
        whole = after == before + b"mine\n" * number
        other = "other unchanged" if contents(both.other) == before else "other changed"
        left = "nothing left over" if not leftovers(where) else "leftovers"
        return combined(seen, "all writes in one copy" if whole else "writes lost", other, left)


@check(
    "unify.race-openers",
    title="many who open a shared file at once get one copy",
    attack="8 threads: open(O_WRONLY | O_APPEND), write, at the same moment, on a shared file of 4 MiB",
    expected="ok, all writes in one copy, other unchanged, nothing left over",
    control=instead(
        lambda scene: _race(scene, 8, marked=False),
        "ok, all writes in one copy, other changed, nothing left over",
        "an ordinary hard link",
    ),
    vectors=["F43"],
    seconds=60,
)
def race_openers(scene: Scene) -> Seen:
    """Open at once."""
    return _race(scene, 8, marked=True)


def _until(seconds: float, step: object) -> None:
    end = time.monotonic() + seconds
    assert callable(step)
    while time.monotonic() < end:
        step()


@check(
    "unify.race-names",
    title="renames, links and removals during a break lose nothing",
    attack="open(O_WRONLY) of shared files in a loop while a process renames, links, unlinks and shares them again",
    expected="always whole, other unchanged, nothing left over",
    control=instead(
        lambda scene: _race_names(scene, marked=False),
        "always whole, other changed, nothing left over",
        "ordinary hard links, which the writer changes for both",
    ),
    vectors=["F43"],
    seconds=60,
)
def race_names(scene: Scene) -> Seen:
    """Move the name about while the link is broken."""
    return _race_names(scene, marked=True)


def _race_names(scene: Scene, *, marked: bool) -> Seen:
    with folder() as where:
        both = pair(where, os.urandom(MEBIBYTE), marked=marked)
        before = contents(both.other)
        patched = before[:512] + b"!" * 64 + before[576:]

        def move() -> None:
            moved, fresh = both.own.with_name("moved"), both.own.with_name("fresh")
            while True:
                both.own.rename(moved)
                moved.rename(both.own)
                os.link(both.other, fresh)
                fresh.rename(both.own)
                fresh.unlink(missing_ok=True)  # rename() does nothing where both are one file

        def body() -> Seen:
            mover = os.fork()
            if mover == 0:
                try:
                    move()
                finally:
                    os._exit(1)
            seen: list[bool] = []
            end = time.monotonic() + 20
            while len(seen) < 100 and time.monotonic() < end:
                try:
                    descriptor = os.open(both.own, os.O_RDWR)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EPERM, errno.ESTALE):
                        raise
                    continue
                content = os.pread(descriptor, MEBIBYTE + 1, 0)
                seen.append(content in (before, patched))
                os.pwrite(descriptor, b"!" * 64, 512)
                os.close(descriptor)
            ended = os.waitpid(mover, os.WNOHANG)[0]
            os.kill(mover, signal.SIGKILL)
            if ended:
                return Seen("the mover failed")
            os.waitpid(mover, 0)
            return Seen("never opened" if not seen else "always whole" if all(seen) else "torn")

        result = scene.attack(body, inside=True)
        other = "other unchanged" if contents(both.other) == before else "other changed"
        return combined(result, other, "nothing left over" if not leftovers(where) else "leftovers")


def _space(where: Path) -> int:
    return os.statvfs(where).f_bfree


def _full(scene: Scene, size: str) -> Seen:
    with folder("tmpfs", f"size={size}") as where:
        both = pair(where, os.urandom(4 * MEBIBYTE))
        before, free = state(both.own), _space(where)
        seen = scene.attack(lambda: attempt(write_with(os.O_WRONLY), both.own), inside=True)
        if not seen.errno:
            return combined(seen, effect(both, before))
        return combined(seen, effect(both, before), "no space lost" if _space(where) >= free - 1 else "space lost")


@check(
    "unify.full",
    title="a file system without room for the copy says so and keeps what it has",
    attack="open(O_WRONLY) of a shared file of 4 MiB with 2 MiB free, in a context",
    expected=f"ENOSPC, {KEPT}, no space lost",
    control=instead(lambda scene: _full(scene, "12m"), BROKEN, "8 MiB free"),
    vectors=["F43"],
)
def full(scene: Scene) -> Seen:
    """Run out of space in the middle of the copy."""
    return _full(scene, "6m")


def _killed(scene: Scene, sig: int) -> Seen:
    """Send a signal to one who is copying 48 MiB; who had finished before that is not counted."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        for _ in range(6):
            seen = _signalled(scene, sig)
            if sig != signal.SIGKILL or not seen.text.startswith("open"):
                break
        return seen
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _signalled(scene: Scene, sig: int) -> Seen:
    with folder("tmpfs", "size=120m") as where:
        both = pair(where, b"")
        for path in (both.own, both.other):
            path.unlink()
        with both.own.open("wb") as stream:
            for _ in range(48):
                stream.write(os.urandom(65536) * 16)
        os.link(both.own, both.other)
        mark(both.own)
        free, number = _space(where), both.other.stat().st_ino

        def body(link: Link) -> None:
            signal.signal(signal.SIGALRM, lambda *_: None)
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            link.send("ready")
            link.receive()
            open_to_write(both.own)
            link.send("open")

        actor = scene.insider(body)
        actor.link.receive()
        actor.link.send("go")
        while _space(where) > free - 256:  # a MiB of the copy is there
            time.sleep(0.0005)
        Context(scene.xid, Vserver()).kill(sig, actor.pid)
        try:
            answer = actor.link.receive()
        except SceneError:
            answer = "dead"
        if answer == "dead":
            actor.end()
            _until(0.2, lambda: time.sleep(0.05))
            space = "no space lost" if _space(where) >= free - 1 else "space lost"
            return Seen(f"dead, {'one file' if both.one else 'two files'}, {space}")
        whole = both.other.stat().st_ino == number and not both.one
        return Seen(f"{answer}, {'two files' if whole else 'one file'}")


@check(
    "unify.killed",
    title="who is killed in the middle of the copy leaves nothing behind",
    attack="SIGKILL to a process that opens a shared file of 48 MiB for writing",
    expected="dead, one file, no space lost",
    control=instead(
        lambda scene: _killed(scene, signal.SIGALRM),
        "open, two files",
        "a signal with a handler, after which it goes on",
    ),
    vectors=["F43"],
    seconds=60,
)
def killed(scene: Scene) -> Seen:
    """Kill the opener."""
    return _killed(scene, signal.SIGKILL)
