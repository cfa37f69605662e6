# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a quilt series: which patches, in which order, and what each one says and touches.

A series holds one patch name a line, relative to its own folder; ``common/`` is a symbolic link to
the patches that every line shares. Comments stand on lines of their own: a trailing comment or an
option after a name is refused, since git quiltimport and quilt disagree about it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.stage import digest_bytes

SHARED = "common"
_DIFF_START = (b"diff --git ", b"--- a/", b"Index: ")


@dataclass(frozen=True)
class Patch:
    """One patch: its name in the series, its file, its bytes."""

    name: str
    path: Path
    data: bytes

    @property
    def shared(self) -> bool:
        """Say whether all kernel lines share it (it lives in ``common/``)."""
        return self.name.startswith(f"{SHARED}/")

    @property
    def slug(self) -> str:
        """The file's name without folder and suffix."""
        return PurePosixPath(self.name).stem

    @cached_property
    def headers(self) -> dict[str, str]:
        """The mail's headers, decoded, by lower-case name."""
        mail = message_from_bytes(self.data, policy=policy.default)
        return {name.lower(): " ".join(str(value).split()) for name, value in mail.items()}

    @property
    def subject(self) -> str:
        """The subject without its ``[PATCH]`` prefix."""
        text = self.headers.get("subject", "")
        return text[text.index("]") + 1 :].strip() if text.startswith("[PATCH") and "]" in text else text

    @cached_property
    def message(self) -> str:
        """What stands between the headers and the diff: why the patch is there, and its trailers."""
        head = b"\n".join(self._lines_before_diff())
        _, _, body = head.partition(b"\n\n")
        text = body.decode("utf-8", errors="replace")
        return re.split(r"^---\s*$", text, maxsplit=1, flags=re.MULTILINE)[0].strip("\n")

    @cached_property
    def diff(self) -> bytes:
        """The bytes from the first changed file on."""
        return self.data[sum(len(line) + 1 for line in self._lines_before_diff()) :]

    @cached_property
    def files(self) -> tuple[FileChange, ...]:
        """The files that the patch touches, with their hunks."""
        return tuple(_changes(self))

    def _lines_before_diff(self) -> list[bytes]:
        before: list[bytes] = []
        for line in self.data.split(b"\n"):
            if line.startswith(_DIFF_START):
                return before
            before.append(line)
        return before


@dataclass(frozen=True)
class Hunk:
    """One hunk: where the old and the new text start (lines from 1), and the lines with their first column."""

    old_start: int
    new_start: int
    lines: tuple[str, ...]

    @property
    def old_lines(self) -> tuple[str, ...]:
        """The text that must be there: context and removed lines, without the first column."""
        return tuple(line[1:] for line in self.lines if line[:1] in " -")


@dataclass(frozen=True)
class FileChange:
    """What a patch does to one file. `source` is None for a new file, `target` for a removed one."""

    source: str | None
    target: str | None
    hunks: tuple[Hunk, ...]

    @property
    def path(self) -> str:
        """The file's path in the tree, after the patch where it has one."""
        return self.target or self.source or ""

    @property
    def paths(self) -> tuple[str, ...]:
        """Both paths of a rename, else the one."""
        return tuple(dict.fromkeys(path for path in (self.source, self.target) if path))

    @property
    def added(self) -> int:
        """Lines added."""
        return sum(line.startswith("+") for hunk in self.hunks for line in hunk.lines)

    @property
    def removed(self) -> int:
        """Lines removed."""
        return sum(line.startswith("-") for hunk in self.hunks for line in hunk.lines)


def _changes(patch: Patch) -> Iterator[FileChange]:
    from unidiff.errors import UnidiffParseError
    from unidiff.patch import PatchSet

    try:
        changes = PatchSet(patch.diff.decode("utf-8", errors="surrogateescape"))
    except UnidiffParseError as error:
        raise BuildError(
            f"{patch.name}: the diff cannot be read: {error}",
            hint=f"look at {patch.path}; was it cut, or did an editor or a mailer wrap its lines?",
        ) from None
    if not changes:
        raise BuildError(f"{patch.name}: holds no diff", hint=f"look at {patch.path}, or take it out of the series")
    for change in changes:
        yield _change(patch, change)


