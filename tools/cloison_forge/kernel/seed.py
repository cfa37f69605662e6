# SPDX-License-Identifier: GPL-2.0-or-later
"""Begin a build with the objects of a sibling: another profile of the same tree, with almost the same configuration.

kbuild knows for every object which options it was compiled with, and the compiler cache does not: to the cache
one more option in `autoconf.h` is another input of every file. So a folder of objects that does not exist yet
is filled from the nearest sibling, and make then compiles what depends on the options that differ.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cloison_forge.kernel.identity import SOURCE_LINK

NEAR = 48
"""At most so many lines of two configurations may differ; beyond, copying costs more than it spares."""


def settings(config: Path) -> set[str]:
    """Return the lines of a configuration that say something: `CONFIG_A=y`, `# CONFIG_B is not set`."""
    try:
        text = config.read_text(encoding="utf-8")
    except OSError:
        return set()
    return {line for line in text.splitlines() if "CONFIG_" in line}


def nearest(obj: Path, config: Path, tree: Path, extraction: str) -> Path | None:
    """Return the folder of objects to begin with, or None.

    It was compiled whole, from the same `tree` and the same extraction of it, and its configuration differs from
    `config` in the fewest lines. Another tree will not do, even with the same files: only the times of these
    tell make what has changed. The options that change every command line or every structure are many lines, or are
    seen by make, which then compiles all: a bad choice costs time, never a wrong object.
    """
    wanted = settings(config)
    found: list[tuple[int, str, Path]] = []
    for other in obj.parent.parent.glob("*/obj"):
        if other == obj or not (other / "vmlinux").is_file() or not (other.parent / ".stamp.json").is_file():
            continue
        if (other.parent / SOURCE_LINK).resolve() != tree.resolve():
            continue
        if (other / ".cloison-source").read_text(encoding="utf-8") != extraction:
            continue
        if _arch(other) != _line(config, "# Linux/"):
            continue
        differ = len(wanted ^ settings(other / ".config"))
        if differ <= NEAR:
            found.append((differ, other.parent.name, other))
    return min(found)[2] if found else None


def _arch(obj: Path) -> str:
    return _line(obj / ".config", "# Linux/")


def _line(config: Path, start: str) -> str:
    """Return the line of a configuration that names architecture and version."""
    with config.open(encoding="utf-8") as lines:
        return next((line.split(" Kernel")[0] for line in lines if line.startswith(start)), "")


def plant(source: Path, target: Path) -> None:
    """Copy the objects of `source` to `target`, with their times; saved command lines get the new place.

    The copy is made beside `target` and renamed, so that an interrupted one is never taken for objects.
    """
    beside = target.with_name(".seed")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, symlinks=True)
    old, new = str(source).encode(), str(target).encode()
    for saved in beside.rglob(".*.cmd"):
        data = saved.read_bytes()
        if old in data:
            saved.write_bytes(data.replace(old, new))
    for name in (".config", ".config.old"):
        (beside / name).unlink(missing_ok=True)
    if target.exists():
        shutil.rmtree(target)
    beside.replace(target)
