# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk limits: no way of writing goes beyond, what is given back is given back, and the tools see the truth."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from cloison.disklimit import DiskLimits, Limit, Wish
from cloison.syscall import Vserver
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.tag import SECONDS
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.volumes import (
    MEGABYTE,
    OURS,
    THEIRS,
    Volume,
    prepare,
    quota_volume,
    settle,
    volume,
    with_tag,
)

LIMIT = 4 * MEGABYTE
WIDE = Wish(0, LIMIT, 0, 1000, 0)


def limit(place: Volume, wish: Wish = WIDE, tag: int = OURS) -> DiskLimits:
    """Make a disk limit."""
    limits = DiskLimits(Vserver(), place.folder)
    limits.add(tag)
    limits.set(tag, wish)
    return limits


def _closed(scene: Scene, *, limited: bool) -> Seen:
    with volume() as place:
        if limited:
            DiskLimits(Vserver(), place.folder).add(OURS)
        return with_tag(scene, OURS, Path(place.path("file")).touch)


check(
    "dlimit.closed",
    title="a new limit lets nothing pass until it is set",
    attack="add_dlimit, then open(O_CREAT)",
    expected="ENOSPC",
    control=instead(lambda scene: _closed(scene, limited=False), "ok", "no limit"),
    seconds=SECONDS,
)(lambda scene: _closed(scene, limited=True))


def _touch_many(place: Volume) -> None:
    for number in range(20):
        Path(place.path(f"file-{number}")).touch()


def _inodes(scene: Scene, kind: str, most: int) -> Seen:
    with volume(kind) as place:
        limits = limit(place, Wish(0, LIMIT, 0, most, 0))
        seen = with_tag(scene, OURS, lambda: _touch_many(place))
        made = sum(1 for name in os.scandir(place.folder) if name.name.startswith("file-"))
        counted = limits.get(OURS).inodes_used
        for name in list(os.scandir(place.folder)):
            if name.name.startswith("file-"):
                Path(name.path).unlink()
        settle(place.folder)
        left = limits.get(OURS).inodes_used
    return Seen(f"{seen.text}, {made} made, {counted} counted, {left} left", seen.errno)


for _kind in ("ext4", "tmpfs"):
    check(
        f"dlimit.inodes-{_kind}",
        title=f"no more inodes than the limit, and each comes back ({_kind})",
        attack="20 files with a limit of 10",
        expected="ENOSPC, 10 made, 10 counted, 0 left",
        control=instead(partial(_inodes, kind=_kind, most=100), "ok, 20 made, 20 counted, 0 left", "a limit of 100"),
        seconds=SECONDS,
    )(partial(_inodes, kind=_kind, most=10))


def _as_user(place: Volume, uid: int) -> int:
    """Write until the disk is full; return the bytes that went in."""
    os.setresuid(uid, uid, uid)
    written = 0
    try:
        with open(place.path(f"by-{uid}"), "wb", buffering=0) as file:
            while written < 2 * LIMIT:
                written += file.write(b"x" * 4096)
    except OSError as error:
        if error.errno != 28:
            raise
    return written


