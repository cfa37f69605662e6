# SPDX-License-Identifier: GPL-2.0-or-later
"""Origin *orig*: the tarball on which Debian builds its kernel, without Debian's patches.

apt's chain of signatures covers it. The source's description (``.dsc``) is signed by a person as well: when that key is
among the kernel developers' keys, or in Debian's keyring of its developers where that is installed, the
signature is recorded; a bad one is refused in any case.
"""

from __future__ import annotations

import re
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.run import require
from cloison_forge.source import cache, keyring, tarball
from cloison_forge.source.apt import PrivateApt, Uri, parse_uris
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError
from cloison_forge.source.signature import UnknownKeyError, clearsigned
from cloison_forge.source.versions import candidates, newest_first, upstream

DEBIAN_KEYRINGS = tuple(Path("/usr/share/keyrings") / name for name in ("debian-keyring.gpg", "debian-maintainers.gpg"))


def fetch(line: Line, value: str = "") -> Origin:
    """Bring Debian's orig tarball of an upstream version ('' pinned, 'newest') into the cache.

    Raises `UnreachableError`, `NotOfferedError` or `RefusedError`.
    """
    require("apt-get", package="apt", why="for the orig origin")
    apt = PrivateApt(cache.kernels() / "apt-src", kind="deb-src")
    apt.update()
    offers: dict[str, tuple[str, str, str]] = {}
    for source in (f"linux-{line.name}", "linux"):
        listed = dict(apt.listed(source))
        for version in newest_first(listed):
            offers.setdefault(upstream(version), (source, version, listed[version]))
    trouble = ""
    for version in candidates(offers, line.name, line.version, value):
        for known in cache.cached(line, "orig"):
            if known.version == version:
                return known
        try:
            return _bring(line, apt, *offers[version])
        except NotOfferedError as error:
            trouble = trouble or error.message
    raise NotOfferedError(
        trouble or f"Debian does not offer the source of Linux {value or line.version} to this machine",
        hint=f"it lists {', '.join(v for v in offers if v.startswith(line.name)) or 'none of this line'}; see --origin",
    )


def _bring(line: Line, apt: PrivateApt, source: str, version: str, suite: str) -> Origin:
    place = cache.folder(line, "orig")
    place.mkdir(parents=True, exist_ok=True)
    words = ["apt-get", "source", "-q", "--download-only", f"{source}={version}"]
    uris = parse_uris(apt.run(*words[:2], "-qq", "--print-uris", *words[3:], cwd=place).output)
    description = _one(uris, r"\.dsc$", source, version)
    wanted = _one(uris, r"\.orig\.tar\.\w+$", source, version)
    dsc = apt.get(description, place, [*words, "--dsc-only"])
    try:
        signature = _signature(dsc, wanted)
    finally:
        dsc.unlink(missing_ok=True)
    tar = apt.get(wanted, place, [*words, "--tar-only"])
    tar_sha256 = tarball.digest(tar, tar.name)
    ui.note("fetch", f"{tar.name}: signed by Debian, SHA-256 {tar_sha256[:16]}…")
    provenance: dict[str, object] = {
        "origin": "orig",
        "source_package": source,
        "source_version": version,
        "suite": suite,
        "file_sha256": wanted.sha256,
        "tar_sha256": tar_sha256,
        "keys": apt.signers(suite),
        "dsc_signature": signature,
        "verified": "apt: signed release file, index, file",
    }
    return cache.store(Origin("orig", upstream(version), "", tar, tar_sha256, provenance))


def _one(uris: list[Uri], pattern: str, source: str, version: str) -> Uri:
    found = [uri for uri in uris if re.search(pattern, uri.name) and uri.sha256]
    if len(found) != 1:
        raise NotOfferedError(f"the source {source} {version} lists {len(found)} files like {pattern} instead of one")
    return found[0]


def _signature(dsc: Path, wanted: Uri) -> str:
    """Return whose signature the description carries; refuse a bad one, or one over another tarball."""
    keyrings = [keyring.developers(), *(path for path in DEBIAN_KEYRINGS if path.is_file())]
    try:
        text, signature = clearsigned(dsc, keyrings, dsc.name)
    except UnknownKeyError:
        return "not checked: its key is not in the keyring"
    if f" {wanted.sha256} {wanted.size} {wanted.name}" not in text:
        raise RefusedError(f"{wanted.name} is refused: the signed {dsc.name} names another file")
    return f"{signature.fingerprint} {signature.user}"
