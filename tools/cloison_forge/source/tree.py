# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel source tree is: its version, and one hash over its names, kinds and contents."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cloison_forge.source.model import RefusedError

STAMP = ".cloison-source.json"


def tree_sha256(root: Path) -> str:
    """Return the hash of a tree, independent of time, owner, umask and the order of folders.

    It is the SHA-256 over one record a file, sorted by the bytes of the path: mode as git has it
    (100644, 100755, 120000), SHA-256 of the contents (of the target, for a symbolic link), path, and a
    NUL. Empty folders do not count, nor does the toolkit's own stamp in the top folder.
    """
    from concurrent.futures import ThreadPoolExecutor

    folders = [os.fsencode(root)]
    for folder in folders:
        folders.extend(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    base = len(os.fsencode(root)) + 1
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        records = [record for part in pool.map(lambda f: list(_records(f, base)), folders) for record in part]
    records.sort()
    total = hashlib.sha256()
    for path, rest in records:
        total.update(rest + path + b"\0")
    return total.hexdigest()


def _records(folder: bytes, base: int) -> Iterator[tuple[bytes, bytes]]:
    for entry in os.scandir(folder):
        path = entry.path[base:]
        if entry.is_symlink():
            yield path, b"120000 " + _target_sha256(entry.path) + b" "
        elif entry.is_file(follow_symlinks=False) and path != STAMP.encode():
            handle = os.open(entry.path, os.O_RDONLY)
            try:
                state = os.fstat(handle)
                data = os.read(handle, state.st_size + 1)
                while more := os.read(handle, 1 << 20):
                    data += more
            finally:
                os.close(handle)
            mode = b"100755 " if state.st_mode & 0o100 else b"100644 "
            yield path, mode + hashlib.sha256(data).hexdigest().encode() + b" "


def _target_sha256(link: bytes) -> bytes:
    return hashlib.sha256(os.readlink(link)).hexdigest().encode()  # noqa: PTH115 Path decodes the name


def listing_sha256(root: Path) -> str:
    """Return a quick fingerprint of a folder from names, sizes, modes and times: equal means untouched."""
    total = hashlib.sha256()
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name != ".git")
        for name in sorted(files):
            state = os.lstat(os.path.join(folder, name))  # noqa: PTH118 a Path for each of 90,000 files is slow
            total.update(f"{folder}/{name}\0{state.st_mtime_ns} {state.st_size} {state.st_mode}\n".encode())
    return total.hexdigest()


def version_of(root: Path, what: str) -> str:
    """Return the upstream version of a kernel tree from its Makefile: '6.12.117' or '6.12.0-rc3'.

    Raises `RefusedError` when the folder is no kernel tree.
    """
    try:
        text = (root / "Makefile").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        text = ""
    return version_in(text, what)


def version_in(makefile: str, what: str) -> str:
    """Return the version that the text of a kernel's top Makefile declares."""
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)\s*=\s*(\S*)\s*$", makefile, re.M))
    if not found.get("VERSION") or not found.get("PATCHLEVEL"):
        raise RefusedError(
            f"{what} is no kernel source: its Makefile does not declare a version",
            hint="give the top folder of a kernel tree, or a tarball with that folder in it",
        )
    sublevel = found.get("SUBLEVEL") or "0"
    return f"{found['VERSION']}.{found['PATCHLEVEL']}.{sublevel}{found.get('EXTRAVERSION', '')}"
