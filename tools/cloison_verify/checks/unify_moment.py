# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: signals, limits and flags of the caller while a copy is made, and others who make one."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import threading
from pathlib import Path

from cloison_verify.acts import call, combined
from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.shared_files import (
    BROKEN,
    KEPT,
    MEBIBYTE,
    contents,
    effect,
    folder,
    mark,
    pair,
    state,
    write_with,
)

AT_FDCWD = -100
RESOLVE_CACHED = 0x20
PULSE = 0.002
"""Seconds between the signals of the timer."""


def _openat(path: Path, flags: int) -> None:
    """Call openat(2) itself: Python tries again after EINTR."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    os.close(call("openat", AT_FDCWD, ctypes.addressof(name), flags, 0))


def _read_nothing(_path: Path, _flags: int) -> None:
    reading, _writing = os.pipe()
    call("read", reading, ctypes.addressof(ctypes.create_string_buffer(1)), 1)


def _signalled(scene: Scene, *, restart: bool, copy: bool) -> Seen:
    """Make a copy of 32 MiB, or wait for what never comes, under a timer."""
    with folder("tmpfs", "size=80m") as where:
        own, other = where / "own", where / "other"
        with own.open("wb") as stream:
            for _ in range(32):
                stream.write(os.urandom(65536) * 16)
        os.link(own, other)
        mark(own)

        def body() -> Seen:
            pulses: list[int] = []
            signal.signal(signal.SIGALRM, lambda number, _frame: pulses.append(number))
            signal.siginterrupt(signal.SIGALRM, not restart)
            signal.setitimer(signal.ITIMER_REAL, PULSE, PULSE)
            seen = attempt(_openat if copy else _read_nothing, own, os.O_WRONLY)
            signal.setitimer(signal.ITIMER_REAL, 0)
            return combined(seen, "signalled" if pulses else "undisturbed")

        seen = scene.attack(body, inside=True)
        return combined(seen, "one file" if own.stat().st_ino == other.stat().st_ino else "two files")


for _name, _restart in (("signals", False), ("signals-restart", True)):

    def _disturbed(scene: Scene, restart: bool = _restart) -> Seen:
        return _signalled(scene, restart=restart, copy=True)

    check(
        f"unify.{_name}",
        title="signals that do not kill neither end the copy nor begin it again",
        attack=f"openat(O_WRONLY) of a shared file of 32 MiB, SIGALRM {'with' if _restart else 'no'} SA_RESTART",
        expected="ok, signalled, two files",
        control=instead(
            lambda scene: _signalled(scene, restart=False, copy=False),
            "EINTR, signalled, one file",
            "read() of an empty pipe, which the same signals end",
        ),
        vectors=["F43"],
        seconds=60,
    )(_disturbed)


ROUNDS, MANY = 15, 6


def _together(path: Path) -> list[str]:
    """Let threads change and open a file by its name at the same moment; return what each saw."""
    seen: list[str] = []
    gate = threading.Barrier(MANY)

    def run(number: int) -> None:
        gate.wait()
        act = (lambda: path.chmod(0o644)) if number % 2 else (lambda: write_with(os.O_WRONLY | os.O_APPEND)(path))
        seen.append(attempt(act).text)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _rounds(scene: Scene, *, marked: bool) -> Seen:
    with folder() as where:
        seen: set[str] = set()
        others: set[str] = set()
        for number in range(ROUNDS):
            place = where / str(number)
            place.mkdir()
            both = pair(place, os.urandom(65536), marked=marked)
            before = contents(both.other)
            if number % 3 == 2:
                both.other.unlink()  # the last name, which is written in place

            def body(own: Path = both.own) -> Seen:
                return Seen("/".join(sorted(set(_together(own)))))

            seen.add(scene.attack(body, inside=True).text)
            if both.other.exists():
                others.add("unchanged" if contents(both.other) == before else "changed")
        return Seen(f"{' '.join(sorted(seen))}, other {' '.join(sorted(others))}")


check(
    "unify.race-both",
    title="who comes while another gets the copy goes on with that",
    attack=f"{MANY} threads: open(O_APPEND) and chmod() of a shared file at the same moment, {ROUNDS} times",
    expected="ok, other unchanged",
    control=instead(lambda scene: _rounds(scene, marked=False), "ok, other changed", "ordinary hard links"),
    vectors=["F43"],
    seconds=60,
)(lambda scene: _rounds(scene, marked=True))


def _sized(scene: Scene, most: int) -> Seen:
    """Call chmod() with a limit on the size of files."""
    with folder() as where:
        both = pair(where, os.urandom(MEBIBYTE))
        before = state(both.own)

        def body() -> Seen:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            return attempt(both.own.chmod, 0o600)

        return combined(scene.attack(body, inside=True), effect(both, before))


check(
    "unify.file-size",
    title="a limit on the size of files ends nobody who calls chmod()",
    attack="chmod() of a shared file of 1 MiB with RLIMIT_FSIZE of 64 KiB, in a context",
    expected=f"EFBIG, {KEPT}",
    control=instead(lambda scene: _sized(scene, 2 * MEBIBYTE), BROKEN, "RLIMIT_FSIZE of 2 MiB"),
    vectors=["F41"],
)(lambda scene: _sized(scene, 65536))


def _cached(scene: Scene, resolve: int) -> Seen:
    with folder() as where:
        both = pair(where)
        before = state(both.own)

        def opened() -> None:
            how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_WRONLY | os.O_APPEND, 0, resolve), 24)
            name = ctypes.create_string_buffer(os.fsencode(both.own))
            descriptor = call("openat2", AT_FDCWD, ctypes.addressof(name), ctypes.addressof(how), 24)
            os.write(descriptor, b"mine\n")
            os.close(descriptor)

        return combined(scene.attack(lambda: attempt(opened), inside=True), effect(both, before))


check(
    "unify.cached",
    title="who asks for what is in memory only does not wait for a copy",
    attack="openat2(O_WRONLY, RESOLVE_CACHED) of a shared file, in a context",
    expected=f"EAGAIN, {KEPT}",
    control=instead(lambda scene: _cached(scene, 0), BROKEN, "without RESOLVE_CACHED"),
    vectors=["F40"],
)(lambda scene: _cached(scene, RESOLVE_CACHED))
