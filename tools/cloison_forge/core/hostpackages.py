# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian packages that this project needs, as listed in `tools/host-packages.txt`.

The launcher reads the same file with the same rules, before there is a Python. What is needed on demand only, it
leaves out unless told otherwise; `demand` then names it to whoever asks for that purpose.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import ToolMissingError, UsageError
from cloison_forge.core.paths import project

_ON_DEMAND = "on demand"


@dataclass(frozen=True)
class HostPackage:
    """A package, how to see that it is installed (a command or a path pattern), and why it is needed."""

    package: str
    probe: str
    why: str
    on_demand: bool = False

    @property
    def purpose(self) -> str:
        """What needs it, without the explanation."""
        return self.why.split(":")[0]

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
        if len(fields) not in (3, 4) or not all(fields) or fields[3:] not in ([], [_ON_DEMAND]):
            raise UsageError(f"{source}:{number}: not 'package | probe | why', with '| {_ON_DEMAND}' or not", hint=line)
        packages.append(HostPackage(fields[0], fields[1], fields[2], on_demand=len(fields) == 4))
    return packages


def lacking(purpose: str, path: Path | None = None) -> list[str]:
    """Return the packages that a purpose, such as ``lane bochs``, needs on demand and that are not installed."""
    return [entry.package for entry in load(path) if entry.on_demand and entry.purpose == purpose and not entry.found()]


def demand(purpose: str, path: Path | None = None) -> None:
    """Fail and name the packages that a purpose lacks."""
    if names := " ".join(lacking(purpose, path)):
        raise ToolMissingError(
            f"{purpose} needs what is not installed: {names}",
            hint=f"apt-get install {names}, or CLOISON_INSTALL=all ./invoke doctor",
        )
