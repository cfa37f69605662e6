# SPDX-License-Identifier: GPL-2.0-or-later
"""An ext4 file system out of tars, without root rights, mounts or loop devices; same tars, same bytes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, CommandError
from cloison_forge.core.run import require, run
from cloison_forge.source.model import free_bytes, full_disk

MIB = 1 << 20
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)
"""Named one by one: the default of mke2fs changes with its version and with /etc/mke2fs.conf."""


@dataclass(frozen=True)
class Geometry:
    """What fixes a file system's bytes besides its files; `epoch` in seconds since 1970."""

    uuid: str
    hash_seed: str
    label: str
    epoch: int
    free_mib: int


def size_mib(tars: Sequence[Path], free_mib: int) -> int:
    """Return the size in MiB, a multiple of 64, for the files of `tars`, the journal and `free_mib` of free space."""
    blocks = 0
    for path in tars:
        with tarfile.open(path, "r:") as tar:
            blocks += sum(1 + (member.size + 4095) // 4096 for member in tar)
    content = blocks * 4096 * 105 // 100 // MIB
    return (content + 64 + free_mib + 63) // 64 * 64


def make(target: Path, tars: Sequence[Path], geometry: Geometry, work: Path, log: Path, *, fake: bool) -> None:
    """Write a file system with the files of `tars` (later ones win) to `target`.

    The tree is laid out below `work` and removed again. With `fake`, owners and devices are
    remembered by fakeroot instead of set, which needs no rights; the result has the same bytes.
    """
    for program in ("mke2fs", "debugfs", "dumpe2fs", "e2fsck"):
        require(program, package="e2fsprogs", why="for the image's file system")
    try:
        megabytes = size_mib(tars, geometry.free_mib)
    except (tarfile.TarError, EOFError) as error:
        raise BuildError(f"a tar of the image is damaged: {error}", hint="remove rootfs/ from the cache") from None
    content = sum(path.stat().st_size for path in tars)
    if free_bytes(work) < 2 * content + 64 * MIB:
        raise full_disk(f"root file system: needs {2 * content // 10**6 + 67} MB", work.parent)
    tree = Path(tempfile.mkdtemp(dir=work, prefix="tree."))
    try:
        script = ["set -e", "umask 022"]
        tar = "tar --extract --numeric-owner --preserve-permissions --same-owner --overwrite"
        for path in tars:
            script.append(f"{tar} --xattrs --xattrs-include='*' -C {tree} -f {shlex.quote(str(path.absolute()))}")
        script.append(f"chmod 755 {tree}")
        stamp = f"@{geometry.epoch}"
        script.append(f"find {tree} -newermt {stamp} -exec touch --no-dereference --date={stamp} '{{}}' +")
        script.append(shlex.join([*_mke2fs(geometry, tree), str(target.absolute()), f"{megabytes}M"]))
        words = ["sh", "-c", "\n".join(script)]
        if fake:
            require("fakeroot", why="to lay out the image's files without root rights")
            words = ["fakeroot", "--", *words]
        _run(words, geometry, log, work)
    finally:
        remove_tree(tree)
    _fix_times(target, geometry, work)
    check(target)


def _mke2fs(geometry: Geometry, tree: Path) -> list[str]:
    extended = f"hash_seed={geometry.hash_seed},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", FEATURES, "-b", "4096", "-I", "256", "-i", "16384", "-m", "1"]
    return [*words, "-L", geometry.label, "-U", geometry.uuid, "-E", extended, "-d", str(tree)]


def _environment(geometry: Geometry) -> dict[str, str]:
    return {
        "E2FSPROGS_FAKE_TIME": str(geometry.epoch),  # e2fsprogs 1.47.0; later ones read the other name as well
        "SOURCE_DATE_EPOCH": str(geometry.epoch),
        "MKE2FS_CONFIG": os.devnull,
        "DEBUGFS_PAGER": "cat",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def _run(words: Sequence[str], geometry: Geometry, log: Path | None, place: Path) -> str:
    try:
        return run(words, env=_environment(geometry), log=log).output
    except CommandError as error:
        if "No space left on device" in error.message:
            raise full_disk("root file system", place.parent) from None
        reason = error.message.splitlines()[-1].strip(" |")
        raise BuildError(f"the root file system cannot be written: {reason}", hint=error.hint) from None


def _fix_times(image: Path, geometry: Geometry, work: Path) -> None:
    """Set the access, change and creation times of all inodes, which mke2fs takes from this machine's clock."""
    listing = run(["dumpe2fs", str(image)], env=_environment(geometry)).output
    used = used_inodes(listing)
    script = work / "times.debugfs"
    with script.open("w", encoding="ascii") as sink:
        for inode in used:
            for field in ("atime", "ctime", "crtime"):
                sink.write(f"sif <{inode}> {field} @{geometry.epoch}\n")
    output = _run(["debugfs", "-w", "-f", str(script), str(image)], geometry, None, work)
    script.unlink()
    wrong = [line for line in output.splitlines() if line and not re.match(r"debugfs(: sif <| \d)", line)]
    if wrong:
        raise BuildError(f"debugfs cannot set the time stamps: {wrong[0]}", hint="see e2fsprogs' version")


def used_inodes(listing: str) -> list[int]:
    """Return the inodes in use, from the output of dumpe2fs: the root folder, and all that is not reserved."""
    first = int(_field(listing, "First inode"))
    count = int(_field(listing, "Inode count"))
    free: set[int] = set()
    for spans in re.findall(r"^  Free inodes: (.*)$", listing, re.M):
        for span in spans.replace(",", " ").split():
            low, _, high = span.partition("-")
            free.update(range(int(low), int(high or low) + 1))
    return [2, *(number for number in range(first, count + 1) if number not in free)]


def _field(listing: str, name: str) -> str:
    match = re.search(rf"^{name}:\s+(\S+)", listing, re.M)
    if match is None:
        raise BuildError(f"dumpe2fs does not say '{name}'", hint="this version of e2fsprogs is not known to work")
    return match[1]


def check(image: Path) -> None:
    """Let e2fsck look at an image without changing it; anything but clean is an error."""
    result = run(["e2fsck", "-f", "-n", str(image)], check=False, env={"LC_ALL": "C.UTF-8"})
    if result.status != 0:
        complaints = [line for line in result.output.splitlines() if line and not line.startswith("Pass")]
        raise BuildError(
            f"e2fsck is not content with {image.name} (status {result.status}): {' '.join(complaints[1:3])}",
            hint=f"e2fsck -fn {image} shows all",
        )


def remove_tree(tree: Path) -> None:
    """Remove a tree whose folders may lack the right to write; one below which something is mounted stays."""
    below = f"{tree.resolve()}/"
    mounted = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    if any(line.split(" ")[1].startswith(below) for line in mounted.splitlines()):
        ui.warn(f"{tree} was left behind and is not removed: something is mounted below it")
        return
    for folder, names, _ in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(tree, ignore_errors=True)
