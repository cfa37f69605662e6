# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of a built kernel, made by the kernel's own ``bindeb-pkg`` from the objects that are there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.kconfig.api import Configured, PatchedTree, folder_name
from cloison_forge.kernel import api, identity

TOOLS = {"dpkg-buildpackage": "dpkg-dev", "dh_listpackages": "debhelper", "rsync": "rsync", "kmod": "kmod"}


def debian(line: Line, applied: PatchedTree, configured: Configured, *, jobs: int = 0) -> list[Path]:
    """Build the kernel and pack it; return the ``.deb`` files in ``kernel/<profile>/deb/``, the image first.

    The version is that of the kernel with revision 1, so that packing compiles nothing and the kernel
    inside is the one of ``artifacts/``; the changelog bears the date of the packing.
    """
    if configured.profile.arch == "um":
        raise UsageError(
            f"profile {configured.profile.name} is a kernel that runs as a process; it has no package",
            hint="choose --profile vm or distro",
        )
    for tool, package in TOOLS.items():
        require(tool, package=package, why="to make Debian packages")
    kernel = api.build(line, applied, configured, jobs=jobs)
    name = folder_name(configured.profile.name, configured.variant)
    out = project().line(line.name) / "kernel" / name
    words = [
        *identity.make_words(applied.path, out / "obj", configured.profile.arch),
        f"-j{jobs or os.cpu_count() or 1}",
        f"KDEB_PKGVERSION={kernel.release.partition('-')[0]}-1",
        "DPKG_FLAGS=-d",
        "bindeb-pkg",
    ]
    env = {**identity.environment(project().line(line.name)), "KDEB_CHANGELOG_DIST": "unstable"}
    env |= {"DEBEMAIL": "developers@cloison.invalid", "DEBFULLNAME": "Cloison developers"}
    log = project().line(line.name) / "logs" / f"deb-{name}.log"
    with locked(out, f"the kernel {name}"), ui.step("kernel", f"{name}: making Debian packages"):
        for old in out.glob("*.deb"):
            old.unlink()
        run(words, env=env, log=log, on_line=lambda _: None)
        made = sorted(out.glob("*.deb"), key=lambda path: (not path.name.startswith("linux-image"), path.name))
        if not made:
            raise BuildError("bindeb-pkg ended well and made no package", hint=f"look into {log}")
        return _publish(made, out)


def _publish(made: list[Path], out: Path) -> list[Path]:
    """Move the packages into the folder ``deb``, which holds one build's packages and nothing else."""
    beside = Path(tempfile.mkdtemp(dir=out, prefix=".deb."))
    for path in made:
        path.replace(beside / path.name)
    for rest in {*out.glob("linux-*.buildinfo"), *out.glob("linux-*.changes")}:
        rest.unlink()
    target = out / "deb"
    shutil.rmtree(target, ignore_errors=True)
    beside.chmod(0o755)
    beside.replace(target)
    return [target / path.name for path in made]
