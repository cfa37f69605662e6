# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor of the host image, as a file that boots without a boot loader."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from cloison_forge.core.errors import BuildError
from cloison_forge.core.run import require, run

_NAME = re.compile(r"xen-(\d+)\.(\d+)-amd64\.gz")


def newest(listing: str) -> str:
    """Return the hypervisor with the highest version in what ``debugfs ls -p /boot`` prints."""
    names = [fields[5] for fields in (line.split("/") for line in listing.splitlines()) if len(fields) > 5]
    found = [(int(match[1]), int(match[2]), match[0]) for name in names if (match := _NAME.fullmatch(name))]
    if not found:
        raise BuildError(
            "the host image holds no hypervisor", hint="images/host.toml names the package xen-hypervisor-VERSION-amd64"
        )
    return max(found)[2]


def take_out(root: Path, target: Path) -> None:
    """Write the newest Xen of a root file system, uncompressed, to `target`."""
    require("debugfs", package="e2fsprogs", why="for lane xen")
    name = newest(run(["debugfs", "-R", "ls -p /boot", root], merge_stderr=False).output)
    packed = target.with_suffix(".gz")
    run(["debugfs", "-R", f"dump /boot/{name} {packed}", root])
    try:
        target.write_bytes(gzip.decompress(packed.read_bytes()))
    except (OSError, EOFError, zlib.error) as error:
        raise BuildError(
            f"/boot/{name} of the host image is broken: {error}", hint="./invoke clean, then again"
        ) from None
    packed.unlink()
