# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions: of the kernel, of Debian's packages, and which of them is the newest of a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cmp_to_key

from cloison_forge.core.run import run

NEWEST = "newest"


def upstream(package_version: str) -> str:
    """Return the upstream part of a Debian version: '6.12.117' of '6.12.117-1~deb12u1'."""
    plain = package_version.rpartition(":")[2]
    return plain.rpartition("-")[0] or plain


def belongs_to(version: str, line: str) -> bool:
    """Say whether a version ('6.12.117', '6.12', '6.12-rc3', '6.12.117-1~deb12u1') is of a line ('6.12')."""
    return re.match(rf"{re.escape(line)}(?![0-9])", version) is not None


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of an upstream version, to compare by; a release candidate comes before its release."""
    head, _, candidate = version.partition("-rc")
    found = [int(word) for word in re.findall(r"\d+", head)][:4]
    found += [0] * (4 - len(found))
    return (*found, int(candidate) if candidate.isdigit() else 1000)


def newest_first(versions: Iterable[str]) -> list[str]:
    """Sort Debian versions by dpkg's own rules, newest first."""

    def compare(one: str, other: str) -> int:
        if one == other:
            return 0
        return 1 if run(["dpkg", "--compare-versions", one, "gt", other], check=False).status == 0 else -1

    return sorted(set(versions), key=cmp_to_key(compare), reverse=True)


def candidates(offered: Iterable[str], line: str, pinned: str, value: str) -> Iterator[str]:
    """Yield what to try for `value` ('' pinned, 'newest', a version) out of `offered`, newest first.

    Only 'newest' yields more than one: an index may promise what the archive has not any more.
    """
    wanted = value or pinned
    for version in offered:
        if belongs_to(version, line) and wanted in (NEWEST, version):
            yield version
