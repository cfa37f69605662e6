# SPDX-License-Identifier: GPL-2.0-or-later
"""Origin *kernelorg*: the release tarball, proved by a kernel developer's signature over the uncompressed tar."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.run import require
from cloison_forge.core.stage import digest_file
from cloison_forge.source import cache, keyring, tarball
from cloison_forge.source.download import Wanted, download, fetch_bytes, session
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError, disk_errors
from cloison_forge.source.signature import Detached, UnknownKeyError, clearsigned
from cloison_forge.source.versions import candidates, numbers

BASE = "https://cdn.kernel.org/pub/linux/kernel"
_LARGEST = 1 << 30  # bytes of a compressed kernel tarball, with much room


def base() -> str:
    """Return where kernel.org's ``v6.x`` folders are: ``CLOISON_KERNELORG`` names a mirror."""
    return (os.environ.get("CLOISON_KERNELORG") or BASE).rstrip("/")


def fetch(line: Line, value: str = "", *, keys: Path | None = None) -> Origin:
    """Bring the tarball of an upstream version ('' pinned, 'newest') into the cache.

    `keys` is the keyring that decides, the kernel developers' by default. Raises `UnreachableError`,
    `NotOfferedError` or `RefusedError`.
    """
    require("gpgv", why="to check the signature of kernel.org's tarballs")
    place = cache.folder(line, "kernelorg")
    with disk_errors("kernel.org's tarball", place):
        place.mkdir(parents=True, exist_ok=True)
        keys = keys or keyring.developers()
        http = session()
        folder = f"{base()}/v{line.name.partition('.')[0]}.x"
        sums = _sums(fetch_bytes(f"{folder}/sha256sums.asc", "kernel.org's sha256sums.asc", http, 1 << 23), place, keys)
        offers = sorted(sums, key=numbers, reverse=True)
        trouble = ""
        for version in candidates(offers, line.name, line.version, value):
            for known in cache.cached(line, "kernelorg"):
                if known.version == version:
                    return known
            name = f"linux-{version}.tar"
            try:
                signature = fetch_bytes(f"{folder}/{name}.sign", f"kernel.org's {name}.sign", http, 1 << 16)
                wanted = Wanted(
                    f"{folder}/{name}.xz", place / f"{name}.xz", f"{name}.xz", sha256=sums[version], limit=_LARGEST
                )
                return _bring(version, download(wanted, http), signature, keys)
            except NotOfferedError as error:
                trouble = trouble or error.message
        raise NotOfferedError(
            trouble or f"kernel.org does not offer Linux {value or line.version}",
            hint=f"the newest of the line there: {next(candidates(offers, line.name, '', 'newest'), 'none')}",
        )


def _sums(data: bytes, place: Path, keys: Path) -> dict[str, str]:
    """Read the hashes of the tarballs, by version.

    The file is signed by a machine's key. A good signature or one by a key we do not hold lets the hashes
    serve as what they are here, a check of the transfer; a bad signature is refused.
    """
    kept = place / "sha256sums.asc"
    kept.write_bytes(data)
    try:
        text, _ = clearsigned(kept, [keys], "kernel.org's sha256sums.asc")
    except UnknownKeyError:
        text = data.decode("utf-8", "replace")
    finally:
        kept.unlink(missing_ok=True)
    found = re.findall(r"^([0-9a-f]{64})  linux-(\d+\.\d+(?:\.\d+)?)\.tar\.xz$", text, re.M)
    if not found:
        raise RefusedError("kernel.org's sha256sums.asc is refused: it lists no kernel tarball")
    return {version: sha256 for sha256, version in found}


def _bring(version: str, tar: Path, signature_data: bytes, keys: Path) -> Origin:
    """Check the developer's signature over the uncompressed tar; a tarball without a good one is removed."""
    signature_file = tar.with_name(tar.name + ".sign")
    signature_file.write_bytes(signature_data)
    try:
        detached = Detached(signature_file, keys, tar.name)
        with detached.feed:
            tar_sha256 = tarball.digest(tar, tar.name, [detached.feed])
            signature = detached.result()
    except RefusedError as error:
        kept = cache.quarantine(tar)
        raise RefusedError(error.message, hint=f"it was put aside as {kept} and is not used") from None
    except BaseException:
        tar.unlink(missing_ok=True)
        raise
    finally:
        signature_file.unlink(missing_ok=True)
    ui.note("fetch", f"{tar.name}: signed by {signature.user} on {signature.day}")
    provenance: dict[str, object] = {
        "origin": "kernelorg",
        "version": version,
        "file_sha256": digest_file(tar),
        "tar_sha256": tar_sha256,
        "key": signature.fingerprint,
        "signer": signature.user,
        "signed": signature.day,
        "keyring_sha256": digest_file(keys),
        "verified": "gpgv: developer's signature over the uncompressed tar",
    }
    return cache.store(Origin("kernelorg", version, "", tar, tar_sha256, provenance))
