# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's own configuration, which the profile ``distro`` starts from.

Debian ships it, compressed, in the package ``linux-config-X.Y``. It is taken from the file that
``CLOISON_DISTRO_CONFIG`` names, from the installed package, or from the package that apt's signature
chain brings into the user's cache; without any of them from a kernel of this line below ``/boot``.
"""

from __future__ import annotations

import lzma
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from cloison_forge.core import ui
from cloison_forge.core.errors import ForgeError, UsageError
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import atomic_file, digest_bytes

VARIABLE = "CLOISON_DISTRO_CONFIG"
_DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64", "riscv": "riscv64"}


class LineLike(Protocol):
    """What is needed of a kernel line (`cloison_forge.core.lines.Line`)."""

    @property
    def name(self) -> str:
        """Such as '6.12'."""

    @property
    def package_version(self) -> str:
        """Debian's version of the pinned source, such as '6.12.117-1~deb12u1'."""

    def __hash__(self) -> int:
        """Lines are constants."""


@dataclass(frozen=True)
class DistroConfig:
    """A distribution's configuration: where it came from, in words, and its text."""

    origin: str
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return digest_bytes(self.text.encode())


def read(path: Path, origin: str) -> DistroConfig:
    """Read a configuration, compressed by xz or not; what is none is refused."""
    try:
        raw = path.read_bytes()
        text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no kernel configuration: {error}") from None
    if "CONFIG_" not in text:
        raise UsageError(f"{path} is no kernel configuration: it sets nothing")
    return DistroConfig(origin, text)


def packaged(line: str, arch: str, root: Path = Path("/")) -> Path:
    """Return where the package of line '6.12' puts the configuration of `arch`, below `root`."""
    debian = _DEBIAN_ARCH.get(arch, arch)
    return root / "usr/src" / f"linux-config-{line}" / f"config.{debian}_none_{debian}.xz"


def booted(line: str, arch: str, root: Path = Path("/")) -> list[Path]:
    """Return the configurations of installed kernels of that line, newest last."""
    debian = _DEBIAN_ARCH.get(arch, arch)
    return sorted(path for mark in ".+" for path in (root / "boot").glob(f"config-{line}{mark}*-{debian}"))


@lru_cache
def distro_config(line: LineLike, arch: str, root: Path = Path("/"), *, offline: bool = False) -> DistroConfig:
    """Find and read the distribution's configuration of a kernel line; `UsageError` says what to do without one."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not Path(chosen).is_file():
            raise UsageError(f"{VARIABLE} names {chosen}, which does not exist")
        return read(Path(chosen), f"{VARIABLE}={Path(chosen).name}")
    installed = packaged(line.name, arch, root)
    if installed.is_file():
        return read(installed, f"installed package linux-config-{line.name}")
    try:
        return _downloaded(line, arch, offline)
    except ForgeError as error:
        kernels = booted(line.name, arch, root)
        if kernels:
            ui.warn(f"{error.message}; taking {kernels[-1]}")
            return read(kernels[-1], kernels[-1].name)
        raise UsageError(
            f"no configuration of the distribution for {line.name} ({arch}): {error.message}",
            hint=f"apt-get install linux-config-{line.name}, or let {VARIABLE} name a .config",
        ) from None


def _downloaded(line: LineLike, arch: str, offline: bool) -> DistroConfig:
    """Take the configuration from the cache, or bring Debian's package: the pinned version, else the newest."""
    from cloison_forge.source.apt import PrivateApt
    from cloison_forge.source.model import NotOfferedError, UnreachableError

    folder = project().downloads / "config"
    package = f"linux-config-{line.name}"
    with locked(folder, "the cache of distribution configurations"):
        kept = sorted(folder.glob(f"{package}_*_{arch}.config"))
        pinned = folder / f"{package}_{line.package_version}_{arch}.config"
        if kept:
            best = pinned if pinned in kept else kept[-1]
            return read(best, best.name)
        if offline:
            raise UnreachableError(f"--offline: the cache holds no {package}")
        apt = PrivateApt(project().downloads / "apt-config")
        apt.update()
        offers = apt.offers(package)
        if not offers:
            raise NotOfferedError(f"Debian offers no {package} to this machine")
        offer = next((offer for offer in offers if offer.version == line.package_version), offers[0])
        with tempfile.TemporaryDirectory(dir=folder, prefix=".work.") as work:
            deb = apt.download(offer, Path(work))
            run(["dpkg-deb", "-x", deb, work])
            found = read(packaged(line.name, arch, Path(work)), f"{package} {offer.version}")
        target = folder / f"{package}_{offer.version.replace(':', '%3a')}_{arch}.config"
        with atomic_file(target) as beside:
            beside.write_text(found.text, encoding="utf-8")
        ui.note("kconfig", f"{package} {offer.version}: signed by Debian")
        return read(target, target.name)
