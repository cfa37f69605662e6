# SPDX-License-Identifier: GPL-2.0-or-later
"""What the source room hands out, and the ways in which an origin may fail."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloison_forge.core.errors import BuildError, CommandError

ORIGINS = ("auto", "debian", "kernelorg", "orig", "git", "local")


class UnreachableError(BuildError):
    """An origin did not answer, or a program that it needs is not installed."""


class NotOfferedError(BuildError):
    """An origin answers and does not have the version that was asked for."""


class RefusedError(BuildError):
    """Something that was downloaded or cached is not what it should be; it is never used."""


@dataclass(frozen=True)
class FetchOptions:
    """What the user asks for.

    `origin` is one of `ORIGINS`; '' goes on with the origin of the tree that is there. `value` is the
    origin's own argument: a version ('newest' for the newest of the line) for debian, kernelorg and
    orig; ``URL#REF`` or ``REF`` for git; a folder or tarball for local. `offline` forbids the network,
    `locked` forbids any version but the pinned one.
    """

    origin: str = "auto"
    value: str = ""
    offline: bool = False
    locked: bool = False

    def request(self) -> str:
        """Name the request as it is typed and kept in stamps: 'debian' or 'git --value v6.12.1'."""
        return f"{self.origin} --value {self.value}" if self.value else self.origin


@dataclass(frozen=True)
class Origin:
    """A verified source tarball in the cache.

    `name` is the origin's name, `version` the upstream version ('6.12.117'), `package_version`
    Debian's, if there is one; `tar` the file in the cache, compressed as it came; `tar_sha256` the hash
    of the uncompressed tar. `provenance` can be written as JSON and names no mirror and no folder.
    """

    name: str
    version: str
    package_version: str
    tar: Path
    tar_sha256: str
    provenance: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """An extracted source tree.

    `reference` says whether it is the pinned reference of its line; `key` depends on the tree's
    contents as extracted, and on nothing else; `made` names this one extraction, and changes whenever
    the folder is extracted anew.
    """

    path: Path
    origin: Origin
    reference: bool
    key: str
    made: str


@contextmanager
def disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn a full disk, missing rights and the like into one line that names `what` was being written."""
    try:
        yield
    except CommandError as error:
        if tells_full(error.message):
            raise full_disk(what, folder) from None
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(what, folder) from None
        raise BuildError(
            f"{what}: {error.strerror or error}", hint=f"look at the folder {folder} (space, owner, rights)"
        ) from None


def full_disk(what: str, folder: Path) -> BuildError:
    """Return the error of a full disk below `folder`, with the space that is left (MB are 10^6 bytes)."""
    return BuildError(
        f"{what}: no space left on the disk of {folder} ({free_bytes(folder) // 10**6} MB free)",
        hint="free some space, or move the cache with CLOISON_CACHE and the build folder with CLOISON_BUILD",
    )


def tells_full(output: str) -> bool:
    """Say whether a program's output (tar's, apt's, git's) tells of a full disk."""
    return "No space left on device" in output or "Wrote only" in output or "Disk quota exceeded" in output


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free for a user on the disk of `folder`, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
