# SPDX-License-Identifier: GPL-2.0-or-later
"""Let the kernel's own ``conf`` turn a request into a complete ``.config``."""

from __future__ import annotations

from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.run import run
from cloison_forge.kconfig.distro import LineLike, distro_config
from cloison_forge.kconfig.profiles import Profile
from cloison_forge.kconfig.tree import NEUTRAL, cross_prefix

BASES = ("allnoconfig", "defconfig", "distro")


def base_digest(profile: Profile, line: LineLike, *, offline: bool = False) -> str:
    """Return what the base of a profile depends on beyond the tree: the distribution's file, or nothing."""
    return distro_config(line, profile.arch, offline=offline).sha256 if profile.base == "distro" else ""


def resolve(tree: Path, tool: Path, profile: Profile, request: Path, config: Path, line: LineLike, log: Path) -> str:
    """Write `config`, the complete configuration that `request` and the base of the profile lead to.

    It returns the text of the base, empty for allnoconfig. `tool` is an object folder in which the
    kernel's ``conf`` program is compiled once.
    """
    if profile.base not in BASES:
        raise UsageError(f"profile {profile.name}: no base '{profile.base}'", hint=f"bases: {', '.join(BASES)}")
    tool.mkdir(parents=True, exist_ok=True)
    words = ["make", "-s", "-C", str(tree), f"O={tool}", f"ARCH={profile.arch}", "LOCALVERSION="]
    if prefix := cross_prefix(profile.arch):
        words.append(f"CROSS_COMPILE={prefix}")
    environment = {**NEUTRAL, "KCONFIG_CONFIG": str(config), "LC_ALL": "C"}

    def make(target: str, **more: str) -> None:
        run([*words, target], env={**environment, **more}, log=log)

    if profile.base == "allnoconfig":
        make("allnoconfig", KCONFIG_ALLCONFIG=str(request))
        return ""
    if profile.base == "defconfig":
        make("defconfig")
        base = config.read_text(encoding="utf-8")
    else:
        base = distro_config(line, profile.arch).text
    config.write_text(base + "\n" + request.read_text(encoding="utf-8"), encoding="utf-8")
    make("olddefconfig")
    return base
