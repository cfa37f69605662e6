# SPDX-License-Identifier: GPL-2.0-or-later
"""Extracted trees: beside and then in place by rename, with a stamp that makes the second call free."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.stage import write_json
from cloison_forge.source import cache
from cloison_forge.source.model import FetchOptions, Origin, RefusedError, Tree, disk_errors, free_bytes
from cloison_forge.source.tree import STAMP
from cloison_forge.source.versions import belongs_to

NEEDED_BYTES = 1_900_000_000  # an extracted kernel tree, with the file system's rounding
Fetcher = Callable[[Line, FetchOptions], Origin]


@dataclass(frozen=True)
class Place:
    """One extracted tree's folder and the folder for work in progress beside it (which holds the lock)."""

    path: Path

    @property
    def work(self) -> Path:
        """Scratch folder on the same file system; what lies there is never used."""
        return self.path.with_name(f".{self.path.name}.work")


@dataclass(frozen=True)
class Wish:
    """A request, and for a local tree what it looked like before it was read."""

    options: FetchOptions
    touched: str


def ensure(line: Line, options: FetchOptions, folder: str, fetch: Fetcher) -> Tree:
    """Return the tree in ``build/<line>/<folder>``, made now if it is not there for this request."""
    place = Place(project().line(line.name) / folder)
    options = _continued(options, place)
    present = _present(line, options, place)
    if present is not None:
        ui.note("fetch", f"{describe(present)}: up to date")
        return present
    with disk_errors("the source tree", place.path.parent), locked(place.work, f"the source tree of {line.name}"):
        present = _present(line, options, place)
        if present is not None:
            return present
        wish = Wish(options, _touched(options))
        origin = fetch(line, options)
        return _same(line, wish, place, origin) or _extract(line, wish, place, origin)


def _continued(options: FetchOptions, place: Place) -> FetchOptions:
    """Where no origin is named, go on with the one that the tree came from; 'auto' when there is none."""
    if options.origin:
        return options
    origin, _, value = str(_stamp(place).get("request", "auto")).partition(" --value ")
    return replace(options, origin=origin, value=value)


def describe(tree: Tree) -> str:
    """Name a tree for people: '6.12.117-1~deb12u1 from debian (the reference)'."""
    version = tree.origin.package_version or tree.origin.version
    return f"{version} from {tree.origin.name}{' (the pinned reference)' if tree.reference else ''}"


def _pin(line: Line) -> str:
    return f"{line.package_version} {line.tar_sha256} {line.tree_sha256}"


def _present(line: Line, options: FetchOptions, place: Place) -> Tree | None:
    """Return the tree that is there, if it was made for this request and this pin."""
    stamp = _stamp(place)
    if stamp.get("request") != options.request() or stamp.get("pin") != _pin(line):
        return None
    if options.origin == "local" and stamp.get("touched") != _touched(options):
        return None
    tree = _tree(line, place, stamp)
    if tree is not None and options.locked and not tree.reference:
        return None
    return tree


def _stamp(place: Place) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads((place.path / STAMP).read_text(encoding="utf-8"))
        if isinstance(value, dict) and (place.path / "Makefile").is_file():
            return value
    return {}


def _tree(line: Line, place: Place, stamp: dict[str, object]) -> Tree | None:
    origin = cache.from_dict(stamp.get("origin"))
    key, made = stamp.get("tree_sha256"), stamp.get("made")
    if origin is None or not isinstance(key, str) or not isinstance(made, str):
        return None
    return Tree(place.path, origin, origin.tar_sha256 == line.tar_sha256, key, made)


def _touched(options: FetchOptions) -> str:
    """Return what changes when the user touches his own tree; '' for other origins."""
    if options.origin != "local":
        return ""
    from cloison_forge.source import local

    return local.fingerprint(options.value)


def _write(line: Line, wish: Wish, folder: Path, origin: Origin, key: str, made: str) -> None:
    write_json(
        folder / STAMP,
        {
            "request": wish.options.request(),
            "touched": wish.touched,
            "pin": _pin(line),
            "origin": cache.as_dict(origin),
            "tree_sha256": key,
            "made": made,
        },
    )


def _same(line: Line, wish: Wish, place: Place, origin: Origin) -> Tree | None:
    """Keep the tree that is there when another request leads to the same tarball."""
    tree = _tree(line, place, _stamp(place))
    if tree is None or tree.origin.tar_sha256 != origin.tar_sha256:
        return None
    _write(line, wish, place.path, origin, tree.key, tree.made)
    return Tree(place.path, origin, tree.reference, tree.key, tree.made)


def _extract(line: Line, wish: Wish, place: Place, origin: Origin) -> Tree:
    from cloison_forge.source import tarball, tree

    _sweep(place)
    if free_bytes(place.path.parent) < NEEDED_BYTES:
        raise BuildError(
            f"{free_bytes(place.path.parent) // 10**6} MB free for the source tree, "
            f"{NEEDED_BYTES // 10**6} MB needed in {place.path.parent}",
            hint="free some space, or move the build folder with CLOISON_BUILD",
        )
    beside = Path(tempfile.mkdtemp(dir=place.work, prefix="new."))
    try:
        with ui.step("fetch", f"extracting {origin.tar.name}"):
            tarball.extract(origin.tar, origin.tar.name, beside, origin.tar_sha256)
            found = tree.version_of(beside, origin.tar.name)
            if not belongs_to(found, line.name):
                raise RefusedError(f"{origin.tar.name} is refused: it is Linux {found}, not of the line {line.name}")
            key = tree.tree_sha256(beside)
        reference = origin.tar_sha256 == line.tar_sha256
        if reference and line.tree_sha256 not in ("", key):
            raise RefusedError(
                f"the extracted tree is not the pinned one: its SHA-256 is {key}, kernels.toml says {line.tree_sha256}",
                hint=f"does the file system of {place.path.parent} keep names, case and modes of files?",
            )
        made = uuid.uuid4().hex
        _write(line, wish, beside, origin, key, made)
        beside.chmod(0o755)
        _exchange(place, beside)
    except RefusedError as error:
        if cache.kernels() in origin.tar.parents:
            kept = cache.quarantine(origin.tar)
            raise RefusedError(
                error.message, hint=error.hint or f"the file was put aside as {kept}; run again to fetch it anew"
            ) from None
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Tree(place.path, origin, reference, key, made)


def _exchange(place: Place, beside: Path) -> None:
    """Put the new tree in place; the old one goes away after that."""
    old = Path(tempfile.mkdtemp(dir=place.work, prefix="old."))
    if place.path.exists():
        place.path.replace(old / "tree")
    beside.replace(place.path)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(place: Place) -> None:
    """Remove what interrupted runs left; the caller holds the lock."""
    for left in place.work.glob("*.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
