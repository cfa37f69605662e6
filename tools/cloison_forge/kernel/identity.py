# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build is made with: the compiler, the fixed identity, and the words given to make.

Same inputs give the same bytes because nothing of the build host reaches an object: user, host, time
and build number are fixed, and the compiler sees the source only as ``../src``, a symbolic link beside
the object folder. The same path on every machine and for every checkout also makes one compiler cache
serve them all, the tree without the series included.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.kconfig.tree import NEUTRAL, cross_prefix

SOURCE_LINK = "src"
TARGETS = {"um": "linux", "x86_64": "bzImage", "arm64": "Image", "riscv": "Image"}
IMAGES = {
    "um": "linux",
    "x86_64": "arch/x86/boot/bzImage",
    "arm64": "arch/arm64/boot/Image",
    "riscv": "arch/riscv/boot/Image",
}


@lru_cache
def compiler(arch: str) -> str:
    """Return compiler and linker of `arch` with their versions, in one line."""
    prefix = cross_prefix(arch)
    package = f"gcc-{prefix.rstrip('-')}" if prefix else "gcc"
    names = []
    for tool, owner in ((f"{prefix}gcc", package), (f"{prefix}ld", package.replace("gcc", "binutils", 1))):
        require(tool, package=owner, why="to compile the kernel")
        names.append(run([tool, "--version"], env={"LC_ALL": "C"}).output.splitlines()[0])
    return ", ".join(names)


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a build below `folder`: the fixed identity and the compiler cache.

    ``CCACHE_DEPEND`` spares the second preprocessor run of each miss; ``CCACHE_BASEDIR`` covers the
    few absolute paths that kbuild still makes. A user's own ``CCACHE_DIR`` or ``CCACHE_MAXSIZE`` wins.
    """
    return {
        **NEUTRAL,
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
        "KBUILD_BUILD_USER": "cloison",
        "KBUILD_BUILD_HOST": "cloison",
        "KBUILD_BUILD_VERSION": "1",
        "LC_ALL": "C",
        "TZ": "UTC",
        "CCACHE_DIR": os.environ.get("CCACHE_DIR") or str(project().ccache),
        "CCACHE_MAXSIZE": os.environ.get("CCACHE_MAXSIZE") or "10G",
        "CCACHE_BASEDIR": str(folder),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_DEPEND": "1",
        "CCACHE_INODECACHE": "1",
        "CCACHE_COMPILERCHECK": "content",
    }


def make_words(tree: Path, obj: Path, arch: str) -> list[str]:
    """Return the make command line, without targets, that compiles `tree` into `obj`.

    `obj` must have the link ``../src`` to the tree (see `link_source`).
    """
    require("ccache", why="so that a second build takes a minute and not ten")
    prefix = cross_prefix(arch)
    words = [
        "make",
        "-C",
        str(tree),
        f"O={obj}",
        f"abs_srctree=../{SOURCE_LINK}",
        f"ARCH={arch}",
        "LOCALVERSION=",
        f"CC=ccache {prefix}gcc",
        f"KCFLAGS=-ffile-prefix-map=../{SOURCE_LINK}/= -ffile-prefix-map={obj}/=",
    ]
    if prefix:
        words.append(f"CROSS_COMPILE={prefix}")
    return words


def link_source(tree: Path, obj: Path) -> None:
    """Make ``../src`` beside `obj` point to the tree, relative, so that the whole build folder may move."""
    link = obj.parent / SOURCE_LINK
    target = os.path.relpath(tree, obj.parent)
    if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 the text, not a Path
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
