# SPDX-License-Identifier: GPL-2.0-or-later
"""The supported kernel lines, from ``kernels.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project


@dataclass(frozen=True)
class Line:
    """One kernel line and its pinned reference source.

    `version` is the upstream version of the reference, `package_version` Debian's;
    `tar_sha256` hashes the uncompressed tar, `tree_sha256` the extracted tree (see source.tree).
    """

    name: str
    version: str
    package: str
    package_version: str
    tar_sha256: str
    tree_sha256: str
    series: str


def load(path: Path | None = None) -> dict[str, Line]:
    """Read the kernel lines, by name such as '6.12'."""
    source = path or project().root / "kernels.toml"
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
        return {name: Line(name=name, **entry) for name, entry in data["line"].items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{source}: {error}", hint="compare it with the file in the repository's history") from None


def get(name: str) -> Line:
    """Return the line called `name`, or fail and list those that exist."""
    lines = load()
    if name not in lines:
        raise UsageError(f"no kernel line '{name}'", hint=f"lines in kernels.toml: {', '.join(lines)}")
    return lines[name]
