# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk limits: what the files of one tag may use on one file system.

The kernel's numbers have 32 bits and a unit. Here space is in bytes, whatever its size; a total is
rounded down and what is used is rounded up where the unit is larger than a byte, so that a limit is
never wider than what was asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cloison import abi
from cloison.abi import Command
from cloison.errors import CloisonError
from cloison.syscall import NoSuchContextError, Vserver

UNITS = 4
"""Number of units: bytes, KiB, MiB, GiB."""
_LARGEST = abi.DLIMIT_KEEP - 1


@dataclass(frozen=True)
class Limit:
    """A disk limit. Space is in bytes, a total of None is none; `reserved` is in percent of the totals."""

    space_used: int
    space_total: int | None
    inodes_used: int
    inodes_total: int
    reserved: int = 0


@dataclass(frozen=True)
class Wish:
    """What to change of a disk limit: None stays. A space total of −1 is no limit."""

    space_used: int | None = None
    space_total: int | None = None
    inodes_used: int | None = None
    inodes_total: int | None = None
    reserved: int | None = None


def scale(value: int, *, up: bool) -> tuple[int, int]:
    """Return `value` bytes as a 32-bit number and its unit (0 bytes … 3 GiB), rounded up or down."""
    for unit in range(UNITS):
        size = 1 << (10 * unit)
        number = -(-value // size) if up else value // size
        if number <= _LARGEST:
            return number, unit
    return _LARGEST, UNITS - 1


def structure(path: str, wish: Wish) -> abi.DiskLimit:
    """Return a change as the kernel takes it."""
    used, used_unit = (abi.DLIMIT_KEEP, 0) if wish.space_used is None else scale(wish.space_used, up=True)
    if wish.space_total is None:
        total, total_unit = abi.DLIMIT_KEEP, 0
    elif wish.space_total < 0:
        total, total_unit = abi.DLIMIT_INFINITY, 0
    else:
        total, total_unit = scale(wish.space_total, up=False)
    keep = abi.DLIMIT_KEEP
    return abi.DiskLimit(
        os.fsencode(path),
        used,
        total,
        keep if wish.inodes_used is None else wish.inodes_used,
        keep if wish.inodes_total is None else wish.inodes_total,
        keep if wish.reserved is None else wish.reserved,
        abi.DLIMIT_UNITS | used_unit | total_unit << abi.DLIMIT_TOTAL_SHIFT,
    )


class DiskLimits:
    """The disk limits of the file system that `path` is on."""

    def __init__(self, kernel: Vserver, path: str) -> None:
        self.kernel, self.path = kernel, path

    def add(self, tag: int) -> None:
        """Make a limit whose totals are zero: nothing can be written until `set`. Raises `ExistsError`."""
        self.kernel.call(Command.ADD_DLIMIT, tag, abi.DiskLimitBase(os.fsencode(self.path)))

    def remove(self, tag: int) -> None:
        """Forget a limit. Raises `NoSuchContextError` where there is none."""
        self.kernel.call(Command.REM_DLIMIT, tag, abi.DiskLimitBase(os.fsencode(self.path)))

    def set(self, tag: int, wish: Wish) -> None:
        """Change a limit. Raises `NoSuchContextError`, or `InvalidError` for more used than the total."""
        self.kernel.call(Command.SET_DLIMIT, tag, structure(self.path, wish))

    def get(self, tag: int) -> Limit:
        """Return a limit, exact to the byte up to 4 GiB. Raises `NoSuchContextError` where there is none."""
        used, data = self._get(tag, 0, 0), self._get(tag, 0, 0)
        unit = used_unit = 0
        while used.space_used == _LARGEST and used_unit < UNITS - 1:
            used_unit += 1
            used = self._get(tag, used_unit, 0)
        while data.space_total == _LARGEST and unit < UNITS - 1:
            unit += 1
            data = self._get(tag, 0, unit)
        infinite = data.space_total == abi.DLIMIT_INFINITY
        return Limit(
            used.space_used << (10 * used_unit),
            None if infinite else data.space_total << (10 * unit),
            data.inodes_used,
            data.inodes_total,
            data.reserved,
        )

    def _get(self, tag: int, used_unit: int, total_unit: int) -> abi.DiskLimit:
        flags = abi.DLIMIT_UNITS | used_unit | total_unit << abi.DLIMIT_TOTAL_SHIFT
        data = abi.DiskLimit(os.fsencode(self.path), 0, 0, 0, 0, 0, flags)
        self.kernel.call(Command.GET_DLIMIT, tag, data)
        return data

    def all(self, tags: Iterable[int] = range(abi.MAX_TAG + 1)) -> Iterator[tuple[int, Limit]]:
        """Return the limits of these tags that exist. The interface has no list, so each is asked for."""
        for tag in tags:
            try:
                yield tag, self.get(tag)
            except NoSuchContextError:
                continue


def save(limits: Iterable[tuple[str, int, Limit]]) -> str:
    """Return limits, each with its path and tag, as text that `restore` reads."""
    rows = [{"path": path, "tag": tag, **asdict(limit)} for path, tag, limit in limits]
    return json.dumps({"format": 1, "limits": rows}, indent=2) + "\n"


def restore(text: str) -> list[tuple[str, int, Limit]]:
    """Read what `save` wrote; raises `CloisonError` on anything else."""
    try:
        data = json.loads(text)
        if data["format"] != 1:
            raise ValueError(f"format {data['format']}")
        return [(str(row.pop("path")), int(row.pop("tag")), Limit(**row)) for row in data["limits"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloisonError(f"this is no list of disk limits: {error}", hint="disk-limit save makes one") from None


def mount_point(path: str) -> str:
    """Return the folder that the file system of `path` is mounted on."""
    found = Path(path).resolve()
    while not found.is_mount():
        found = found.parent
    return str(found)
