# SPDX-License-Identifier: GPL-2.0-or-later
"""The pinned packages of an image: names, versions and hashes, and no hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.stage import atomic_file

_HEADER = """\
# SPDX-License-Identifier: GPL-2.0-or-later
# Packages of the {image} image, pinned: name, version, architecture, size in bytes, SHA-256 of the .deb.
# Written by './invoke image.relock'; do not edit.
"""


@dataclass(frozen=True, order=True)
class Package:
    """One Debian package, down to its bytes; `size` in bytes, `sha256` in hexadecimal."""

    name: str
    version: str
    architecture: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The name under which the cache keeps it."""
        version = self.version.replace(":", "%3a")
        return f"{self.name}_{version}_{self.architecture}.deb"

    @property
    def line(self) -> str:
        """Its line in the lock list."""
        return f"{self.name} {self.version} {self.architecture} {self.size} {self.sha256}"


def parse(text: str, where: str) -> list[Package]:
    """Read a lock list; `where` names it in errors."""
    found: dict[str, Package] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 5 or not words[3].isdigit() or not re.fullmatch(r"[0-9a-f]{64}", words[4]):
            raise UsageError(
                f"{where}:{number}: not 'name version architecture size sha256': {line[:80]}",
                hint="./invoke image.relock writes the list anew",
            )
        package = Package(words[0], words[1], words[2], int(words[3]), words[4])
        if package.name in found:
            raise UsageError(f"{where}:{number}: {package.name} is pinned twice")
        found[package.name] = package
    return sorted(found.values())


def read(path: Path) -> list[Package]:
    """Read the lock list at `path`."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="./invoke image.relock writes it") from None


def write(path: Path, packages: Iterable[Package]) -> None:
    """Write a lock list, whole or not at all; its name is that of its image."""
    header = _HEADER.format(image=path.stem)
    with atomic_file(path) as beside:
        beside.write_text(header + "".join(f"{package.line}\n" for package in sorted(packages)), encoding="utf-8")


def differences(pinned: Iterable[Package], taken: Iterable[Package]) -> list[str]:
    """Say how `taken` differs from `pinned`, a phrase a package: 'bash 5.2-2 instead of 5.2-1'."""
    old = {package.name: package for package in pinned}
    new = {package.name: package for package in taken}
    phrases = []
    for name in sorted({*old, *new}):
        if name not in old:
            phrases.append(f"{name} {new[name].version} not pinned")
        elif name not in new:
            phrases.append(f"{name} no longer needed")
        elif old[name].version != new[name].version:
            phrases.append(f"{name} {new[name].version} instead of {old[name].version}")
        elif old[name].sha256 != new[name].sha256:
            phrases.append(f"{name} {new[name].version} with another content")
    return phrases
