# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from cloison.errors import CloisonError


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns under `head`; columns of numbers are flush right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    right = [bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join(line(row) for row in [list(head), *cells])


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return "key  value" lines with aligned values."""
    width = max(len(key) for key, _ in pairs)
    return "\n".join(f"{key:<{width}}  {value}".rstrip() for key, value in pairs)


def show(text: str, data: Any, *, as_json: bool) -> None:
    """Print `data` as JSON, or `text`."""
    print(json.dumps(data, indent=2) if as_json else text)


def report(error: CloisonError) -> int:
    """Print an error as one line, its hint as another, and return its exit status."""
    print(f"cloison: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    return int(error.status)
