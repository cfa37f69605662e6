# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files are the same: a walk that follows nothing, and hashes that are kept between runs.

Only files whose size, owner, mode and time are those of another are read. A guest may change its tree
meanwhile: what is found here is a proposal, and `unify_apply` looks again before it touches a name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloison import inode

DEFAULT_EXCLUDES = ("/etc", "/var", "/home", "/root", "/srv", "/tmp", "/run", "/dev", "/proc", "/sys", "lost+found")
"""What belongs to one guest alone, as a rule, below each root."""
TEMPORARY = ".cloison-unify-"
"""How names begin that exist for a moment while a file is replaced."""
_PIECE = 1 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a file: index of the tree that it was found in, directory below that tree, last component."""

    tree: int
    directory: str
    base: str

    @property
    def path(self) -> str:
        """The path below the tree."""
        return f"{self.directory}/{self.base}" if self.directory else self.base


@dataclass
class Node:
    """A file, with all names by which the walk has met it."""

    device: int
    number: int
    size: int
    blocks: int
    mode: int
    uid: int
    gid: int
    mtime: int
    ctime: int
    links: int
    names: list[Name] = field(default_factory=list)
    shared: bool = False
    sum: bytes = b""
    extended: tuple[tuple[str, bytes], ...] = ()

    def key(self, *, times: bool) -> tuple[int, ...]:
        """Return what must be equal before it is worth reading two files."""
        return (self.device, self.size, self.mode, self.uid, self.gid, self.mtime if times else 0)


@dataclass(frozen=True)
class Rules:
    """What to look at."""

    excludes: tuple[str, ...] = DEFAULT_EXCLUDES
    minimum: int = 1
    times: bool = True


@dataclass
class Trees:
    """The trees, open: `references` of them, at the beginning, lend files and keep their names."""

    paths: list[str]
    references: int
    descriptors: list[int] = field(default_factory=list)

    def __enter__(self) -> Trees:
        for path in self.paths:
            self.descriptors.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def show(self, name: Name) -> str:
        """Return a name as people want to read it."""
        return f"{self.paths[name.tree].rstrip('/')}/{name.path}"

    @contextlib.contextmanager
    def directory(self, name: Name) -> Iterator[int]:
        """Open the directory of a name for as long as the block lasts."""
        descriptor = inode.open_directory(self.descriptors[name.tree], name.directory)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def file(self, name: Name) -> Iterator[int]:
        """Open a file for reading for as long as the block lasts."""
        with self.directory(name) as directory:
            descriptor = inode.open_file(directory, name.base)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def excluded(path: str, patterns: Iterable[str]) -> bool:
    """Is a path below a tree left out? '/etc' means that place, 'x' and '*.pyc' any component."""
    base = path.rpartition("/")[2]
    for pattern in patterns:
        if pattern.startswith("/"):
            if fnmatch.fnmatchcase("/" + path, pattern.rstrip("/")):
                return True
        elif fnmatch.fnmatchcase(base, pattern):
            return True
    return False


def walk(trees: Trees, rules: Rules, skipped: Counter[str]) -> list[Node]:
    """Return the regular files below all trees; other file systems mounted there are left alone."""
    nodes: dict[tuple[int, int], Node] = {}
    for tree, root in enumerate(trees.descriptors):
        device = os.fstat(root).st_dev
        for where, directories, files, descriptor in os.fwalk(".", dir_fd=root, follow_symlinks=False):
            below = where.removeprefix(".").strip("/")
            prefix = f"{below}/" if below else ""
            directories[:] = [
                name
                for name in sorted(directories)
                if not excluded(prefix + name, rules.excludes) and _device(name, descriptor) == device
            ]
            for base in sorted(files):
                if excluded(prefix + base, rules.excludes) or base.startswith(TEMPORARY):
                    continue
                try:
                    found = os.stat(base, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(found.st_mode) or found.st_dev != device:
                    continue
                if found.st_size < rules.minimum:
                    skipped["small"] += 1
                    continue
                node = nodes.setdefault((found.st_dev, found.st_ino), _node(found))
                node.names.append(Name(tree, below, base))
    return list(nodes.values())


def _device(name: str, directory: int) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_dev
    except FileNotFoundError:
        return -1


def _node(found: os.stat_result) -> Node:
    return Node(
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_blocks * 512,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_nlink,
    )


def same_state(node: Node, found: os.stat_result) -> bool:
    """Is a file still what the walk has seen? New names of it do not count, nor does becoming shared."""
    return (node.device, node.number, node.size, node.mode, node.uid, node.gid, node.mtime) == (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
    )


class Sums:
    """Hashes of earlier runs, by inode; valid as long as neither content nor attributes have changed since."""

    def __init__(self, path: Path | None) -> None:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(str(path) if path else ":memory:")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS sums (device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER,"
            " ctime INTEGER, sum BLOB, PRIMARY KEY (device, inode))"
        )
        self.known = self.read = self.bytes = 0

    def close(self) -> None:
        """Write everything down."""
        self._base.commit()
        self._base.close()

    def of(self, node: Node, descriptor: int) -> bytes | None:
        """Return the hash of an open file, or None if it changed while it was read."""
        row = self._base.execute(
            "SELECT sum, ctime FROM sums WHERE device=? AND inode=? AND size=? AND mtime=?",
            (node.device, node.number, node.size, node.mtime),
        ).fetchone()
        # Each new name of a shared file changes its ctime, and nobody its content.
        if row and (node.shared or row[1] == node.ctime):
            self.known += 1
            return bytes(row[0])
        made = hash_of(descriptor)
        after = os.fstat(descriptor)
        if not same_state(node, after) or after.st_ctime_ns != node.ctime:
            return None
        self.read += 1
        self.bytes += node.size
        self._base.execute(
            "INSERT OR REPLACE INTO sums VALUES (?,?,?,?,?,?)",
            (node.device, node.number, node.size, node.mtime, node.ctime, made),
        )
        return made


def hash_of(descriptor: int) -> bytes:
    """Return the BLAKE2b hash of a file's content, 32 bytes."""
    made = hashlib.blake2b(digest_size=32)
    position = 0
    while piece := os.pread(descriptor, _PIECE, position):
        made.update(piece)
        position += len(piece)
    return made.digest()


