# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk limits under every way of writing, and their counters against those of project quota."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from cloison.disklimit import DiskLimits, Wish
from cloison.syscall import Vserver
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.dlimit import LIMIT, limit
from cloison_verify.checks.tag import SECONDS
from cloison_verify.scene import Scene, SceneError, Seen
from cloison_verify.volumes import OURS, THEIRS, Volume, prepare, project_usage, quota_volume, settle, volume, with_tag

PIECE = 64 * 1024
METADATA = 16 * 1024
"""What the file system may need beyond the limit for its own lists of blocks."""

# Ways of writing: each writes pieces to a new file until it fails, or up to twice the limit.


def _pieces(write: Callable[[int], object]) -> None:
    for number in range(2 * LIMIT // PIECE):
        write(number)


def _plain(path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        _pieces(lambda _number: file.write(b"x" * PIECE))


def _direct(path: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
    data = mmap.mmap(-1, PIECE)
    _pieces(lambda _number: os.write(descriptor, data))


def _fallocate(path: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    _pieces(lambda number: os.posix_fallocate(descriptor, number * PIECE, PIECE))


def _mapped(path: str) -> None:
    """Write into a hole through a mapping; a child does it, for it dies of SIGBUS."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.truncate(descriptor, 2 * LIMIT)
    child = os.fork()
    if child == 0:
        area = mmap.mmap(descriptor, 2 * LIMIT)
        for offset in range(0, 2 * LIMIT, 4096):
            area[offset] = 1
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS:
        raise OSError(28, "SIGBUS")
    if status:
        raise SceneError(f"the writing child ended with {status}")


def _synced(path: str) -> None:
    """Let the disk have each piece at once: no delayed allocation."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_SYNC, 0o600)
    _pieces(lambda _number: os.write(descriptor, b"x" * PIECE))


def _many(path: str) -> None:
    """Spread it over many small files in many folders."""
    for number in range(2 * LIMIT // PIECE):
        Path(f"{path}-{number}").mkdir()
        Path(f"{path}-{number}", "file").write_bytes(b"x" * (PIECE - 4096))


def _attributes(path: str) -> None:
    """Use the blocks of extended attributes."""
    Path(path).mkdir()
    for number in range(2 * LIMIT // 4096):
        name = Path(path, str(number))
        name.touch()
        os.setxattr(name, "user.much", os.urandom(2000))


WAYS: dict[str, Callable[[str], object]] = {
    "write": _plain,
    "direct": _direct,
    "fallocate": _fallocate,
    "mmap": _mapped,
    "sync": _synced,
    "many": _many,
    "xattr": _attributes,
}
PLACES: dict[str, Callable[[], AbstractContextManager[Volume]]] = {
    "ext4": volume,
    "quota": quota_volume,
    "journal": partial(volume, options="tag,nodelalloc,data=journal"),
    "tmpfs": partial(volume, "tmpfs"),
}
NOT_THERE = {("tmpfs", "direct"), ("tmpfs", "sync"), ("tmpfs", "xattr"), ("journal", "direct")}


def _in_use(place: Volume) -> int:
    """Return the bytes that all files use, as stat tells, each inode once."""
    settle(place.folder)
    seen: dict[int, int] = {}
    for folder, _, names in os.walk(place.folder):
        for name in (folder, *(f"{folder}/{entry}" for entry in names)):
            found = os.lstat(name)
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def _filling(scene: Scene, place_name: str, way: str, tag: int) -> Seen:
    """Fill the file system with a tag, and compare what the limit counts with what the files use."""
    with PLACES[place_name]() as place:
        place_for = place.path("folder")
        prepare(scene, lambda: Path(place_for).mkdir(), tag=tag)
        before = _in_use(place)
        limits = limit(place, Wish(0, LIMIT, 0, 5000, 0))
        seen = with_tag(scene, tag, lambda: WAYS[way](f"{place_for}/file"))
        used = _in_use(place) - before
        counted = limits.get(OURS).space_used
        told = "within" if max(used, counted) <= LIMIT + METADATA else f"{used} used, {counted} counted"
        if tag != OURS:
            told = "beyond" if used > LIMIT else f"{used} used"
        elif used < LIMIT * 3 // 4:
            told = f"only {used} used"
        elif used != counted:
            told = f"{used} used, {counted} counted"
    return Seen(f"{seen.text}, {told}", seen.errno)


for _place in PLACES:
    for _way in WAYS:
        if (_place, _way) not in NOT_THERE:
            check(
                f"dlimit.{_way}-{_place}",
                title=f"{_way} does not go beyond a disk limit ({_place})",
                attack=f"twice the limit, by {_way}, by user 0 with CAP_SYS_RESOURCE",
                expected="ENOSPC, within",
                control=instead(
                    partial(_filling, place_name=_place, way=_way, tag=THEIRS), "ok, beyond", "a tag without a limit"
                ),
                seconds=2 * SECONDS,
            )(partial(_filling, place_name=_place, way=_way, tag=OURS))


def _mixture(folder: str, seed: int) -> None:
    """Do a few hundred things to a few files; what does not fit is part of it."""
    chance = random.Random(seed)
    for _ in range(400):
        path = Path(folder, str(chance.randrange(12)))
        what = chance.randrange(8)
        try:
            if what == 0:
                path.unlink(missing_ok=True)
            elif what == 1:
                os.truncate(path, chance.randrange(LIMIT // 4))
            elif what == 2:
                with path.open("r+b") as file:
                    _libc.fallocate(file.fileno(), 3, ctypes.c_long(4096), ctypes.c_long(chance.randrange(1 << 19) + 1))
            elif what == 3:
                os.setxattr(path, "user.some", os.urandom(chance.randrange(1, 3000)))
            elif what == 4:
                os.rename(path, Path(folder, str(chance.randrange(12))))  # noqa: PTH104
            elif what == 5:
                with path.open("ab") as file:
                    os.posix_fallocate(file.fileno(), chance.randrange(LIMIT // 2), 1 << 17)
            else:
                with path.open("ab") as file:
                    file.write(os.urandom(chance.randrange(1 << 18)))
        except OSError:
            continue


_libc = ctypes.CDLL(None, use_errno=True)


def _exact(scene: Scene, *, keep: bool) -> Seen:
    """Compare the counters with those of project quota, which was counting all the time."""
    with quota_volume() as place:
        folder = place.path("folder")
        prepare(scene, lambda: Path(folder).mkdir())
        limits = DiskLimits(Vserver(), place.folder)
        limits.add(OURS)
        limits.set(OURS, Wish(space_total=LIMIT, inodes_total=11))
        for seed in range(3):
            prepare(scene, partial(_mixture, folder, seed))
        settle(place.folder)
        if not keep:
            limits.set(OURS, Wish(space_used=4096))
        found, quota = limits.get(OURS), project_usage(place.device, OURS)
    return Seen("equal" if (found.space_used, found.inodes_used) == quota else f"{found} and {quota}")


def _differs(scene: Scene) -> Seen:
    seen = _exact(scene, keep=False)
    return seen if seen.text == "equal" else Seen("different")


check(
    "dlimit.exact",
    title="after a mixture of everything a limit has counted what quota has",
    attack="1200 random writes, holes, truncations, renames, attributes, many of them refused",
    expected="equal",
    control=instead(_differs, "different", "the figure is changed before it is compared"),
    seconds=2 * SECONDS,
)(lambda scene: _exact(scene, keep=True))

# What is accepted has to be written, and may need blocks for lists of extents by then.

KEEP_SIZE = 1
LATE = b"accepted" * 512


def _fill(path: str) -> None:
    """Use all that the limit leaves, to the last block."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    offset = 0
    for piece in (PIECE, 4096):
        try:
            while True:
                os.posix_fallocate(descriptor, offset, piece)
                offset += piece
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _write_late(path: str, *, full: bool) -> None:
    """Write into the middle of what is allocated, twice: the second needs a list outside of the inode."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    if _libc.fallocate(descriptor, KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(LIMIT // 2)):
        raise SceneError(f"fallocate: {os.strerror(ctypes.get_errno())}")
    os.pwrite(descriptor, LATE, LIMIT // 8)
    os.fsync(descriptor)
    if full:
        _fill(f"{path}-rest")
    os.pwrite(descriptor, LATE, LIMIT * 3 // 8)
    os.fsync(descriptor)


def _late(scene: Scene, *, full: bool) -> Seen:
    with volume() as place:
        path = place.path("file")
        limits = limit(place)
        seen = with_tag(scene, OURS, partial(_write_late, path, full=full))
        beyond = "beyond" if limits.get(OURS).space_used > LIMIT else "within"
        place.again("tag")
        with open(path, "rb") as file:
            file.seek(LIMIT * 3 // 8)
            kept = "kept" if file.read(len(LATE)) == LATE else "lost"
    return Seen(f"{seen.text}, {kept}, {beyond}", seen.errno)


check(
    "dlimit.late",
    title="what was accepted is written, though its list of extents goes beyond the limit",
    attack="fallocate(KEEP_SIZE), write until ENOSPC, pwrite into the first file, fsync; mount again and compare",
    expected="ok, kept, beyond",
    control=instead(partial(_late, full=False), "ok, kept, within", "the limit has room left"),
    seconds=2 * SECONDS,
)(partial(_late, full=True))
