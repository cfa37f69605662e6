# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of ways out of a context (``vectors.csv``) and what no check proves yet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloison_verify.catalogue import CatalogueError, Check


@dataclass(frozen=True)
class Vector:
    """One way out, or one way to look out, and what must happen to it.

    `group` is P processes, F files, N network, I inter-process communication, D devices, K kernel,
    R resources, L leaks.
    """

    group: str
    id: str
    vector: str
    call_or_path: str
    must_happen: str
    origin: str
    mainline_mechanism: str


def load(path: Path | None = None) -> dict[str, Vector]:
    """Read the catalogue, by identifier."""
    source = path or Path(__file__).with_name("vectors.csv")
    with source.open(encoding="utf-8", newline="") as stream:
        rows = [Vector(**row) for row in csv.DictReader(stream)]
    found = {row.id: row for row in rows}
    if len(found) != len(rows):
        raise CatalogueError(f"{source.name} names a row twice")
    return found


def check_references(checks: Iterable[Check], vectors: Mapping[str, Vector]) -> None:
    """Raise `CatalogueError` when a check claims a row that does not exist."""
    for check in checks:
        for row in check.vectors:
            if row not in vectors:
                raise CatalogueError(f"{check.id} claims row {row}, which vectors.csv does not have")


def unproven(checks: Iterable[Check], vectors: Mapping[str, Vector]) -> list[Vector]:
    """Return the rows that no check claims to prove."""
    claimed = {row for check in checks for row in check.vectors}
    return [vector for vector in vectors.values() if vector.id not in claimed]
