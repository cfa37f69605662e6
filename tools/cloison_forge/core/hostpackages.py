# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian packages that this project needs, as listed in `tools/host-packages.txt`.

The launcher reads the same file with the same rules, before there is a Python.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project


@dataclass(frozen=True)
class HostPackage:
    """A package, how to see that it is installed (a command or a path pattern), and why it is needed."""

    package: str
    probe: str
    why: str

    def found(self) -> str:
        """Return the path that proves the package installed, or an empty string."""
        if self.probe.startswith("/"):
            return next(iter(sorted(glob.glob(self.probe))), "")  # noqa: PTH207 (an absolute pattern)
        return shutil.which(self.probe, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or ""


def load(path: Path | None = None) -> list[HostPackage]:
    """Read the list; a malformed line is refused with its number."""
    source = path or project().root / "tools" / "host-packages.txt"
    packages = []
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 3 or not all(fields):
            raise UsageError(f"{source}:{number}: not 'package | probe | why'", hint=line)
        packages.append(HostPackage(*fields))
    return packages
