# SPDX-License-Identifier: GPL-2.0-or-later
"""Make files one, and make them several again; nothing is believed that a guest could have changed meanwhile.

A file is first shared itself: then nobody can write to it, and what a writer gets is a copy under that
name. Whoever had it open for writing before is found by a lease. Only now are both compared byte by byte, and
the names exchanged in one step, so that a name that has come to mean another file is noticed and put back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloison import inode
from cloison.unify_plan import TEMPORARY, Class, Name, Node, Rules, Tell, Trees, same_state, walk

_PIECE = 1 << 20


class SkipError(Exception):
    """A file is left as it is; the text says why, in two words."""


@dataclass
class Outcome:
    """What was done, or would be."""

    names: list[tuple[str, str]] = field(default_factory=list)
    """(name that was replaced, name of the file that it now stands for)"""
    files: int = 0
    saved: int = 0
    """Bytes that are free now: those of files without a name left."""
    skipped: Counter[str] = field(default_factory=Counter)


def same_bytes(one: int, other: int) -> bool:
    """Have two open files the same content?"""
    position = 0
    while True:
        left, right = os.pread(one, _PIECE, position), os.pread(other, _PIECE, position)
        if left != right:
            return False
        if not left:
            return True
        position += len(left)


def _names(node: Node, references: int) -> list[Name]:
    return [name for name in node.names if name.tree >= references]


def plan(trees: Trees, found: list[Class]) -> Outcome:
    """Return what `apply` would do if nothing changed meanwhile."""
    made = Outcome()
    for same in found:
        for node in same.others:
            names = _names(node, trees.references)
            made.names += [(trees.show(name), trees.show(same.keeper.names[0])) for name in names]
            made.files += 1
            made.saved += node.blocks if len(names) == node.links else 0
    return made


def apply(trees: Trees, found: list[Class], tell: Tell) -> Outcome:
    """Make the files of each class one."""
    made = Outcome()
    for number, same in enumerate(found, 1):
        tell(f"unifying {number} of {len(found)}, {made.saved >> 20} MiB saved")
        try:
            with _frozen(trees, same.keeper) as keeper:
                for node in same.others:
                    _merge(trees, same.keeper, keeper, node, made)
        except SkipError as reason:
            made.skipped[str(reason)] += len(same.others)
        except OSError as error:
            made.skipped[error.strerror or "error"] += len(same.others)
    return made


@dataclass
class _Frozen:
    """A shared file, open; `used` once a name has been given to it."""

    descriptor: int
    used: bool = False


@contextlib.contextmanager
def _frozen(trees: Trees, node: Node) -> Iterator[_Frozen]:
    """Open a file and make it shared, with nobody writing to it; undone if it gets no name.

    Only one unifier may be at work: another could give the file a name because it finds it shared.
    """
    with trees.file(node.names[0]) as descriptor:
        if not same_state(node, os.fstat(descriptor)):
            raise SkipError("changed")
        frozen = _Frozen(descriptor)
        fresh = not inode.is_shared(descriptor)
        try:
            if fresh:
                inode.share(descriptor)
            if not inode.take_lease(descriptor):
                raise SkipError("in use")
            inode.drop_lease(descriptor)
            if not same_state(node, os.fstat(descriptor)):
                raise SkipError("changed")
            yield frozen
        finally:
            if fresh and not frozen.used and os.fstat(descriptor).st_nlink:
                inode.unshare(descriptor)


def _merge(trees: Trees, kept: Node, keeper: _Frozen, node: Node, made: Outcome) -> None:
    """Give all names of one file to the keeper."""
    try:
        with _frozen(trees, node) as frozen:
            old, new = frozen.descriptor, keeper.descriptor
            if inode.extended(old) != inode.extended(new) or not same_bytes(old, new):
                raise SkipError("changed")
            for name in _names(node, trees.references):
                _replace(trees, name, frozen, keeper)
                made.names.append((trees.show(name), trees.show(kept.names[0])))
            made.files += 1
            made.saved += node.blocks if os.fstat(old).st_nlink == 0 else 0
    except SkipError as reason:
        made.skipped[str(reason)] += 1
    except OSError as error:
        made.skipped["too many names" if error.errno == errno.EMLINK else error.strerror or "error"] += 1


def _replace(trees: Trees, name: Name, old: _Frozen, new: _Frozen) -> None:
    """Let a name that stands for `old` stand for `new`.

    Put back if the name stood for something else, or if its file is not shared any more: then the guest has
    opened it for writing in between, and goes on with that file.
    """
    with trees.directory(name) as directory:
        temporary = f"{TEMPORARY}{os.getpid()}"
        new.used = True
        os.link(f"/proc/self/fd/{new.descriptor}", temporary, dst_dir_fd=directory, follow_symlinks=True)
        try:
            inode.exchange(directory, temporary, name.base)
            found = os.stat(temporary, dir_fd=directory, follow_symlinks=False)
            if not os.path.samestat(found, os.fstat(old.descriptor)) or not inode.is_shared(old.descriptor):
                inode.exchange(directory, temporary, name.base)
                raise SkipError("changed")
        finally:
            os.unlink(temporary, dir_fd=directory)


@dataclass
class Status:
    """What `check` has seen."""

    files: int = 0
    names: int = 0
    """Names of shared files in the trees."""
    saved: int = 0
    """Bytes that would be needed besides if each name had a file of its own."""
    stray: list[str] = field(default_factory=list)
    """Files with half of the marks of a shared file."""
    leftovers: list[str] = field(default_factory=list)


def check(trees: Trees, rules: Rules, *, repair: bool) -> Status:
    """Look at what is shared, and for what a crash has left behind; remove the latter if told to."""
    made = Status()
    for node in walk(trees, rules, Counter()):
        with contextlib.suppress(OSError), trees.file(node.names[0]) as descriptor:
            immutable, inverted = bool(inode.flags(descriptor) & inode.IMMUTABLE), inode.has_iunlink(descriptor)
            if immutable and inverted:
                made.files += 1
                made.names += len(node.names)
                made.saved += node.blocks * (len(node.names) - 1)
            elif inverted:
                made.stray.append(trees.show(node.names[0]))
                if repair:
                    inode.unshare(descriptor)
    for tree, root in enumerate(trees.descriptors):
        for where, _directories, files, descriptor in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            path = f"{trees.paths[tree].rstrip('/')}/{where}".replace("/./", "/").removesuffix("/.")
            _leftovers(path, descriptor, [name for name in files if name.startswith(TEMPORARY)], made, repair)
    for path in sorted({_work_directory(path) for path in trees.paths}):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(path) as descriptor:
            if _is_ours(descriptor):
                _leftovers(path, descriptor, [entry.name for entry in os.scandir(descriptor)], made, repair)
    return made


def _leftovers(path: str, directory: int, names: list[str], made: Status, repair: bool) -> None:
    for name in sorted(names):
        made.leftovers.append(f"{path}/{name}")
        if repair:
            os.unlink(name, dir_fd=directory)


def _work_directory(path: str) -> str:
    """Return where the kernel has its work directory on the file system of a tree, as far as it is mounted here."""
    top = Path(path).resolve()
    while top.parent != top and top.parent.stat().st_dev == top.stat().st_dev:
        top = top.parent
    return str(top / inode.WORK_DIRECTORY)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_ours(descriptor: int) -> bool:
    """Is this the work directory of the kernel? It locks it while it has a name there, so what we see is left over."""
    found = os.fstat(descriptor)
    return found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700


def undo(trees: Trees, rules: Rules, tell: Tell) -> Outcome:
    """Give each name of a shared file a file of its own, as a writer would get it from the kernel."""
    made = Outcome()
    nodes = walk(trees, rules, made.skipped)
    for number, node in enumerate(nodes, 1):
        tell(f"parting {number} of {len(nodes)}")
        try:
            with trees.file(node.names[0]) as descriptor:
                if not inode.is_shared(descriptor):
                    continue
            for name in node.names:
                with trees.directory(name) as directory:
                    os.close(os.open(name.base, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))
                made.names.append((trees.show(name), trees.show(name)))
            made.files += 1
        except OSError as error:
            made.skipped[error.strerror or "error"] += 1
    return made
