# SPDX-License-Identifier: GPL-2.0-or-later
"""Build profiles: ``kconfig/profiles/<name>.toml`` names an architecture, a base and fragments."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_forge.kconfig.fragments import Setting, load, merge

ARCHITECTURES = ("um", "x86_64", "arm64", "riscv")
WITHOUT_SERIES = ("absent", "placebo")
VARIANTS = ("on", "off", *WITHOUT_SERIES)
_KEYS = {"description", "arch", "base", "extends", "fragments", "fragments_on"}


@dataclass(frozen=True)
class Profile:
    """What a kernel is built for.

    `arch` is the kernel's ARCH ('um', 'x86_64', ...). `base` gives the values of what no fragment
    mentions: 'allnoconfig', 'defconfig', or 'distro' (the distribution's own configuration).
    `fragments` are files, applied in order, those of extended profiles first; `fragments_on` follow in
    the variant 'on' alone.
    """

    name: str
    arch: str
    base: str
    fragments: tuple[Path, ...]
    description: str = ""
    extends: tuple[str, ...] = ()
    fragments_on: tuple[Path, ...] = ()

    @property
    def lineage(self) -> tuple[str, ...]:
        """The name of the profile, then those of the profiles that it extends."""
        return (self.name, *self.extends)

    def settings(self, variant: str = "on", root: Path | None = None) -> dict[str, Setting]:
        """Return what this profile asks for in a variant; contradictory fragments are refused."""
        top = root or project().root
        files = [*self.fragments]
        if variant not in WITHOUT_SERIES:
            files.append(top / "kconfig" / "variants" / f"{variant}.config")
        if variant == "on":
            files.extend(self.fragments_on)
        return merge(setting for file in files for setting in load(file, top))


def close_matches(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ', did you mean …?' with the names closest to `name`, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)
    return f", did you mean {' or '.join(found)}?" if found else ""


def names(folder: Path | None = None) -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in (folder or project().kconfig / "profiles").glob("*.toml"))


def get(name: str, folder: Path | None = None) -> Profile:
    """Read the profile called `name`; an unknown one ends in one line with close matches."""
    return _get(name, folder or project().kconfig / "profiles", ())


def _get(name: str, folder: Path, above: tuple[str, ...]) -> Profile:
    known = names(folder)
    if name not in known:
        raise UsageError(
            f"no profile '{name}'{close_matches(name, known)}", hint=f"profiles: {', '.join(known) or 'none'}"
        )
    if name in above:
        raise UsageError(f"profile {name} extends itself: {' -> '.join((*above, name))}")
    path = folder / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from None
    if unknown := sorted(set(data) - _KEYS):
        raise UsageError(f"{path}: unknown key '{unknown[0]}'{close_matches(unknown[0], _KEYS)}")
    files, files_on = (tuple(folder / file for file in data.get(key, [])) for key in ("fragments", "fragments_on"))
    for file in (*files, *files_on):
        if not file.is_file():
            raise UsageError(f"{path}: there is no fragment {file.name}")
    if data.get("extends"):
        below = _get(data["extends"], folder, (*above, name))
        return Profile(
            name=name,
            arch=data.get("arch", below.arch),
            base=data.get("base", below.base),
            fragments=(*below.fragments, *files),
            description=data.get("description", ""),
            extends=below.lineage,
            fragments_on=(*below.fragments_on, *files_on),
        )
    profile = Profile(
        name=name,
        arch=data.get("arch", ""),
        base=data.get("base", "allnoconfig"),
        fragments=files,
        description=data.get("description", ""),
        fragments_on=files_on,
    )
    if profile.arch not in ARCHITECTURES:
        raise UsageError(f"{path}: arch must be one of {', '.join(ARCHITECTURES)}, it is '{profile.arch}'")
    return profile
