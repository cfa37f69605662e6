# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files: what a copy keeps of the original, and when none is needed."""

from __future__ import annotations

import os
from pathlib import Path

from cloison import inode
from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.dlimit import LIMIT, limit
from cloison_verify.scene import Scene, SceneError, Seen, attempt
from cloison_verify.shared_files import (
    ACL,
    CAPABILITIES,
    CONTENT,
    MEBIBYTE,
    contents,
    folder,
    mark,
    open_to_write,
    pair,
    write_with,
)
from cloison_verify.volumes import OURS, prepare, volume, with_tag


def _rich(where: Path) -> Path:
    """Make a file with everything that a file can have, and a second name."""
    path = where / "file"
    with path.open("wb") as stream:
        stream.write(b"begin")
        stream.seek(3 * MEBIBYTE)
        stream.write(b"middle")
        stream.truncate(5 * MEBIBYTE)
    os.chown(path, 1234, 5678)
    path.chmod(0o6751)
    os.setxattr(path, "user.colour", b"blue")
    os.setxattr(path, "trusted.note", bytes(range(256)))
    os.setxattr(path, "system.posix_acl_access", ACL)
    os.setxattr(path, "security.capability", CAPABILITIES)
    path.chmod(0o6751)
    os.utime(path, ns=(1_500_000_000_111_111_111, 1_600_000_000_222_222_222))
    os.link(path, where / "other")
    return path


def _features(path: Path) -> dict[str, object]:
    found = path.stat()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        extended = dict(inode.extended(descriptor))
        holes = os.lseek(descriptor, 0, os.SEEK_HOLE), os.lseek(descriptor, MEBIBYTE, os.SEEK_DATA)
    finally:
        os.close(descriptor)
    return {
        "content": contents(path),
        "mode": found.st_mode,
        "owner": (found.st_uid, found.st_gid),
        "times": (found.st_atime_ns, found.st_mtime_ns),
        "holes": holes,
        "blocks": found.st_blocks // 16,  # attributes may take a block more or less
        "attributes": extended,
    }


def _compared(where: Path, copy: object) -> Seen:
    path = _rich(where)
    before = _features(path)
    assert callable(copy)
    copy(path)
    after = _features(path)
    differ = [key for key in before if before[key] != after[key]]
    same = path.stat().st_ino == (where / "other").stat().st_ino
    return Seen(
        f"{'one file' if same else 'two files'}, {'identical' if not differ else 'differ: ' + ', '.join(differ)}"
    )


def _plain_copy(path: Path) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes())
    fresh.rename(path)


for _kind in ("ext4", "tmpfs", "xfs"):

    def _keeps(scene: Scene, kind: str = _kind) -> Seen:
        with folder(kind) as where:

            def copy(path: Path) -> None:
                mark(path)
                if scene.attack(lambda: attempt(open_to_write, path), inside=True).errno:
                    raise SceneError("the file could not be opened")

            return _compared(where, copy)

    def _loses(_scene: Scene, kind: str = _kind) -> Seen:
        with folder(kind) as where:
            return _compared(where, _plain_copy)

    check(
        f"unify.metadata-{_kind}",
        title=f"the copy is the original in everything ({_kind})",
        attack="open(O_WRONLY) of a shared file with xattrs, ACL, capabilities, odd times and holes; compare",
        expected="two files, identical",
        control=instead(
            _loses,
            "two files, differ: mode, owner, times, holes, blocks, attributes",
            "a plain copy renamed over it, in which the comparison sees all differences",
        ),
        vectors=["F44"],
    )(_keeps)


# Extents.


def _space(scene: Scene, kind: str) -> Seen:
    """Break the link of a file of 32 MiB, and say whether that took room."""
    with folder(kind) as where:
        both = pair(where, os.urandom(MEBIBYTE) * 32)
        os.sync()
        before = os.statvfs(where)
        seen = scene.attack(lambda: attempt(open_to_write, both.own), inside=True)
        os.sync()
        after = os.statvfs(where)
        taken = (before.f_bfree - after.f_bfree) * after.f_bsize
        count = "one file" if both.one else "two files"
        return combined(seen, count, "room for the copy" if taken > 16 * MEBIBYTE else "no room")


check(
    "unify.extents",
    title="the copy shares the extents of the original where the file system can do that",
    attack="open(O_WRONLY) of a shared file of 32 MiB on XFS, statvfs() before and after",
    expected="ok, two files, no room",
    control=instead(lambda scene: _space(scene, "ext4"), "ok, two files, room for the copy", "on ext4, which cannot"),
    vectors=["F44"],
)(lambda scene: _space(scene, "xfs"))


# The last name.


@check(
    "unify.last-name",
    title="the only name of a file that nobody else has is written in place",
    attack="open(O_WRONLY), write on a shared file with one name",
    expected="ok, same file, ordinary",
    control=instead(
        lambda scene: _last(scene, held=True), "ok, new file, ordinary", "somebody has it by a removed name"
    ),
    vectors=["F40"],
)
def last_name(scene: Scene) -> Seen:
    """Write by the last name."""
    return _last(scene, held=False)


def _last(scene: Scene, *, held: bool) -> Seen:
    with folder() as where:
        both = pair(where)
        number = both.own.stat().st_ino
        kept = os.open(both.other, os.O_RDONLY) if held else -1
        both.other.unlink()
        seen = scene.attack(lambda: attempt(write_with(os.O_WRONLY), both.own), inside=True)
        if held and os.pread(kept, len(CONTENT), 0) != CONTENT:
            return combined(seen, "what the other process holds has changed")
        if held:
            os.close(kept)
        descriptor = os.open(both.own, os.O_RDONLY)
        marked = inode.flags(descriptor) & inode.IMMUTABLE or inode.has_iunlink(descriptor)
        os.close(descriptor)
        same = "same file" if both.own.stat().st_ino == number else "new file"
        return combined(seen, same, "still shared" if marked else "ordinary")


def _charged(scene: Scene, *, marked: bool) -> Seen:
    """Append to the only name of a file of tag 0, more than the disk limit of the writer allows."""
    with volume() as place:
        path = Path(place.path("file"))

        def make() -> None:
            path.write_bytes(CONTENT)
            if marked:
                mark(path)

        def append() -> None:
            with path.open("ab", buffering=0) as stream:
                for _ in range(2 * LIMIT // 65536):
                    stream.write(b"x" * 65536)

        prepare(scene, make, tag=0)
        limits = limit(place)
        seen = with_tag(scene, OURS, append)
        return combined(seen, "charged" if limits.get(OURS).space_used else "not charged")


@check(
    "unify.last-name-tag",
    title="who writes by the last name of everybody's file is charged for it",
    attack="open(O_APPEND) of a shared file of tag 0 with one name, write twice the limit, in a context with a tag",
    expected="ENOSPC, charged",
    control=instead(
        lambda scene: _charged(scene, marked=False), "ok, not charged", "an ordinary file of tag 0, which is the host's"
    ),
    vectors=["F44"],
    seconds=60,
)
def last_name_tag(scene: Scene) -> Seen:
    """Write by the last name, with a tag."""
    return _charged(scene, marked=True)
