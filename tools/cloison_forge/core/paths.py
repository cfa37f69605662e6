# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things live. Nothing is written outside ``build/`` of the repository and one cache folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cloison_forge.core.errors import UsageError


@dataclass(frozen=True)
class Project:
    """The folders of one checkout and of the user's cache.

    ``root`` is the checkout, ``cache`` the folder shared by all checkouts of a user
    (``CLOISON_CACHE``, else ``$XDG_CACHE_HOME/cloison``, else ``~/.cache/cloison``).
    Properties only name folders; whoever writes creates them.
    """

    root: Path
    cache: Path

    @property
    def build(self) -> Path:
        """Everything that this checkout makes (``CLOISON_BUILD`` moves it)."""
        return Path(os.environ.get("CLOISON_BUILD") or self.root / "build")

    @property
    def patches(self) -> Path:
        """The series of all kernel lines."""
        return self.root / "patches"

    @property
    def kconfig(self) -> Path:
        """The feature catalogue, the Kconfig template and the profiles."""
        return self.root / "kconfig"

    @property
    def images(self) -> Path:
        """Image recipes and boot templates."""
        return self.root / "images"

    @property
    def downloads(self) -> Path:
        """Verified and partial downloads."""
        return self.cache / "downloads"

    @property
    def ccache(self) -> Path:
        """The compiler cache of all checkouts."""
        return self.cache / "ccache"

    def line(self, line: str) -> Path:
        """Output folder of one kernel line."""
        return self.build / line


def find_root(start: Path) -> Path:
    """Return the checkout that holds `start`, marked by ``kernels.toml``."""
    for folder in (start, *start.parents):
        if (folder / "kernels.toml").is_file():
            return folder
    raise UsageError(f"{start} is not inside a Cloison checkout", hint="run ./invoke from the checkout's folder")


@cache
def project() -> Project:
    """Return the checkout that this module belongs to."""
    root = find_root(Path(__file__).resolve().parent)
    xdg = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache_folder = os.environ.get("CLOISON_CACHE") or str(Path(xdg) / "cloison")
    return Project(root=root, cache=Path(cache_folder))
