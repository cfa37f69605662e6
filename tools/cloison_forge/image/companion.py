# SPDX-License-Identifier: GPL-2.0-or-later
"""What the image holds beside Debian: the companion tools, PID 1 of a test boot, the host's own settings."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import BuildError, CommandError
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import digest_file, digest_files
from cloison_forge.image.recipe import RootRecipe

HOME = "usr/lib/cloison"
PACKAGES = ("cloison", "cloison_verify")

_SHARE = {
    "cloison": ("usr/sbin/cloison", 0o755),
    "cloison.8": ("usr/share/man/man8/cloison.8", 0o644),
    "cloison.bash": ("usr/share/bash-completion/completions/cloison", 0o644),
}
"""Where the files of tools/cloison/share go."""


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link of the image; `path` has no leading slash."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    target: str = ""
    folder: bool = False


def digest() -> str:
    """Return a digest over all that `write` puts into the image."""
    root = project().root
    places = [root / "images" / "host", root / "images" / "init", *(root / "tools" / name for name in PACKAGES)]
    return digest_files([place for place in places if place.is_dir()], root)[:40] + digest_file(Path(__file__))[:24]


def write(target: Path, recipe: RootRecipe, work: Path) -> int:
    """Write everything as a tar to `target` and return the sum of the sizes in bytes; PID 1 is compiled in `work`."""
    entries: dict[str, Entry] = {}
    for entry in (*_settings(recipe), *_tools(), Entry(f"{HOME}/init", compile_init(work).read_bytes(), 0o755)):
        entries[entry.path] = entry
    for path in list(entries):
        for parent in Path(path).parents:
            if str(parent) != "." and (str(parent) == HOME or str(parent).startswith(f"{HOME}/")):
                entries.setdefault(str(parent), Entry(str(parent), mode=0o755, folder=True))
    total = 0
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(entries):
            tar.addfile(_member(entries[path], recipe.epoch), io.BytesIO(entries[path].data))
            total += len(entries[path].data)
    return total


def _member(entry: Entry, epoch: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.mtime, info.mode, info.uname, info.gname = epoch, entry.mode, "root", "root"
    info.size = len(entry.data)
    if entry.folder:
        info.type = tarfile.DIRTYPE
    elif entry.target:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
    return info


def compile_init(work: Path) -> Path:
    """Compile PID 1 of a test boot, static and without traces of the folder that it was compiled in."""
    source = project().images / "init"
    require("make", why="to compile PID 1")
    require("gcc", why="to compile PID 1")
    out = work / "init"
    flags = f"-Os -ffile-prefix-map={source}=. -Wl,--build-id=none -s"
    try:
        run(["make", "-s", "-B", "-C", source, f"OUT={out}", f"CFLAGS={flags}"], env={"LC_ALL": "C.UTF-8"})
    except CommandError as error:
        reason = next((line for line in error.message.splitlines() if "error" in line), error.message.splitlines()[-1])
        raise BuildError(
            f"images/init does not compile: {reason.strip(' |')}", hint=f"make -C {source} OUT=/tmp/init shows all"
        ) from None
    return out


def _tools() -> Iterator[Entry]:
    tools = project().root / "tools"
    for package in PACKAGES:
        folder = tools / package
        if not folder.is_dir():
            continue
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not {"__pycache__", "share"} & set(path.relative_to(tools).parts):
                yield Entry(f"{HOME}/{path.relative_to(tools)}", path.read_bytes())
        yield Entry(f"usr/lib/python3/dist-packages/{package}", target=f"/{HOME}/{package}")
    for name, (place, mode) in _SHARE.items():
        path = tools / "cloison" / "share" / name
        if path.is_file():
            yield Entry(place, path.read_bytes(), mode)


def _settings(recipe: RootRecipe) -> Iterator[Entry]:
    base = project().images / "host"
    for path in sorted(base.rglob("*")):
        if path.is_symlink():
            yield Entry(str(path.relative_to(base)), target=str(path.readlink()))
        elif path.is_file():
            yield Entry(str(path.relative_to(base)), path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
    yield Entry("etc/fstab", f"UUID={recipe.uuid}\t/\text4\terrors=remount-ro\t0\t1\n".encode())
    yield Entry("etc/systemd/system/default.target", target="/lib/systemd/system/multi-user.target")
