# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening the work area of a line: when to reuse it, when to make it anew, and never losing work in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import UsageError
from cloison_forge.series.applying import TreeLike
from cloison_forge.series.area import Area, Edited, next_steps, open_area, remove, set_aside, tree_paths
from cloison_forge.series.exporting import area_series
from cloison_forge.series.placing import Placement
from cloison_forge.series.reading import Series


def edit_series(
    area: Area,
    series: Series,
    tree: TreeLike,
    placement: Placement,
    *,
    add: Sequence[str] = (),
    fresh: bool = False,
) -> Edited:
    """Open the area for `series`, or return the open one; print what to do next.

    `add` names files of the tree that no patch touches yet. An area with work that is not
    exported is kept; with `fresh` it is moved aside and a new one is made.
    """
    wanted = tree_paths(add)
    if area.path.exists() and not area.exists:
        _aside(area, "was not finished")
    if area.exists and fresh:
        _aside(area, "is replaced")
    source = series
    with tempfile.TemporaryDirectory(prefix="cloison-edit.") as folder:
        if area.exists:
            record = area.record()
            wanted = sorted({*record.added, *wanted})
            if area.busy:
                return _told(Edited(area.path, "the patch that git am stopped at"))
            same = (record.tree, record.series) == (tree.key, series.digest)
            if same and set(wanted) == set(record.added):
                ui.note("edit", f"the work area is open: {area.path}")
                return _told(Edited(area.path))
            source = _source(area, series, same, Path(folder))
        edited = _make(area, source, series, tree, placement, wanted)
    return _told(edited)


def _source(area: Area, series: Series, same: bool, folder: Path) -> Series:
    """Say which patches the new area shall hold: the series, or the area's own commits."""
    if not area.dirty and area.head == area.record().head:
        if area.stashed:
            _aside(area, "is made anew without what git stash holds")
        else:
            remove(area)
        return series
    if not same or area.dirty:
        what = "uncommitted changes" if area.dirty else "commits that are not exported, and the series has changed"
        raise UsageError(
            f"{area.path} holds {what}",
            hint="./invoke patch.export writes commits back; ./invoke patch.edit --fresh moves the area aside",
        )
    own = area_series(area, folder)
    _aside(area, "is made anew with the added files")
    return own


def _make(
    area: Area, source: Series, series: Series, tree: TreeLike, placement: Placement, wanted: Sequence[str]
) -> Edited:
    originals = placement.originals(sorted({*source.touched, *wanted}))
    for name in wanted:
        if originals[name] is None:
            raise UsageError(f"{name} is not in the source of this line", hint=f"look below {tree.path}")
    edited = open_area(area, source, tree.key, originals, wanted)
    if source is not series:
        # What is on disk is still the old series: the area's commits are ahead of it.
        record = area.record()
        names = {patch.subject: patch.name for patch in source.patches}
        area.write_record(type(record)(tree.key, series.digest, "", names, tuple(wanted)))
    ui.note("edit", f"{len(area.commits())} commits on {sum(c is not None for c in originals.values())} files")
    return edited


def _aside(area: Area, why: str) -> None:
    target = set_aside(area)
    ui.note("edit", f"the work area {why}; the old one is {target}")


def _told(edited: Edited) -> Edited:
    for line in next_steps(edited):
        ui.say(f"          > {line}")
    return edited
