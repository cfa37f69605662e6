# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch series of a kernel line: apply it, edit it, write it back, check it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import UsageError
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import STAMP, Stage, digest_bytes
from cloison_forge.series.applying import TreeLike, one_line_errors, put, report
from cloison_forge.series.placing import STATE, Placement, restore
from cloison_forge.series.reading import Series, read

VARIANTS = ("on", "off", "absent")


@dataclass(frozen=True)
class Applied:
    """A tree in one state of the series.

    `path` is the tree, `key` its stamp key, `patches` the names of what is applied, in order (none
    for the variant 'absent'), `series_sha256` their digest, `offsets` one text for each hunk that
    sat elsewhere than its patch says (never on the reference source).
    """

    path: Path
    key: str
    patches: tuple[str, ...]
    variant: str = "on"
    series_sha256: str = ""
    offsets: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, object]:
        """What a build's provenance file says about the series."""
        return {
            "variant": self.variant,
            "patches": list(self.patches),
            "series_sha256": self.series_sha256,
            "offsets": list(self.offsets),
        }


def series_of(line: Line) -> Series:
    """Read the series of a kernel line."""
    return read(project().patches / line.series)


def placement_of(line: Line, tree: TreeLike) -> Placement:
    """Return the line's tree together with the folder of its originals."""
    return Placement(tree.path, project().line(line.name) / "pristine")


def apply(line: Line, tree: TreeLike, *, variant: str = "on") -> Applied:
    """Make the tree of the line hold its series, writing only files that differ; nothing to do costs milliseconds.

    The variants 'on' and 'off' are the same tree (they differ in configuration); 'absent' gives a
    second, untouched copy. A patch that does not fit raises `ConflictError` and changes nothing.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no variant '{variant}'", hint=f"variants: {', '.join(VARIANTS)}")
    folder = project().line(line.name)
    begun = time.monotonic()
    with locked(folder / "series", f"the source tree of {line.name}"), one_line_errors("patch"):
        if variant == "absent":
            return _absent(line, tree)
        series = series_of(line)
        rescue = folder / "changed-by-hand" / time.strftime("%Y%m%d-%H%M%S")
        outcome = put(tree, series, placement_of(line, tree), rescue=rescue)
    report("patch", outcome, series, begun)
    return Applied(tree.path, outcome.key, series.names, variant, series.digest, outcome.offsets)


def revert(line: Line, tree: TreeLike) -> Applied:
    """Give every touched file of the line's tree its original content again."""
    folder = project().line(line.name)
    begun = time.monotonic()
    with locked(folder / "series", f"the source tree of {line.name}"), one_line_errors("patch"):
        empty = series_of(line).first(0)
        rescue = folder / "changed-by-hand" / time.strftime("%Y%m%d-%H%M%S")
        outcome = put(tree, empty, placement_of(line, tree), rescue=rescue)
    report("patch", outcome, empty, begun)
    return Applied(tree.path, outcome.key, (), "on", empty.digest)


def _absent(line: Line, tree: TreeLike) -> Applied:
    """Make the copy without the series, once for each source."""
    stage = Stage("absent", project().line(line.name) / "absent", {"tree": tree.key, "format": "1"})

    def make(folder: Path) -> None:
        with ui.step("patch", f"copying the source of {line.name} without the series"):
            copy_untouched(tree, placement_of(line, tree), folder)

    stage.ensure(make)
    return Applied(stage.out, stage.key, (), "absent", digest_bytes(b""))


def copy_untouched(tree: TreeLike, placement: Placement, folder: Path) -> None:
    """Copy a tree into an empty folder, with the original content of every touched file."""
    run(["cp", "-a", "--reflink=auto", f"{tree.path}/.", folder])
    restore(placement, folder)
    for name in (STAMP, STATE):
        (folder / name).unlink(missing_ok=True)
