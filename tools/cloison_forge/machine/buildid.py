# SPDX-License-Identifier: GPL-2.0-or-later
"""The build id of a kernel: the linker's hash over its contents, which the running kernel tells too."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_NT_GNU_BUILD_ID = 3
_SHT_NOTE = 7


def read(path: Path) -> str:
    """Return the build id of a 64-bit little-endian ELF file in hexadecimal, '' when it has none."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _find(data)
    except (OSError, ValueError, OverflowError, struct.error):
        return ""


def _find(data: mmap.mmap) -> str:
    if data[:6] != b"\x7fELF\x02\x01":
        return ""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    for number in range(count):
        kind, _flags, _address, offset, length = struct.unpack_from("<IQQQQ", data, table + number * size + 4)
        if kind == _SHT_NOTE:
            found = _in_notes(data[offset : offset + length])
            if found:
                return found
    return ""


def _in_notes(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        name, length, kind = struct.unpack_from("<III", notes, at)
        body = at + 12 + (name + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
            return notes[body : body + length].hex()
        at = body + (length + 3 & ~3)
    return ""


def of_image(image: Path) -> str:
    """Return the build id of a kernel from its bootable file, or from the vmlinux of the object folder beside it."""
    out = image.parent.parent
    for candidate in (image, out / "obj" / "vmlinux", out / "vmlinux"):
        found = read(candidate)
        if found:
            return found
    return ""
