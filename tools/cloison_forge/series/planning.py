# SPDX-License-Identifier: GPL-2.0-or-later
"""What to compile in order to see what a series does: the files it touches, and the folders it adds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloison_forge.series.reading import Series

_NOT_KERNEL = ("tools/", "samples/", "Documentation/", "scripts/", "usr/")


@dataclass(frozen=True)
class Plan:
    """Objects of single files, folders that are built as a whole, and files that are not compiled here."""

    objects: tuple[str, ...]
    folders: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def goals(self) -> list[str]:
        """What to ask make for."""
        return [*self.objects, *(f"{folder}/" for folder in self.folders)]


def own_files(series: Series) -> set[str]:
    """The files that some patch of the series creates."""
    return {change.path for patch in series.patches for change in patch.files if change.source is None}


def plan(series: Series, tree: Path, source_arch: str, *, on: bool) -> Plan:
    """Plan for the C files that `series` touches and `tree` has.

    Folders with a Makefile of ours are built as a whole, so that a file is compiled if its option is
    chosen; with VSERVER off (`on` is False) nothing of our own is compiled.
    """
    ours = own_files(series)
    folders = _folders(ours)
    objects: list[str] = []
    left: list[str] = []
    for name in series.touched:
        if not name.endswith(".c") or not (tree / name).is_file():
            continue
        foreign = name.startswith("arch/") and not name.startswith(f"arch/{source_arch}/")
        if foreign or name.startswith(_NOT_KERNEL):
            left.append(name)
        elif name not in ours or (on and not name.startswith(tuple(f"{folder}/" for folder in folders))):
            objects.append(f"{name[:-2]}.o")
    return Plan(tuple(objects), tuple(folders) if on else (), tuple(left))


def _folders(ours: set[str]) -> list[str]:
    """The folders that we added to the kernel's build: those with a Makefile of ours, the outermost only."""
    makefiles = [PurePosixPath(name) for name in ours if PurePosixPath(name).name == "Makefile"]
    folders = sorted(str(file.parent) for file in makefiles if not str(file).startswith(_NOT_KERNEL))
    return [folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders)]


def compiled(wanted: Plan, tree: Path, obj: Path) -> set[str]:
    """Return the objects of the plan that exist; one whose C file is not in the tree is a leftover, and not counted."""
    single = {name for name in wanted.objects if (obj / name).is_file()}
    found = {str(path.relative_to(obj)) for folder in wanted.folders for path in (obj / folder).rglob("*.o")}
    return single | {name for name in found if (tree / f"{name[:-2]}.c").is_file()}


def uncompiled(wanted: Plan, series: Series, tree: Path, obj: Path) -> set[str]:
    """Name the C files that the plan was to compile and that have no object: their options are not chosen."""
    there = compiled(wanted, tree, obj)
    below = tuple(f"{folder}/" for folder in wanted.folders)
    inside = {name for name in own_files(series) if below and name.startswith(below) and name.endswith(".c")}
    expected = {*wanted.objects, *(f"{name[:-2]}.o" for name in inside if (tree / name).is_file())}
    return {f"{name[:-2]}.c" for name in expected - there}
