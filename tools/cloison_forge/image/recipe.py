# SPDX-License-Identifier: GPL-2.0-or-later
"""Recipes of images: ``images/host.toml``, and others that extend it."""

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
    """A whole image; `path` is the file that it was read from, and gives it its name."""

    path: Path
    root: RootRecipe
    disk: DiskRecipe

    @property
    def name(self) -> str:
        """The image's name, such as ``host``."""
        return self.path.stem

    @property
    def lock(self) -> str:
        """The name of its list of pinned packages, a file beside it."""
        return f"{self.name}.lock"


def named(name: str) -> Recipe:
    """Read the recipe of an image of the project; `UsageError` lists those that there are."""
    known = sorted(path.stem for path in project().images.glob("*.toml"))
    if name not in known:
        raise UsageError(f"no image '{name}'", hint=f"images: {', '.join(known)}")
    return load(project().images / f"{name}.toml")


def load(path: Path | None = None) -> Recipe:
    """Read a recipe (``images/host.toml`` by default); `UsageError` names what is wrong in it.

    One that ``extends`` another has its packages besides its own, and all settings that it does not have itself.
    """
    source = path or project().images / "host.toml"
    data = _read(source)
    if "extends" in data:
        data = _extended(source, data)
    recipe = Recipe(source, _table(source, data, "root", RootRecipe), _table(source, data, "disk", DiskRecipe))
    _check(recipe)
    return recipe


def _read(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{source}: {error}", hint="compare it with the file in the repository's history") from None


def _extended(source: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of a recipe on top of those of the recipe that it extends, which extends none."""
    base = _read(source.parent / str(data["extends"]))
    merged: dict[str, Any] = {}
    for name in ("root", "disk"):
        below, above = base.get(name, {}), data.get(name, {})
        if not isinstance(below, dict) or not isinstance(above, dict):
            raise UsageError(f"{source}: [{name}] is not a table")
        merged[name] = below | above
        lists = [table["packages"] for table in (below, above) if isinstance(table.get("packages"), list)]
        if lists:
            merged[name]["packages"] = [package for packages in lists for package in packages]
    return merged


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
