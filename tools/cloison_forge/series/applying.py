# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting a series into a tree: compute beside, compare, write the difference."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError
from cloison_forge.core.stage import digest_bytes
from cloison_forge.series.fitting import Fit, Offset, clear, fit
from cloison_forge.series.placing import Placement
from cloison_forge.series.reading import Series

_FORMAT = "1"  # raise it when the same inputs shall give another tree


class TreeLike(Protocol):
    """What this room needs to know of an extracted source tree (`cloison_forge.source.api.Tree`)."""

    @property
    def path(self) -> Path:
        """The tree's folder."""

    @property
    def key(self) -> str:
        """Changes when the tree's content does."""

    @property
    def reference(self) -> bool:
        """Whether it is the pinned reference source of its line."""


@dataclass(frozen=True)
class Outcome:
    """What `put` did: the tree's new key, the files written, the offsets of hunks."""

    key: str
    written: tuple[str, ...]
    offsets: tuple[str, ...]


def key_of(tree: TreeLike, series: Series) -> str:
    """Return the key of a tree with a series in it."""
    return digest_bytes(f"{_FORMAT}\0{tree.key}\0{tree.reference}\0{series.digest}".encode())


def put(tree: TreeLike, series: Series, placement: Placement, *, rescue: Path | None = None) -> Outcome:
    """Make the tree hold exactly `series`, or leave it as it was and say why not.

    Fuzz is never allowed, an offset only where the tree is not the line's reference source.
    Files that were changed by hand are copied to `rescue` first.
    """
    key = key_of(tree, series)
    if placement.holds(key):
        known = placement.state().details.get("offsets", [])
        return Outcome(key, (), tuple(str(offset) for offset in known) if isinstance(known, list) else ())
    with scratch(placement.pristine.parent) as folder:
        originals = placement.originals(list(series.touched))
        fitted = fit(series, originals, folder)
    if tree.reference and fitted.offsets:
        raise _offset_error(fitted.offsets)
    offsets = tuple(str(offset) for offset in fitted.offsets)
    written = placement.move(key, fitted.files, {"patches": list(series.names), "offsets": list(offsets)}, rescue)
    return Outcome(key, tuple(written), offsets)


def _offset_error(offsets: tuple[Offset, ...]) -> BuildError:
    shown = "".join(f"\n          | {offset}" for offset in offsets[:8])
    more = f"\n          | and {len(offsets) - 8} more" if len(offsets) > 8 else ""
    return BuildError(
        f"{len(offsets)} hunks do not sit where the series says, on this line's reference source{shown}{more}",
        hint="./invoke patch.edit, look at them, then ./invoke patch.export writes the series with the right places",
    )


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give an empty folder in `parent` that is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".series."))
    try:
        yield folder
    finally:
        clear(folder)


def sweep(parent: Path, *prefixes: str) -> None:
    """Remove folders that a killed run left behind; the caller holds the lock of whoever makes them."""
    for prefix in prefixes:
        for folder in parent.glob(f"{prefix}*"):
            clear(folder)


@contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn a failure of the file system into one clear line."""
    try:
        yield
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise BuildError(
            f"{what}: {error.strerror or error}{place}",
            hint="free space or mend the permissions and run it again; the next run finishes what this one began",
        ) from None


def report(stage: str, outcome: Outcome, series: Series, begun: float) -> None:
    """Say in one line what was done; `begun` is from time.monotonic()."""
    if outcome.offsets:
        ui.warn(f"{len(outcome.offsets)} hunks fit at an offset, as they may on a source that is not the reference")
        for offset in outcome.offsets[:5]:
            ui.say(f"          | {offset}")
    if not outcome.written:
        ui.note(stage, f"up to date ({len(series.patches)} patches)")
        return
    ui.note(
        stage,
        f"{len(series.patches)} patches applied, {len(outcome.written)} files written "
        f"in {ui.seconds(time.monotonic() - begun)}",
    )


__all__ = ["Fit", "Outcome", "TreeLike", "key_of", "one_line_errors", "put", "report", "scratch", "sweep"]