def _reserve(scene: Scene, uid: int) -> Seen:
    """Fill a limit with half of it in reserve."""
    with volume() as place:
        os.chmod(place.folder, 0o777)  # noqa: PTH101
        limit(place, Wish(0, LIMIT, 0, 1000, 50))
        seen = with_tag(scene, OURS, lambda: _as_user(place, uid))
    if seen.errno or not seen.text.isdecimal():
        return seen
    return Seen("about half" if int(seen.text) <= LIMIT // 2 else "more than half")


check(
    "dlimit.reserve",
    title="the reserve of a limit is for user 0 alone",
    attack="write until ENOSPC as user 1000, with half of the limit in reserve",
    expected="about half",
    control=instead(lambda scene: _reserve(scene, 0), "more than half", "user 0 inside"),
    seconds=SECONDS,
)(lambda scene: _reserve(scene, 1000))


def _statfs(scene: Scene, *, inside: bool) -> Seen:
    """Look at the file system with a limit, a reserve, and something used."""
    with volume() as place:
        limit(place, Wish(MEGABYTE, LIMIT, 3, 100, 25))

        def look() -> str:
            found = os.statvfs(place.folder)
            unit = found.f_frsize
            sizes = (found.f_blocks * unit, found.f_bfree * unit, found.f_bavail * unit)
            return ", ".join(
                str(number) for number in (*(size // 1024 for size in sizes), found.f_files, found.f_ffree)
            )

        seen = with_tag(scene, OURS, look, inside=inside)
    return seen if inside else Seen("more" if int(seen.text.split(",")[0]) > LIMIT // 1024 else seen.text)


check(
    "dlimit.statfs",
    title="statfs shows a context its limit",
    attack="statvfs: KiB in all, free, available, inodes in all, free",
    expected="4096, 3072, 2048, 100, 97",
    control=instead(lambda scene: _statfs(scene, inside=False), "more", "the host, with the same tag"),
    seconds=SECONDS,
)(lambda scene: _statfs(scene, inside=True))


def _never_raised(scene: Scene) -> Seen:
    with volume() as place:
        limit(place, Wish(0, 1 << 40, 0, 1 << 30, 0))
        whole = os.statvfs(place.folder)

        def look() -> str:
            found = os.statvfs(place.folder)
            return "same" if (found.f_blocks, found.f_files) == (whole.f_blocks, whole.f_files) else "other"

        return with_tag(scene, OURS, look)


check(
    "dlimit.statfs-wide",
    title="a limit beyond the file system raises nothing",
    attack="statvfs with a limit of 1 TiB",
    expected="same",
    control=instead(lambda scene: _statfs(scene, inside=True), "4096, 3072, 2048, 100, 97", "a limit of 4 MiB"),
    seconds=SECONDS,
)(_never_raised)


def _foreign_limit(scene: Scene, tag: int) -> Seen:
    """Ask for a limit inside, with the capabilities that the command needs."""
    with volume() as place:
        limit(place)
        return with_tag(scene, tag, lambda: DiskLimits(Vserver(), place.folder).get(OURS).space_total)


check(
    "dlimit.get-inside",
    title="a context asks for its own limit only",
    attack="get_dlimit with another tag",
    expected="ESRCH",
    control=instead(lambda scene: _foreign_limit(scene, OURS), str(LIMIT), "the own tag"),
    seconds=SECONDS,
)(lambda scene: _foreign_limit(scene, THEIRS))


def _rule(scene: Scene, *, inside: bool) -> Seen:
    """Change and remove the own limit."""
    with volume() as place:
        limits = limit(place)
        steps = (lambda: limits.set(OURS, Wish(space_total=-1)), lambda: limits.remove(OURS), lambda: limits.add(OURS))
        seen = [with_tag(scene, OURS, step, inside=inside).text for step in steps]
    return Seen(", ".join(seen))


check(
    "dlimit.set-inside",
    title="a context does not change its limit",
    attack="set_dlimit, rem_dlimit, add_dlimit with all capabilities",
    expected="EPERM, EPERM, EPERM",
    control=instead(lambda scene: _rule(scene, inside=False), "ok, ok, ok", "the host"),
    seconds=SECONDS,
)(lambda scene: _rule(scene, inside=True))


def _commands(_scene: Scene) -> Seen:
    with volume() as place:
        limits = DiskLimits(Vserver(), place.folder)
        seen = [attempt(limits.get, OURS), attempt(limits.set, OURS, WIDE), attempt(limits.remove, OURS)]
        limits.add(OURS)
        seen += [
            attempt(limits.add, OURS),
            attempt(limits.set, OURS, Wish(2, 1)),
            attempt(limits.set, OURS, Wish(reserved=101)),
        ]
        limits.remove(OURS)
        seen.append(attempt(limits.get, OURS))
    return Seen(", ".join(sight.text for sight in seen))


def _read_back(_scene: Scene) -> Seen:
    """Set limits of every size and read them back."""
    with volume() as place:
        limits = limit(place)
        bad = []
        for wanted in (
            Limit(0, 0, 0, 0, 0),
            Limit(5, 4097, 1, 2, 99),
            Limit(0, 3 << 40, 0, 9, 7),
            Limit(0, None, 4, 5),
        ):
            total = -1 if wanted.space_total is None else wanted.space_total
            limits.set(OURS, Wish(wanted.space_used, total, wanted.inodes_used, wanted.inodes_total, wanted.reserved))
            if limits.get(OURS) != wanted:
                bad.append(str(limits.get(OURS)))
        limits.set(OURS, Wish(reserved=50))
        if limits.get(OURS) != Limit(0, None, 4, 5, 50):
            bad.append("keep")
    return Seen(", ".join(bad) or "as they were given")


check(
    "dlimit.commands",
    title="the commands answer as documented",
    attack="get, set, remove without a limit; add twice; more used than total; a reserve of 101 %; get after remove",
    expected="ESRCH, ESRCH, ESRCH, EEXIST, EINVAL, EINVAL, ESRCH",
    control=instead(_read_back, "as they were given", "limits that are possible"),
    seconds=SECONDS,
)(_commands)


def _unsupported(kind: str) -> Probe:
    def probe(_scene: Scene) -> Seen:
        with volume(kind, "", features="") as place:
            return attempt(DiskLimits(Vserver(), place.folder).add, OURS)

    return probe


check(
    "dlimit.unsupported",
    title="a file system that does not count is refused",
    attack="add_dlimit on ramfs",
    expected="ENOTSUP",
    control=instead(_unsupported("tmpfs"), "ok", "tmpfs"),
)(_unsupported("ramfs"))


def _after(*, again: bool) -> Seen:
    with volume() as place:
        limits = limit(place)
        if again:
            place.again("tag")
        return attempt(lambda: limits.get(OURS) and None)


check(
    "dlimit.unmount",
    title="a limit goes with its file system",
    attack="set_dlimit, umount, mount, get_dlimit",
    expected="ESRCH",
    control=instead(lambda _scene: _after(again=False), "ok", "without umount"),
    seconds=SECONDS,
)(lambda _scene: _after(again=True))


def _usage_at_start(place: AbstractContextManager[Volume], scene: Scene) -> Seen:
    with place as made:
        prepare(scene, lambda: Path(made.path("file")).write_bytes(b"x" * MEGABYTE))
        settle(made.folder)
        limits = DiskLimits(Vserver(), made.folder)
        limits.add(OURS)
        found = limits.get(OURS)
    return Seen(f"{found.space_used // 1024} KiB, {found.inodes_used} inodes")


check(
    "dlimit.quota-start",
    title="where project quota counts, a new limit knows what is used",
    attack="add_dlimit after 1 MiB was written, with project quota",
    expected="1024 KiB, 1 inodes",
    control=instead(lambda scene: _usage_at_start(volume(), scene), "0 KiB, 0 inodes", "without quota"),
    seconds=SECONDS,
)(lambda scene: _usage_at_start(quota_volume(), scene))


def _moved(scene: Scene, *, move: bool) -> Seen:
    """Give a file another tag and look at both limits."""
    from cloison import tags

    with volume() as place:
        one, two = limit(place, tag=OURS), limit(place, tag=THEIRS)
        prepare(scene, lambda: Path(place.path("file")).write_bytes(b"x" * MEGABYTE))
        settle(place.folder)
        if move:
            tags.put(Vserver(), place.path("file"), THEIRS)
        seen = (one.get(OURS), two.get(THEIRS))
    return Seen(", ".join(f"{found.space_used // 1024} KiB {found.inodes_used}" for found in seen))


check(
    "dlimit.move",
    title="a file that gets another tag takes what it uses along",
    attack="set_iattr with another tag",
    expected="0 KiB 0, 1024 KiB 1",
    control=instead(lambda scene: _moved(scene, move=False), "1024 KiB 1, 0 KiB 0", "the tag stays"),
    seconds=SECONDS,
)(lambda scene: _moved(scene, move=True))
