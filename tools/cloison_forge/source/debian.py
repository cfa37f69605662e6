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
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError, free_bytes, full_disk
from cloison_forge.source.versions import candidates, upstream


def fetch(line: Line, value: str = "") -> Origin:
    """Bring the line's linux-source package of version `value` ('' pinned, 'newest') into the cache.

    Raises `UnreachableError`, `NotOfferedError` or `RefusedError`.
    """
    require("apt-get", package="apt", why="for the debian origin")
    require("dpkg-deb", package="dpkg", why="for the debian origin")
    apt = PrivateApt(cache.kernels() / "apt")
    apt.update()
    offers = {offer.version: offer for offer in apt.offers(line.package)}
    trouble = ""
    for version in candidates(offers, line.name, line.package_version, value):
        for known in cache.cached(line, "debian"):
            if known.package_version == version:
                return known
        try:
            return _bring(line, apt, offers[version])
        except NotOfferedError as error:  # the index promises what the archive has no more
            trouble = trouble or error.message
    raise NotOfferedError(
        trouble or f"Debian does not offer {line.package} {value or line.package_version} to this machine",
        hint=f"it offers {', '.join(offers) or 'no version of it'}; see --origin",
    )


def _bring(line: Line, apt: PrivateApt, offer: Offer) -> Origin:
    place = cache.folder(line, "debian")
    needed = 2 * offer.size - sum(path.stat().st_size for path in place.glob("*.deb*"))
    if needed > free_bytes(place):
        raise full_disk(f"{offer.package} ({needed // 10**6} MB)", place)
    package = apt.download(offer, place)
    tar = place / f"{offer.package}_{offer.version.replace(':', '%3a')}.tar.xz"
    try:
        _unwrap(package, tar)
        tar_sha256 = tarball.digest(tar, tar.name)
    except BaseException as error:
        tar.unlink(missing_ok=True)
        if isinstance(error, RefusedError):
            package.unlink(missing_ok=True)
        raise
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
    with tempfile.TemporaryDirectory(dir=tar.parent, prefix=cache.SCRATCH) as work:
        run(["dpkg-deb", "-x", package, work])
        inside = [path for path in Path(work).glob("usr/src/linux-source-*.tar.*") if not path.is_symlink()]
        if len(inside) != 1:
            raise RefusedError(f"{package.name} is refused: it holds {len(inside)} source tarballs instead of one")
        shutil.move(inside[0], tar)