def _change(patch: Patch, change: Any) -> FileChange:
    names = [_tree_path(patch, name) for name in (change.source_file, change.target_file)]
    source = None if change.is_added_file else names[0]
    target = None if change.is_removed_file else names[1]
    hunks = tuple(
        Hunk(hunk.source_start, hunk.target_start, tuple(str(line).rstrip("\n") for line in hunk)) for hunk in change
    )
    return FileChange(source, target, hunks)


def _tree_path(patch: Patch, name: str) -> str | None:
    if name == "/dev/null":
        return None
    head, _, tail = name.partition("/")
    parts = PurePosixPath(tail).parts
    if head not in {"a", "b"} or not parts or ".." in parts or tail.startswith("/"):
        raise BuildError(
            f"{patch.name}: names the file '{name}', which is not below a/ or b/ of a kernel tree",
            hint="patches are made with git format-patch or diff -p1: --- a/kernel/fork.c",
        )
    return tail


@dataclass(frozen=True)
class Series:
    """The patches of one kernel line in their order, and the series file that lists them."""

    folder: Path
    patches: tuple[Patch, ...]
    text: str = ""
    lines: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def file(self) -> Path:
        """The series file itself."""
        return self.folder / "series"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the patches, as the series lists them."""
        return tuple(patch.name for patch in self.patches)

    @property
    def digest(self) -> str:
        """Hash over names, order and contents."""
        return digest_bytes("".join(f"{p.name}\0{digest_bytes(p.data)}\n" for p in self.patches).encode())

    @property
    def touched(self) -> tuple[str, ...]:
        """Every path that some patch touches, sorted."""
        return tuple(sorted({path for patch in self.patches for change in patch.files for path in change.paths}))

    def first(self, count: int) -> Series:
        """The series cut after `count` patches."""
        return Series(self.folder, self.patches[:count], self.text, self.lines)


def entries(text: str, where: str) -> list[tuple[str, str]]:
    """Split a series file into (comment block, patch name) pairs; a last pair may have an empty name.

    A comment block is the blank and comment lines before the name, as they stand.
    """
    found: list[tuple[str, str]] = []
    comments = ""
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            comments += line + "\n"
            continue
        if len(name.split()) > 1:
            what = "a comment" if "#" in name else "something"
            raise UsageError(
                f"{where}:{number}: {what} follows the patch name '{name.split()[0]}'",
                hint="put comments on lines of their own; options such as -p0 are not taken",
            )
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".patch":
            raise UsageError(
                f"{where}:{number}: '{name}' is not a patch of this line",
                hint=f"names end in .patch and are relative to the series; shared ones are {SHARED}/NAME.patch",
            )
        if name in (other for _, other in found):
            raise UsageError(f"{where}:{number}: '{name}' is listed twice", hint="each patch is applied once")
        found.append((comments, name))
        comments = ""
    if comments:
        found.append((comments, ""))
    return found


def read(folder: Path) -> Series:
    """Read the series of `folder` with all its patches; `UsageError` names the line that is wrong."""
    file = folder / "series"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UsageError(f"{file}: {reason}", hint="a kernel line has its series in patches/<line>/series") from None
    lines = entries(text, str(file))
    patches = tuple(_load(folder, name) for _, name in lines if name)
    return Series(folder, patches, text, tuple(lines))


def _load(folder: Path, name: str) -> Patch:
    path = folder / name
    try:
        return Patch(name, path, path.read_bytes())
    except OSError as error:
        near = difflib.get_close_matches(name, available(folder), n=1)
        raise UsageError(
            f"{folder / 'series'}: {name}: {error.strerror}",
            hint=f"did you mean {near[0]}?" if near else f"the patches are in {folder}",
        ) from None


def available(folder: Path) -> list[str]:
    """The patches that lie in a line's folder and in ``common/``, as a series would name them."""
    names = [path.name for path in folder.glob("*.patch")]
    return sorted(names + [f"{SHARED}/{path.name}" for path in (folder / SHARED).glob("*.patch")])
