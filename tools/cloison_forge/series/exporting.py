# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing a work area back as patches, the same bytes each time.

No commit hash, git version or date of the export goes into a patch, and blob names are written in
full, since git chooses the length of short ones by what else is in the repository. With full names
``git am -3`` works for packagers, on the series and on the flat numbered queue alike.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.stage import atomic_file
from cloison_forge.series.area import BASE, Area
from cloison_forge.series.fitting import content, fit
from cloison_forge.series.reading import SHARED, Patch, Series, entries

_FORMAT = [
    "format-patch", "--quiet", "--zero-commit", "--no-signature", "--no-numbered", "--no-renames", "--no-notes",
    "--no-cover-letter", "--no-attach", "--no-thread", "--no-base", "--no-ext-diff", "--no-textconv", "--no-color",
    "--diff-algorithm=myers", "--indent-heuristic", "--unified=3", "--stat=72", "--summary", "--full-index",
    "--src-prefix=a/", "--dst-prefix=b/", "--subject-prefix=PATCH", "--suffix=.patch", "--no-to", "--no-cc",
    "--no-add-header", "--encode-email-headers", "--filename-max-length=64",
]  # fmt: skip
_PREFIX = re.compile(r"^(?:[\w/.-]+:\s*)+", re.ASCII)


def mails(area: Area, folder: Path) -> list[Path]:
    """Write one numbered mail a commit into an empty folder; they are in the order of the series."""
    area.git(*_FORMAT, "-o", folder, f"{BASE}..HEAD")
    return sorted(folder.glob("*.patch"))


def area_series(area: Area, folder: Path) -> Series:
    """Return the area's commits as a series, named as they are going to be on disk, in `folder`."""
    area.remember()
    commits, notes = area.commits(), area.notes()
    files = mails(area, folder)
    patches = [
        Patch(notes.get(commit, ""), file, file.read_bytes()) for commit, file in zip(commits, files, strict=True)
    ]
    for patch, subject in zip(patches, area.subjects(commits), strict=True):
        if not patch.data:
            raise UsageError(
                f"the commit '{subject}' in the work area changes nothing",
                hint="drop it: git rebase --interactive base",
            )
    named = name_all(patches, original_files(area))
    return Series(folder, tuple(named))


def original_files(area: Area) -> set[str]:
    """The files of the kernel that the area holds."""
    return set(area.git("ls-tree", "-r", "--name-only", "-z", BASE).output.split("\0")) - {""}


def name_all(patches: Iterable[Patch], mainline: set[str]) -> list[Patch]:
    """Give each patch a file name: the one it has, else one from its subject and from what it touches."""
    listed = list(patches)
    line_owned = {path for p in listed if p.name and not p.shared for c in p.files for path in c.paths}
    taken: set[str] = set()
    named: list[Patch] = []
    for patch in listed:
        name = patch.name
        if not name or name in taken:
            name = _free(new_name(patch, mainline | line_owned), taken | {p.name for p in listed})
        taken.add(name)
        named.append(Patch(name, patch.path, patch.data))
    return named


def new_name(patch: Patch, foreign: set[str]) -> str:
    """Name a new patch: shared if it touches only our own files, a hook of this line otherwise."""
    slug = re.sub(r"[^a-z0-9]+", "-", _PREFIX.sub("", patch.subject).lower()).strip("-")[:48].strip("-")
    if not slug:
        raise UsageError(
            f"no file name can be made from the subject '{patch.subject}'", hint="say in it what the patch does"
        )
    touches = {path for change in patch.files for path in change.paths}
    return f"hook-{slug}.patch" if touches & foreign else f"{SHARED}/{slug}.patch"


def _free(name: str, taken: set[str]) -> str:
    stem, number, found = name.removesuffix(".patch"), 1, name
    while found in taken:
        number += 1
        found = f"{stem}-{number}.patch"
    return found


def series_text(names: Sequence[str], old: str) -> str:
    """Write a series file in a new order; the comments above a patch stay with it, the last ones at the end."""
    comments: Mapping[str, str] = {name: text for text, name in entries(old, "series")}
    return "".join(f"{comments.get(name, '')}{name}\n" for name in names) + comments.get("", "")


def prove(area: Area, series: Series) -> None:
    """Make sure that GNU patch turns the originals into exactly what the area holds, at offset 0."""
    with tempfile.TemporaryDirectory(prefix="cloison-export.") as place:
        folder = Path(place)
        originals, scratch, texts = folder / "base", folder / "scratch", folder / "patches"
        index = {"GIT_INDEX_FILE": str(folder / "index")}
        area.git("read-tree", BASE, env=index)
        area.git("checkout-index", "--all", f"--prefix={originals}/", env=index)
        written: list[Patch] = []
        for patch in series.patches:
            path = texts / patch.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(patch.data)
            written.append(Patch(patch.name, path, patch.data))
        copy = Series(folder, tuple(written))
        scratch.mkdir()
        fitted = fit(copy, {path: content(originals / path) for path in copy.touched}, scratch)
    for name, what in fitted.files.items():
        if what != content(area.path / name):
            raise BuildError(f"the exported patches do not give {name} as it is in {area.path}", hint="report this")
    if fitted.offsets:
        raise BuildError(f"an exported patch has an offset: {fitted.offsets[0]}", hint="report this")


def write_series(series: Series, old: Series, others: set[str]) -> tuple[list[str], list[str]]:
    """Write the patches and the series file that differ from those on disk; remove the ones that are gone.

    `others` are names of shared patches that another line still lists; they stay.
    """
    changed: list[str] = []
    for patch in series.patches:
        path = old.folder / patch.name
        if not path.is_file() or path.read_bytes() != patch.data:
            with atomic_file(path) as beside:
                beside.write_bytes(patch.data)
            changed.append(patch.name)
    text = series_text(series.names, old.text)
    if text != old.text:
        with atomic_file(old.file) as beside:
            beside.write_text(text, encoding="utf-8")
    removed = [name for name in old.names if name not in series.names and name not in others]
    for name in removed:
        (old.folder / name).unlink(missing_ok=True)
    return changed, removed


def write_queue(area: Area, folder: Path, fragment: str) -> None:
    """Fill an empty folder with the numbered queue, its own series file and the configuration fragment."""
    files = mails(area, folder)
    (folder / "series").write_text("".join(f"{file.name}\n" for file in files), encoding="utf-8")
    (folder / "cloison.config").write_text(fragment, encoding="utf-8")
