# SPDX-License-Identifier: GPL-2.0-or-later
"""The source room's door: `fetch` brings a verified tarball, `ensure_tree` an extracted tree."""

from __future__ import annotations

from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.source import cache
from cloison_forge.source.extraction import ensure
from cloison_forge.source.model import ORIGINS, FetchOptions, Origin, Tree, disk_errors
from cloison_forge.source.selection import select

__all__ = ["ORIGINS", "FetchOptions", "Origin", "Tree", "ensure_tree", "fetch"]


def fetch(line: Line, options: FetchOptions) -> Origin:
    """Return the source tarball that `options` ask for, from the cache or from its origin, verified.

    Raises `UsageError` for options that do not fit together, `UnreachableError`, `NotOfferedError`, and
    `RefusedError` for what is damaged or wrongly signed.
    """
    place = cache.kernels()
    with disk_errors("the cache of kernel sources", place), locked(place, "the cache of kernel sources"):
        return select(line, options)


def ensure_tree(line: Line, options: FetchOptions, *, folder: str = "source") -> Tree:
    """Return the extracted tree in ``build/<line>/<folder>``, fetching and extracting what is missing.

    When the folder was extracted for the same request, only its stamp is read. The tree is whole or
    absent; an interrupted extraction leaves nothing that counts.
    """
    return ensure(line, options, folder, fetch)
