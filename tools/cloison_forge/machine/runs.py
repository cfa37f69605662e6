# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of runs: one for each machine, so that two at once never meet; old ones are cleared away."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison_forge.core.paths import project

KEEP = 12
_BULKY = ("root.cow", "job.tar", "uefi-variables.fd", "vm_file*")
_DONE = "ended"


@contextmanager
def run_folder(line: str, lane: str) -> Iterator[Path]:
    """Give a new folder ``build/<line>/runs/<lane>/<time>-<random>/``; what is bulky in it goes at the end."""
    parent = project().line(line) / "runs" / lane
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=stamp))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for pattern in _BULKY:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        (folder / _DONE).touch()
        _point(parent / "last", folder)
        _prune(parent)


def _point(link: Path, folder: Path) -> None:
    """Let the link name the newest run that has ended."""
    beside = link.with_name(f".{folder.name}")
    with contextlib.suppress(OSError):
        beside.symlink_to(folder.name)
        beside.replace(link)


def _prune(parent: Path) -> None:
    """Remove all but the newest runs; those still going on have no mark and stay."""
    ended = sorted(path.parent for path in parent.glob(f"*/{_DONE}") if not path.parent.is_symlink())
    for folder in ended[:-KEEP]:
        shutil.rmtree(folder, ignore_errors=True)
