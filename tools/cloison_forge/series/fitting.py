# SPDX-License-Identifier: GPL-2.0-or-later
"""Fitting a series to original files: the final bytes, computed in a scratch folder, never in the tree.

GNU patch does the work with fuzz 0: every context line must be there. A hunk that fits some lines
further up or down is applied and reported as an offset; the caller decides whether that may be.
"""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import BuildError
from cloison_forge.core.run import require, run
from cloison_forge.series.reading import FileChange, Hunk, Patch, Series

REPAIR = "./invoke patch.edit"
_FILE = re.compile(r"^(?:patching|checking) (?:file|symbolic link) '?(.+?)'?(?: \(.*\))?$")
_FAILED = re.compile(r"^Hunk #(\d+) FAILED at (\d+)")
_OFFSET = re.compile(r"^Hunk #(\d+) succeeded at (\d+) \(offset (-?\d+) lines?\)")


@dataclass(frozen=True)
class Content:
    """A file's bytes and permission bits."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Offset:
    """A hunk (from 1) that fitted `lines` lines below (above, if negative) where the patch says."""

    patch: str
    file: str
    hunk: int
    lines: int

    def __str__(self) -> str:
        return f"{self.patch}: {self.file} hunk {self.hunk}: {self.lines:+d} lines"


@dataclass(frozen=True)
class Fit:
    """The files after the series (None: removed, or never there), and the offsets on the way."""

    files: Mapping[str, Content | None]
    offsets: tuple[Offset, ...]


class ConflictError(BuildError):
    """A patch does not fit: says which file and hunk, and what the file looks like there now."""

    def __init__(self, patch: str, message: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.patch = patch


def content(path: Path) -> Content | None:
    """Read a regular file, or None if there is none; other kinds of files are refused."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise BuildError(f"{path}: is no regular file, and the series touches it", hint="was the tree tampered with?")
    return Content(path.read_bytes(), stat.S_IMODE(status.st_mode) & 0o755)


def fit(series: Series, originals: Mapping[str, Content | None], scratch: Path) -> Fit:
    """Apply every patch to copies of the originals in `scratch` (an empty folder).

    `originals` holds the untouched content of every touched file, by its path in the tree. The first
    patch that does not fit raises `ConflictError`; nothing outside `scratch` is written.
    """
    require("patch", why="to apply the series")
    touched = series.touched
    for name in touched:
        place(scratch / name, originals[name])
    offsets: list[Offset] = []
    for patch in series.patches:
        offsets += push(patch, scratch)
    return Fit({name: content(scratch / name) for name in touched}, tuple(offsets))


def place(path: Path, what: Content | None) -> None:
    """Make the file at `path` be `what` (plainly: for folders that nobody else looks at)."""
    if what is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(what.data)
    path.chmod(what.mode)


def push(patch: Patch, folder: Path) -> list[Offset]:
    """Apply one patch in `folder` with fuzz 0; return its offsets, or raise `ConflictError`."""
    _refuse_overwriting(patch, folder)
    rejects = folder / ".rejects"
    options = ["-p1", "--fuzz=0", "--force", "--binary", "--no-backup-if-mismatch", "--reject-file", rejects.name]
    result = run(
        ["env", "-u", "POSIXLY_CORRECT", "patch", *options, "--input", patch.path.resolve()],
        cwd=folder,
        env={"LC_ALL": "C"},
        check=False,
    )
    rejects.unlink(missing_ok=True)
    offsets: list[Offset] = []
    file = ""
    for line in result.output.splitlines():
        if match := _FILE.match(line):
            file = match[1]
        elif match := _OFFSET.match(line):
            offsets.append(Offset(patch.name, file, int(match[1]), int(match[3])))
        elif match := _FAILED.match(line):
            raise _conflict(patch, file, int(match[1]), folder)
    if result.status != 0:
        raise ConflictError(
            patch.name,
            f"{patch.name} cannot be applied\n          | " + "\n          | ".join(result.output.splitlines()[-6:]),
            hint=f"look at {patch.path}",
        )
    return offsets


def _refuse_overwriting(patch: Patch, folder: Path) -> None:
    for change in patch.files:
        if change.source is None and change.target and (folder / change.target).exists():
            raise ConflictError(
                patch.name,
                f"{patch.name} creates {change.target}, which is already there",
                hint=f"{REPAIR} opens a work area; the file came with the source or with an earlier patch",
            )
        if change.source is not None and not (folder / change.source).exists():
            raise ConflictError(
                patch.name,
                f"{patch.name} changes {change.source}, which does not exist in this source",
                hint=f"{REPAIR} opens a work area with the patches before it applied",
            )


def _conflict(patch: Patch, file: str, number: int, folder: Path) -> ConflictError:
    change = next((c for c in patch.files if file in c.paths), None)
    hunk = change.hunks[number - 1] if change and number <= len(change.hunks) else None
    text = f"{patch.name} does not fit: {file}, hunk {number}"
    if hunk is not None and change is not None:
        text += _picture(change, hunk, folder / file)
    return ConflictError(
        patch.name, text, hint=f"{REPAIR} opens a git work area that stops at this patch, and says how to go on"
    )


def _picture(change: FileChange, hunk: Hunk, path: Path) -> str:
    """What the hunk wants to find, and the place in the file that is most like it."""
    now = content(path)
    lines = now.data.decode("utf-8", errors="replace").splitlines() if now else []
    # GNU patch has applied the hunks before this one: the file is at the new numbering.
    at = nearest(lines, hunk.old_lines, hunk.new_start - 1)
    wanted = [f"          | {'-' if line[0] == '-' else ' '} {line[1:]}" for line in hunk.lines if line[0] in " -"]
    if not lines:
        return f" (line {hunk.old_start}); it expects\n" + "\n".join(wanted[:10]) + "\n          and the file is empty"
    end = min(len(lines), at + len(hunk.old_lines))
    seen = [
        f"          | {number + 1:>5}{' ' if line in hunk.old_lines else '!'} {line}"
        for number, line in enumerate(lines[at:end], at)
    ]
    return (
        f" (line {hunk.old_start}); it expects\n"
        + "\n".join(wanted[:10])
        + f"\n          and {change.path} now has (! marks what the hunk does not know)\n"
        + "\n".join(seen[:12])
    )


def nearest(lines: list[str], wanted: tuple[str, ...], around: int) -> int:
    """Return the index in `lines` where most of `wanted` stands in place; ties go to the one nearest `around`."""
    known = set(wanted)
    best, best_score = max(0, min(around, len(lines) - 1)), (0, 0)
    weights = [1 + (len(line.strip()) > 3) for line in wanted]
    for start in range(len(lines)):
        window = lines[start : start + len(wanted)]
        in_place = sum(w for have, want, w in zip(window, wanted, weights, strict=False) if have == want)
        anywhere = sum(len(line.strip()) > 3 for line in window if line in known)
        score = (2 * in_place + anywhere, -abs(start - around))
        if score[0] and score > best_score:
            best, best_score = start, score
    return best


def clear(scratch: Path) -> None:
    """Remove a scratch folder."""
    shutil.rmtree(scratch, ignore_errors=True)
