# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: who may have a copy, and of what: mounts, mappings, names that are gone."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.shared_files import (
    BROKEN,
    KEPT,
    Pair,
    effect,
    folder,
    mark,
    mount,
    pair,
    state,
    write_as_user,
    write_with,
)

MS_BIND, MS_REMOUNT, MS_RDONLY = 4096, 32, 1


def _as_user(scene: Scene, mode: int, owner: int) -> Seen:
    with folder() as where:
        where.chmod(0o755)
        both = pair(where, marked=False)
        os.chown(both.own, owner, owner)
        both.own.chmod(mode)
        mark(both.own)
        before = state(both.own)

        return combined(scene.attack(lambda: write_as_user(both.own), inside=True), effect(both, before))


@check(
    "unify.user",
    title="who may not write to a file gets no copy of it",
    attack="open(O_WRONLY) of root's shared file 0644 by user 1000, in a context",
    expected=f"EACCES, {KEPT}",
    control=instead(lambda scene: _as_user(scene, 0o644, 1000), BROKEN, "the user's own file, in a directory of root"),
    vectors=["F40"],
)
def ordinary_user(scene: Scene) -> Seen:
    """Try as somebody who may not."""
    return _as_user(scene, 0o644, 0)


def _mounted(scene: Scene, flags: int, *, file: bool) -> Seen:
    """Open for writing through a bind mount, of the file alone or of its directory."""
    with folder() as where:
        both = pair(where)
        before = state(both.own)
        source = both.own if file else both.own.parent
        target = where / "target"
        if file:
            target.touch()
        else:
            target.mkdir()
        mount(str(source), target, "none", MS_BIND)
        try:
            if flags:
                mount("none", target, "none", MS_BIND | MS_REMOUNT | flags)
            path = target if file else target / "file"
            seen = scene.attack(lambda: attempt(write_with(os.O_WRONLY), path), inside=True)
            return combined(seen, effect(both, before))
        finally:
            _unmount(target)


def _unmount(target: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(target), 2)


@check(
    "unify.bind-file",
    title="a file that is a mount is not replaced behind it",
    attack="open(O_WRONLY) of a bind mount of a shared file, in a context",
    expected=f"EPERM, {KEPT}",
    control=instead(lambda scene: _mounted(scene, 0, file=False), BROKEN, "a bind mount of its directory"),
    vectors=["F40"],
)
def bind_file(scene: Scene) -> Seen:
    """Write through a mounted file."""
    return _mounted(scene, 0, file=True)


@check(
    "unify.bind-read-only",
    title="a read-only mount of a shared tree copies nothing",
    attack="open(O_WRONLY) of a shared file on a read-only bind mount, in a context",
    expected=f"EROFS, {KEPT}",
    control=instead(lambda scene: _mounted(scene, 0, file=False), BROKEN, "the same mount, writable"),
    vectors=["F77"],
)
def bind_read_only(scene: Scene) -> Seen:
    """Write where the mount forbids it."""
    return _mounted(scene, MS_RDONLY, file=False)


def _mapped(scene: Scene, flags: int) -> Seen:
    with folder() as where:
        both = pair(where)
        before = state(both.other)

        def body() -> Seen:
            descriptor = os.open(both.own, flags)

            def write() -> None:
                with mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as view:
                    view[0:4] = b"mine"

            return attempt(write)

        return combined(
            scene.attack(body, inside=True), "other unchanged" if state(both.other) == before else "other changed"
        )


@check(
    "unify.mmap",
    title="a mapping does not write to a shared file",
    attack="mmap(PROT_WRITE, MAP_SHARED) of a descriptor for reading of a shared file, in a context",
    expected="EACCES, other unchanged",
    control=instead(
        lambda scene: _mapped(scene, os.O_RDWR), "ok, other unchanged", "a descriptor for writing: a copy's"
    ),
    vectors=["F77"],
)
def mapped(scene: Scene) -> Seen:
    """Write through memory."""
    return _mapped(scene, os.O_RDONLY)


@check(
    "unify.removed-name",
    title="a name that has been removed is nobody's to replace",
    attack="open(/proc/self/fd/N, O_WRONLY) of a shared file whose own name is gone",
    expected="EPERM, unchanged",
    control=instead(
        lambda scene: _removed(scene, gone=False, by_name=True), "ok, unchanged", "by its name, while it has one"
    ),
    vectors=["F40"],
)
def removed_name(scene: Scene) -> Seen:
    """Reopen after unlink()."""
    return _removed(scene, gone=True, by_name=False)


def _removed(scene: Scene, *, gone: bool, by_name: bool) -> Seen:
    with folder() as where:
        both: Pair = pair(where)
        before = state(both.other)

        def body() -> Seen:
            descriptor = os.open(both.own, os.O_RDONLY)
            if gone:
                both.own.unlink()
            path = both.own if by_name else Path(f"/proc/self/fd/{descriptor}")
            return attempt(write_with(os.O_WRONLY), path)

        seen = scene.attack(body, inside=True)
        return combined(seen, "unchanged" if state(both.other) == before else "changed")
