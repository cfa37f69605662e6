# SPDX-License-Identifier: GPL-2.0-or-later
"""File tags: the context that a file belongs to, and what the files of one tag use."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloison import abi, attributes
from cloison.errors import CloisonError
from cloison.flags import Change
from cloison.syscall import Vserver

BLOCK = 512
"""Bytes that ``st_blocks`` counts in."""


def get(kernel: Vserver, path: str) -> int | None:
    """Return the tag of a file, not following a link; None where the file system keeps none."""
    return attributes.get(kernel, path).tag


def put(kernel: Vserver, path: str, tag: int) -> None:
    """Give a file a tag, not following a link. Raises `InvalidError` where the file system keeps none."""
    attributes.change(kernel, path, Change(), tag)


def walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Return a file and all below it on the same file system, names of hard links each, links not followed.

    What vanishes meanwhile is left out.
    """
    top = os.lstat(path)
    yield path, top
    if not stat.S_ISDIR(top.st_mode):
        return
    folders = [path]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if seen.st_dev != top.st_dev:
                continue
            if stat.S_ISDIR(seen.st_mode):
                folders.append(entry.path)
            yield entry.path, seen


@dataclass(frozen=True)
class Usage:
    """What files use: bytes of blocks, and inodes, each counted once however many names it has."""

    space: int
    inodes: int


def usage(path: str, tag: int, tag_of: Callable[[str], int | None]) -> Usage:
    """Count what the files of a tag at and below `path` use."""
    known: set[int] = set()
    space = 0
    for name, seen in walk(path):
        if seen.st_ino in known:
            continue
        try:
            if (tag_of(name) or 0) != tag:
                continue
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            raise
        known.add(seen.st_ino)
        space += seen.st_blocks * BLOCK
    return Usage(space, len(known))


_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size(text: str) -> int:
    """Read a number of bytes such as 4096, 10M, 1.5GiB. Raises ValueError."""
    word = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (word[:-1], word[-1:]) if word[-1:] in _FACTORS else (word, "")
    try:
        value = float(number) * _FACTORS[unit]
    except ValueError:
        raise ValueError(f"'{text}' is no size such as 4096, 10M or 1.5G") from None
    if not 0 <= value < 2**62:
        raise ValueError(f"'{text}' is no size")
    return int(value)


def human(value: int | None) -> str:
    """Return bytes for people: 10.0M, or 'none' for no limit."""
    if value is None:
        return "none"
    if value < 1024:
        return str(value)
    number = float(value)
    for unit in "KMG":
        number /= 1024
        if number < 1024:
            return f"{number:.1f}{unit}"
    return f"{number / 1024:.1f}T"


def valid(tag: int) -> int:
    """Return a tag that can be given, or raise `CloisonError`."""
    if not 0 <= tag <= abi.MAX_TAG:
        raise CloisonError(f"{tag} is no file tag", hint=f"tags go from 0 (everybody's) to {abi.MAX_TAG}")
    return tag
