# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipe of the host image, ``images/host.toml``."""

from __future__ import annotations

import re
import tomllib
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project

T = TypeVar("T")


@dataclass(frozen=True)
class RootRecipe:
    """The root file system: Debian suite, packages, and all that would otherwise differ from run to run.

    `epoch` is every time stamp, in seconds since 1970; `free_mib` the free space, in MiB.
    """

    suite: str
    architecture: str
    epoch: int
    packages: tuple[str, ...]
    uuid: str
    hash_seed: str
    label: str
    free_mib: int


@dataclass(frozen=True)
class DiskRecipe:
    """The disk: fixed identifiers of its table and partitions, sizes in MiB, and its serial console."""

    guid: str
    bios_guid: str
    esp_guid: str
    root_guid: str
    esp_mib: int
    esp_serial: str
    console: str
    speed: int
    timeout: int


@dataclass(frozen=True)
class Recipe:
    """A whole host image; `path` is the file that it was read from."""

    path: Path
    root: RootRecipe
    disk: DiskRecipe


def load(path: Path | None = None) -> Recipe:
    """Read a recipe (``images/host.toml`` by default); `UsageError` names what is wrong in it."""
    source = path or project().images / "host.toml"
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{source}: {error}", hint="compare it with the file in the repository's history") from None
    recipe = Recipe(source, _table(source, data, "root", RootRecipe), _table(source, data, "disk", DiskRecipe))
    _check(recipe)
    return recipe


def _table(source: Path, data: dict[str, Any], name: str, kind: type[T]) -> T:
    table = data.get(name)
    if not isinstance(table, dict):
        raise UsageError(f"{source}: table [{name}] is missing")
    wanted = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in wanted:
            raise UsageError(f"{source}: [{name}] has no setting '{key}'", hint=f"settings: {', '.join(wanted)}")
    values: dict[str, Any] = {}
    for key, what in wanted.items():
        if key not in table:
            raise UsageError(f"{source}: [{name}] lacks the setting '{key}'")
        values[key] = _value(source, f"{name}.{key}", table[key], what)
    return kind(**values)


def _value(source: Path, name: str, value: object, what: str) -> object:
    if what == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if what == "str" and isinstance(value, str) and value:
        return value
    if what.startswith("tuple") and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(sorted(set(value)))
    raise UsageError(f"{source}: {name} is not a proper {what}: {value!r}")


def _check(recipe: Recipe) -> None:
    """Refuse values that a later program would only choke on."""
    root, disk = recipe.root, recipe.disk
    for name in root.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise UsageError(f"{recipe.path}: '{name}' is no name of a Debian package")
    for what in (root.uuid, root.hash_seed, disk.guid, disk.bios_guid, disk.esp_guid, disk.root_guid):
        try:
            uuid.UUID(what)
        except ValueError:
            raise UsageError(f"{recipe.path}: '{what}' is no UUID") from None
    if not re.fullmatch(r"[0-9A-F]{8}", disk.esp_serial):
        raise UsageError(f"{recipe.path}: esp_serial must be eight upper-case hexadecimal digits")
    if len(root.label) > 16:
        raise UsageError(f"{recipe.path}: the label '{root.label}' is longer than ext4's 16 characters")
    if root.epoch < 315532800:
        raise UsageError(f"{recipe.path}: epoch lies before 1980, which FAT cannot express")
    if disk.esp_mib < 34 or root.free_mib < 0:
        raise UsageError(f"{recipe.path}: esp_mib is at least 34 (FAT32), free_mib at least 0")
