# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's own configuration, which the profile ``distro`` starts from.

Debian ships it in the package ``linux-config-X.Y``, compressed, and beside each installed kernel.
"""

from __future__ import annotations

import lzma
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.stage import digest_bytes

VARIABLE = "CLOISON_DISTRO_CONFIG"
_DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64", "riscv": "riscv64"}


@dataclass(frozen=True)
class DistroConfig:
    """A configuration file: where it was found, its text, and the hash of that text."""

    path: Path
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return digest_bytes(self.text.encode())


def candidates(version: str, arch: str, root: Path = Path("/")) -> list[Path]:
    """Return the files that may hold the configuration for kernel line `version` ('6.12'), best first."""
    debian = _DEBIAN_ARCH.get(arch, arch)
    found = [root / "usr/src" / f"linux-config-{version}" / f"config.{debian}_none_{debian}.xz"]
    found += sorted((root / "boot").glob(f"config-{version}.*-{debian}"), reverse=True)
    found += sorted((root / "boot").glob(f"config-{version}+*-{debian}"), reverse=True)
    return found


@lru_cache
def distro_config(version: str, arch: str) -> DistroConfig:
    """Find and read the distribution's configuration for kernel line `version` ('6.12').

    ``CLOISON_DISTRO_CONFIG`` names another file. Nothing found is a `UsageError` that says what to install.
    """
    chosen = os.environ.get(VARIABLE)
    paths = [Path(chosen)] if chosen else candidates(version, arch)
    for path in paths:
        if path.is_file():
            try:
                raw = path.read_bytes()
                text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode()
            except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} is no kernel configuration: {error}") from None
            if "CONFIG_" not in text:
                raise UsageError(f"{path} is no kernel configuration: it sets nothing")
            return DistroConfig(path, text)
    if chosen:
        raise UsageError(f"{VARIABLE} names {chosen}, which does not exist")
    raise UsageError(
        f"no configuration of the distribution for {version} ({arch}) on this machine",
        hint=f"apt-get install linux-config-{version}, or let {VARIABLE} name a .config",
    )
