# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel developers' public keys, as gpgv wants them."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cloison_forge.core.stage import atomic_file, digest_bytes
from cloison_forge.source import cache
from cloison_forge.source.model import RefusedError

DEVELOPERS = Path(__file__).parent / "data" / "kernel-developers.asc"
_BLOCK = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[^\n]*: [^\n]*\n)*\n(.*?)\n(?:=[A-Za-z0-9+/]{4}\n)?-----END PGP", re.S
)


def dearmoured(armoured: str, what: str) -> bytes:
    """Return the binary keys of an ASCII-armoured key file; `RefusedError` if there are none."""
    try:
        found = b"".join(base64.b64decode(block, validate=False) for block in _BLOCK.findall(armoured))
    except binascii.Error:
        found = b""
    if not found:
        raise RefusedError(f"{what} holds no public key")
    return found


def developers() -> Path:
    """Return the kernel developers' keyring in gpgv's format, written to the cache by its content."""
    data = dearmoured(DEVELOPERS.read_text(encoding="ascii"), DEVELOPERS.name)
    place = cache.kernels() / f"developers-{digest_bytes(data)[:16]}.gpg"
    if not place.is_file() or place.read_bytes() != data:
        with atomic_file(place) as beside:
            beside.write_bytes(data)
    return place
