# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of runs: one for each machine, so that two at once never meet; old ones are cleared away."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison_forge.core.paths import project

KEEP = 12
_BULKY = ("root.cow", "job.tar", "uefi-variables.fd", "vm_file*", "*.redolog", "guest-job.tar")
_OWNER = "owner"  # holds the process id of whoever runs the machine
_DONE = "ended"


@contextmanager
def run_folder(line: str, lane: str) -> Iterator[Path]:
    """Give a new folder ``build/<line>/runs/<lane>/<time>-<random>/``; what is bulky in it goes at the end."""
    parent = project().line(line) / "runs" / lane
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=stamp))
    folder.chmod(0o755)
    (folder / _OWNER).write_text(f"{os.getpid()}\n", encoding="ascii")
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
    """Remove all but the newest runs that have ended, and those whose owner was killed."""
    folders = sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    ended = [folder for folder in folders if (folder / _DONE).exists()]
    orphans = [folder for folder in folders if folder not in ended and not _owned(folder)]
    for folder in [*ended[:-KEEP], *orphans]:
        shutil.rmtree(folder, ignore_errors=True)


def _owned(folder: Path) -> bool:
    """Say whether the process that runs the machine of this folder is there; in doubt, it is."""
    try:
        owner = int((folder / _OWNER).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return time.time() - folder.stat().st_mtime < 3600 if folder.exists() else True
    return Path(f"/proc/{owner}").exists()
