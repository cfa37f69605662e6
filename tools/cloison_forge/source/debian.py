# SPDX-License-Identifier: GPL-2.0-or-later
"""Origin *debian*: the linux-source package, proved by apt's chain of signatures."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.run import require, run
from cloison_forge.source import cache, tarball
from cloison_forge.source.apt import Offer, PrivateApt
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError, disk_errors
from cloison_forge.source.tree import belongs_to

NEWEST = "newest"


def upstream(package_version: str) -> str:
    """Return the upstream part of a Debian version: '6.12.117' of '6.12.117-1~deb12u1'."""
    return package_version.rpartition("-")[0].rpartition(":")[2] or package_version


def wanted_version(line: Line, value: str) -> str:
    """Return the package version that `value` means; '' is the pinned one."""
    return value or line.package_version


def fetch(line: Line, value: str = "") -> Origin:
    """Bring the line's linux-source package of version `value` ('' pinned, 'newest') into the cache.

    Raises `UnreachableError`, `NotOfferedError` or `RefusedError`.
    """
    require("apt-get", package="apt", why="for the debian origin")
    require("dpkg-deb", package="dpkg", why="for the debian origin")
    apt = PrivateApt(cache.kernels() / "apt")
    apt.update()
    offer = choose(line, value, apt.offers(line.package))
    for known in cache.cached(line, "debian"):
        if known.package_version == offer.version:
            return known
    with disk_errors(f"{offer.package} {offer.version}", cache.kernels()):
        return _bring(line, apt, offer)


def choose(line: Line, value: str, offers: list[Offer]) -> Offer:
    """Pick the version `value` ('' pinned, 'newest') out of what Debian offers, newest first."""
    ours = [offer for offer in offers if belongs_to(offer.version, line.name)]
    if value == NEWEST:
        if ours:
            return ours[0]
        raise NotOfferedError(
            f"Debian offers no {line.package} here",
            hint="is this machine's Debian release one that carries it? Try --origin kernelorg",
        )
    version = wanted_version(line, value)
    found = next((offer for offer in ours if offer.version == version), None)
    if found is None:
        offered = ", ".join(offer.version for offer in ours) or "no version of it"
        raise NotOfferedError(f"Debian does not offer {line.package} {version} here", hint=f"it offers {offered}")
    return found


def _bring(line: Line, apt: PrivateApt, offer: Offer) -> Origin:
    place = cache.folder(line, "debian")
    package = apt.download(offer, place)
    tar = place / f"{offer.package}_{offer.version}.tar.xz"
    try:
        _unwrap(package, tar)
        tar_sha256 = tarball.digest(tar, tar.name)
    except BaseException:
        tar.unlink(missing_ok=True)
        raise
    finally:
        package.unlink(missing_ok=True)
    if offer.version == line.package_version and tar_sha256 != line.tar_sha256:
        kept = cache.quarantine(tar)
        raise RefusedError(
            f"{offer.package} {offer.version} is refused: the SHA-256 of its uncompressed tar is {tar_sha256}, "
            f"kernels.toml pins {line.tar_sha256}",
            hint=f"the tarball was put aside as {kept}",
        )
    ui.note("fetch", f"{offer.package} {offer.version}: signed by Debian, SHA-256 {tar_sha256[:16]}…")
    provenance: dict[str, object] = {
        "origin": "debian",
        "package": offer.package,
        "package_version": offer.version,
        "source_package": offer.source,
        "suite": offer.suite,
        "package_sha256": offer.sha256,
        "tar_sha256": tar_sha256,
        "keys": apt.signers(offer.suite),
        "verified": "apt: signed release file, index, package",
    }
    return cache.store(Origin("debian", upstream(offer.version), offer.version, tar, tar_sha256, provenance))


def _unwrap(package: Path, tar: Path) -> None:
    """Take the source tarball out of the package."""
    with tempfile.TemporaryDirectory(dir=tar.parent, prefix=".unwrap.") as work:
        run(["dpkg-deb", "-x", package, work])
        inside = sorted(Path(work).glob("usr/src/linux-source-*.tar.*"))
        inside = [path for path in inside if not path.is_symlink()]
        if len(inside) != 1:
            raise RefusedError(f"{package.name} is refused: it holds {len(inside)} source tarballs instead of one")
        shutil.move(inside[0], tar)
