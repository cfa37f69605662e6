# SPDX-License-Identifier: GPL-2.0-or-later
"""Tarballs as streams: decompressed, hashed and given to tar or gpgv in one pass, never trusted before the end."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from cloison_forge.core import ui
from cloison_forge.core.errors import CommandError
from cloison_forge.core.run import Fed
from cloison_forge.source.model import RefusedError, full_disk, tells_full

CHUNK = 1 << 20
_MAGIC = ((b"\xfd7zXZ\x00", "xz"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))


def compression(path: Path) -> str:
    """Return 'xz', 'gzip', 'bzip2', 'zstd' or '' by what the file begins with."""
    with path.open("rb") as stream:
        head = stream.read(8)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def _decompressed(raw: BinaryIO, kind: str, what: str) -> BinaryIO:
    if kind == "xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if kind == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if kind == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if kind:
        raise RefusedError(f"{what}: {kind} is not supported", hint="recompress it with xz, or give the plain tar")
    return raw


def stream(path: Path, what: str, doing: str) -> Iterator[bytes]:
    """Yield the uncompressed contents, on a terminal with a progress bar over the bytes of the file.

    A damaged or truncated file raises `RefusedError`, at the latest at its end.
    """
    bar = ui.Progress("fetch", f"{doing} {what}", path.stat().st_size) if ui.interactive() else None
    with path.open("rb") as raw:
        source = _decompressed(raw, compression(path), what)
        try:
            while data := source.read(CHUNK):
                if bar is not None:
                    bar.update(raw.tell())
                yield data
        except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RefusedError(f"{what} is refused: it is damaged or truncated ({error})") from None
        finally:
            if bar is not None:
                bar.finish()


def digest(path: Path, what: str, feeds: Sequence[Fed] = ()) -> str:
    """Return the SHA-256 of the uncompressed contents, which also go to every command of `feeds`."""
    total = hashlib.sha256()
    for data in stream(path, what, "checking"):
        total.update(data)
        for feed in feeds:
            feed.write(data)
    return total.hexdigest()


def extract(path: Path, what: str, folder: Path, tar_sha256: str) -> None:
    """Extract into `folder`, without the tarball's top folder, and prove the contents on the way.

    What was extracted is only good when this returns; `RefusedError` says that the uncompressed tar
    is not the one with `tar_sha256`.
    """
    total = hashlib.sha256()
    argv = ["tar", "-x", "-p", "-f", "-", "-C", str(folder), "--strip-components=1", "--no-same-owner"]
    with Fed(argv) as tar:
        for data in stream(path, what, "extracting"):
            total.update(data)
            tar.write(data)
        result = tar.finish(check=False)
    if result.status != 0 and tells_full(result.output):
        raise full_disk(f"extraction of {what}", folder)
    if total.hexdigest() != tar_sha256:
        raise RefusedError(
            f"{what} is refused: the SHA-256 of the uncompressed tar is {total.hexdigest()}, expected {tar_sha256}"
        )
    if result.status != 0:
        last = (result.output.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"{what} cannot be extracted: {last}", status_code=result.status)
