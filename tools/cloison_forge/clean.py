# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke clean`: remove outputs, and say first what they are and how large."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import UsageError
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project


@dataclass(frozen=True)
class Removal:
    """A folder to remove, its size in bytes, and what it costs to have it again."""

    path: Path
    size: int
    again: str


def plan(*, everything: bool, line: str = "") -> list[Removal]:
    """List what `clean` would remove: the outputs of this checkout, with `everything` the user's cache too."""
    base = project().line(line) if line else project().build
    if line and not base.is_dir():
        raise UsageError(f"nothing is built for line {line}", hint=f"{project().build} holds what is there")
    wanted = [(base, "a build: minutes with a warm compiler cache")]
    if everything:
        wanted.append((project().cache, "downloads, and a cold compile of up to half an hour"))
    return [Removal(path, _size(path), again) for path, again in wanted if path.exists()]


def clean(*, everything: bool = False, line: str = "", dry_run: bool = False) -> None:
    """Remove the outputs, waiting for other processes that use them; work on patches that is nowhere else stays."""
    from cloison_forge.series.area import unexported

    removals = plan(everything=everything, line=line)
    if not removals:
        ui.note("clean", "nothing to remove")
    for removal in removals:
        text = f"{removal.path} ({removal.size / 2**20:.0f} MiB); to have it again: {removal.again}"
        ui.note("clean", f"{'would remove' if dry_run else 'removing'} {text}")
        if not dry_run:
            with locked(removal.path, "the build folder"):
                _remove(removal.path, unexported(removal.path))


def _remove(path: Path, keep: set[Path]) -> None:
    """Remove a folder, all but the folders in `keep`."""
    if path in keep:
        ui.note("clean", f"kept {path}: it holds work on patches that is not exported; remove it yourself")
    elif any(path in kept.parents for kept in keep):
        for child in path.iterdir():
            _remove(child, keep)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118 (speed over 100,000 files)
    return total