def _examine(trees: Trees, node: Node, sums: Sums, skipped: Counter[str]) -> bool:
    """Read one file; False, with the reason counted, if it is not to be shared."""
    try:
        with trees.file(node.names[0]) as descriptor:
            if not same_state(node, os.fstat(descriptor)):
                skipped["changed"] += 1
                return False
            flags = inode.flags(descriptor)
            node.shared = bool(flags & inode.IMMUTABLE) and inode.has_iunlink(descriptor)
            if not node.shared and flags & (inode.IMMUTABLE | inode.APPEND):
                skipped["immutable"] += 1
                return False
            if not node.shared and node.links > len(node.names):
                skipped["other names"] += 1
                return False
            found = sums.of(node, descriptor)
            if found is None:
                skipped["changed"] += 1
                return False
            node.sum, node.extended = found, inode.extended(descriptor)
    except OSError as error:
        skipped[error.strerror or "error"] += 1
        return False
    return True


@dataclass
class Class:
    """Files that are the same; `keeper` stays, the names of `others` become its names."""

    keeper: Node
    others: list[Node]


def classes(
    trees: Trees, nodes: Sequence[Node], rules: Rules, sums: Sums, skipped: Counter[str], tell: Tell
) -> list[Class]:
    """Return the files that could be one, reading no more of them than needed."""
    groups: dict[tuple[int, ...], list[Node]] = {}
    for node in nodes:
        groups.setdefault(node.key(times=rules.times), []).append(node)
    twins = [group for group in groups.values() if len(group) > 1]
    total, done = sum(len(group) for group in twins), 0
    found: list[Class] = []
    for group in twins:
        same: dict[tuple[object, ...], list[Node]] = {}
        for node in group:
            done += 1
            tell(f"reading {done} of {total} files that have a twin, {sums.bytes >> 20} MiB")
            if _examine(trees, node, sums, skipped):
                same.setdefault((node.sum, node.extended), []).append(node)
        found += [made for alike in same.values() if len(alike) > 1 and (made := _choose(alike, trees.references))]
    return found


def _choose(alike: list[Node], references: int) -> Class | None:
    """Keep what most others share already, then what a reference has; names in references stay what they are."""

    def rank(node: Node) -> tuple[bool, bool, int]:
        return (any(name.tree < references for name in node.names), node.shared, node.links)

    keeper = max(alike, key=rank)
    others = [node for node in alike if node is not keeper and any(name.tree >= references for name in node.names)]
    return Class(keeper, others) if others else None
