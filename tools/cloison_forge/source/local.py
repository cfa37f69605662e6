# SPDX-License-Identifier: GPL-2.0-or-later
"""Origin *local*: the user's own tree or tarball. Nothing vouches for it, and the provenance says so."""

from __future__ import annotations

from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.lines import Line
from cloison_forge.core.run import Argument, run
from cloison_forge.core.stage import digest_bytes
from cloison_forge.source import cache, tarball
from cloison_forge.source.model import Origin
from cloison_forge.source.tree import listing_sha256, version_of

_TAR = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=posix",
        "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f"]  # fmt: skip


def place(value: str) -> Path:
    """Return the folder or tarball that the user named, or fail with `UsageError`."""
    if not value:
        raise UsageError("the local origin needs a folder or a tarball", hint="for example --origin local=../linux")
    path = Path(value).expanduser().resolve()
    if not path.exists():
        raise UsageError(f"{value} does not exist", hint="give a kernel tree or a tarball of one")
    return path


def fingerprint(value: str) -> str:
    """Return what changes when the tree or tarball is touched, without reading contents; '' when it is gone."""
    path = Path(value).expanduser().resolve()
    if path.is_dir():
        return listing_sha256(path)
    if path.is_file():
        state = path.stat()
        return digest_bytes(f"{path}\0{state.st_mtime_ns} {state.st_size} {state.st_ino}".encode())
    return ""


def fetch(line: Line, value: str) -> Origin:
    """Return the user's tarball, or his tree packed as a tar in the cache.

    Of a git tree the files are taken that git tracks or would track; another tree must be clean of
    build products.
    """
    path = place(value)
    version = version_of(path, value) if path.is_dir() else ""
    tar = _packed(path, cache.folder(line, "local")) if path.is_dir() else path
    tar_sha256 = tarball.digest(tar, path.name)
    provenance: dict[str, object] = {
        "origin": "local",
        "kind": "tree" if path.is_dir() else "tarball",
        "name": path.name,
        "version": version,
        "tar_sha256": tar_sha256,
        "verified": "not at all: the user's own files",
    }
    return Origin("local", version or line.name, "", tar, tar_sha256, provenance)


def _packed(tree: Path, work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    tar = work / f"{tree.name}-{digest_bytes(bytes(tree))[:16]}.tar"
    tar.unlink(missing_ok=True)
    if (tree / ".git").exists():
        argv: list[Argument] = [
            "git",
            "-C",
            tree,
            "-c",
            f"safe.directory={tree}",
            "ls-files",
            "-z",
            "--cached",
            "--others",
        ]
        listed = run([*argv, "--exclude-standard", "--deduplicate"], merge_stderr=False).output
        names = "".join(
            name + "\0" for name in listed.split("\0") if name and (tree / name).is_symlink() | (tree / name).is_file()
        )
        run(
            [*_TAR, "-C", tree, "--transform=s,^,linux/,S", "-cf", tar, "--null", "--no-recursion", "-T", "-"],
            input_text=names,
        )
        return tar
    for product in (".config", "include/config", "vmlinux"):
        if (tree / product).exists():
            raise UsageError(
                f"{tree.name} has been built in ({product} is there)",
                hint=f"make -C {tree} mrproper, or give a clean tree",
            )
    run([*_TAR, "-C", tree, "--transform=s,^\\.,linux,S", "--exclude=./.cloison-*.json", "-cf", tar, "."])
    return tar
