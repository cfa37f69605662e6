# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of verified tarballs: ``downloads/kernel/<line>/<origin>/``, a record beside each file, a quarantine."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from cloison_forge.core.lines import Line
from cloison_forge.core.paths import project
from cloison_forge.core.stage import write_json
from cloison_forge.source.model import Origin, disk_errors

SCHEMA = 1
SCRATCH = ".scratch."  # temporary folders in the cache begin so; whoever holds the lock may remove them
_RECORD = ".origin.json"


def kernels() -> Path:
    """Return the folder of everything that this room keeps in the cache; its lock guards all of it."""
    return project().downloads / "kernel"


def folder(line: Line, origin: str) -> Path:
    """Return where an origin keeps its files of one kernel line."""
    return kernels() / line.name / origin


def store(origin: Origin) -> Origin:
    """Record a verified tarball; from now on it counts as cached."""
    with disk_errors(f"record of {origin.tar.name}", origin.tar.parent):
        write_json(origin.tar.with_name(origin.tar.name + _RECORD), as_dict(origin))
    return origin


def as_dict(origin: Origin) -> dict[str, object]:
    """Return an origin as JSON values; `from_dict` reads it."""
    return {
        "schema": SCHEMA,
        "name": origin.name,
        "version": origin.version,
        "package_version": origin.package_version,
        "tar": str(origin.tar),
        "tar_sha256": origin.tar_sha256,
        "provenance": origin.provenance,
    }


def from_dict(value: Any) -> Origin | None:
    """Read an origin as `as_dict` wrote it; None when it is of another schema or damaged."""
    try:
        if value["schema"] != SCHEMA:
            return None
        texts = [value[key] for key in ("name", "version", "package_version", "tar", "tar_sha256")]
        if not all(isinstance(text, str) for text in texts):
            return None
        name, version, package_version, tar, tar_sha256 = texts
        return Origin(name, version, package_version, Path(tar), tar_sha256, dict(value["provenance"]))
    except (KeyError, TypeError, ValueError):
        return None


def cached(line: Line, origin: str = "*") -> list[Origin]:
    """Return the verified tarballs of a line (of one origin) that are in the cache; contents are not read."""
    found = []
    for record in sorted((kernels() / line.name).glob(f"{origin}/*{_RECORD}")):
        tar = record.with_name(record.name.removesuffix(_RECORD))
        with contextlib.suppress(OSError, ValueError):
            known = from_dict(json.loads(record.read_text(encoding="utf-8")))
            if known is not None and tar.is_file():
                found.append(
                    Origin(known.name, known.version, known.package_version, tar, known.tar_sha256, known.provenance)
                )
    return found


def quarantine(tar: Path) -> Path:
    """Put a file that proved bad out of reach, with its record gone, and return where it is now.

    The quarantine holds the last bad file of each name, for whoever wants to look at it.
    """
    tar.with_name(tar.name + _RECORD).unlink(missing_ok=True)
    place = kernels() / "quarantine" / tar.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if tar.is_file():
        tar.replace(place)
    return place


def sweep() -> None:
    """Remove scratch folders that killed runs left; the caller holds the lock."""
    for left in kernels().glob(f"*/*/{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
