# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian tree of the image as a tar, made by mmdebstrap from verified packages: same bytes from every mode."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, CommandError, ToolMissingError, UsageError
from cloison_forge.core.locks import locked as lock_of
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import atomic_file, digest_bytes, digest_file, write_json
from cloison_forge.image import ext4, lockfile, packages, sources
from cloison_forge.image.lockfile import Package
from cloison_forge.image.recipe import Recipe, RootRecipe
from cloison_forge.image.rights import may_own
from cloison_forge.source.model import disk_errors, free_bytes, full_disk

KEEP = 6
NEEDED_BYTES = 900 * 10**6
"""Free space without which no run of mmdebstrap is begun: the tree, its packages and the tar."""

WORK = "cloison-root"
_APART = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs a program with mounts and processes of its own, all of which end with it, and it with its caller."""
_LEFT_OUT = ("man", "locale", "info", "doc-base", "lintian", "bug")


@dataclass(frozen=True)
class RootTar:
    """The tar of the Debian tree; `key` names its inputs, `differences` how it departs from the pins."""

    path: Path
    key: str
    packages: tuple[Package, ...]
    differences: tuple[str, ...]


def folder() -> Path:
    """Return the cache folder of root file systems, shared by all checkouts of a user."""
    return project().cache / "rootfs"


def finishers(recipe: Recipe) -> list[Path]:
    """Return the scripts that end the installation inside the tree, in order: the image's own, and that of all."""
    own, common = (project().images / f"finish-{name}.sh" for name in (recipe.name, "root"))
    return [path for path in (own, common) if path.is_file() or path == common]


def lock_path(recipe: Recipe) -> Path:
    """Return the list of pinned packages."""
    return project().images / recipe.lock


def ensure(recipe: Recipe, *, offline: bool = False, locked: bool = False) -> RootTar:
    """Return the tar of the recipe from the cache, or make it (a minute or two)."""
    pinned = lockfile.read(lock_path(recipe))
    store = packages.Store(folder())
    chosen = packages.Chosen(tuple(pinned), ()) if locked else packages.choose(recipe.root, pinned, store)
    if chosen and not (locked and packages.covers(recipe.root, pinned)):
        tar = _tar(recipe, chosen)
        if tar.path.is_file():
            _tell(tar)
            return tar
    with lock_of(folder(), "the cache of root file systems"), disk_errors("root file system", folder()):
        apt = sources.private_apt(folder() / f"apt-{recipe.root.suite}", recipe.root.suite)
        chosen = packages.ensure(recipe.root, pinned, store, apt, offline=offline, locked=locked)
        tar = _tar(recipe, chosen)
        _tell(tar)
        if not tar.path.is_file():
            _make(recipe, tar, store)
            _drop_old(tar.path)
    return tar


def relock(recipe: Recipe) -> list[str]:
    """Pin the newest packages that Debian offers for the recipe; return what changed."""
    path = lock_path(recipe)
    old = lockfile.read(path) if path.is_file() else []
    with lock_of(folder(), "the cache of root file systems"):
        apt = sources.private_apt(folder() / f"apt-{recipe.root.suite}", recipe.root.suite)
        apt.update()
        new = packages.resolve(recipe.root, [], apt)
    lockfile.write(path, new)
    return lockfile.differences(old, new)


def _tar(recipe: Recipe, chosen: packages.Chosen) -> RootTar:
    listing = "\n".join(package.line for package in chosen.packages)
    root, scripts = recipe.root, " ".join(map(digest_file, finishers(recipe)))
    parts = (root.suite, str(root.epoch), " ".join(root.packages), scripts, listing)
    key = digest_bytes("\n".join((*parts, *_LEFT_OUT)).encode())
    return RootTar(folder() / f"{key[:32]}.tar", key, chosen.packages, chosen.differences)


def _tell(tar: RootTar) -> None:
    if tar.differences:
        more = f" and {len(tar.differences) - 3} more" if len(tar.differences) > 3 else ""
        ui.note("image", f"not the pinned packages: {'; '.join(tar.differences[:3])}{more}")


def mode() -> str:
    """Choose how mmdebstrap gets the rights that it needs: 'root', 'unshare' or 'fakechroot'.

    Raises `ToolMissingError` where none of them can work, with what to install.
    """
    if may_own(Path(tempfile.gettempdir())) and _works([*_APART, "true"]):
        return "root"
    if os.geteuid() != 0 and shutil.which("newuidmap") and _has_subuids() and _works(["unshare", "--user", "true"]):
        return "unshare"
    if shutil.which("fakechroot") and shutil.which("fakeroot"):
        return "fakechroot"
    raise ToolMissingError(
        "this user can neither mount, nor map user ids, and fakechroot is not installed",
        hint="apt-get install fakechroot fakeroot, or give the user a range in /etc/subuid and install uidmap",
    )


def _works(words: Sequence[str]) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_subuids() -> bool:
    try:
        names = {getpass.getuser(), str(os.getuid())}
    except (OSError, KeyError):
        names = {str(os.getuid())}
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            owners = {line.split(":")[0] for line in path.read_text(encoding="utf-8").splitlines()}
        except OSError:
            return False
        if not owners & names:
            return False
    return True


def _make(recipe: Recipe, tar: RootTar, store: packages.Store) -> None:
    require("mmdebstrap", why="for the image's root file system")
    root = recipe.root
    native = run(["dpkg", "--print-architecture"]).output.strip()
    if native != root.architecture:
        raise UsageError(f"the host image is {root.architecture}, this machine {native}: it cannot run its programs")
    chosen = mode()
    # in mode unshare, root is another user, to whom the cache may be closed
    place = Path(tempfile.gettempdir()) if chosen == "unshare" else folder()
    for where in (place, folder()):
        if free_bytes(where) < NEEDED_BYTES:
            raise full_disk(f"root file system: needs {NEEDED_BYTES // 10**6} MB", where)
    log = folder() / "mmdebstrap.log"
    log.unlink(missing_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f"{WORK}-", dir=place, ignore_cleanup_errors=True) as name,
        atomic_file(tar.path) as beside,
        ui.step("image", f"installing {len(tar.packages)} packages (mmdebstrap, mode {chosen})"),
    ):
        work = Path(name)
        work.chmod(0o755)
        repository = _repository(work / "packages", tar.packages, store)
        hooks = []
        for script in finishers(recipe):
            hooks.append(work / script.stem)
            shutil.copyfile(script, hooks[-1])
            hooks[-1].chmod(0o755)
        _mmdebstrap(_words(root, chosen, repository, hooks, beside), root, work, log)
    manifest = {"key": tar.key, "suite": root.suite, "packages": [package.line for package in tar.packages]}
    write_json(tar.path.with_suffix(".json"), {**manifest, "differences": list(tar.differences), "mode": chosen})


def _repository(place: Path, chosen: Sequence[Package], store: packages.Store) -> Path:
    """Lay out a flat apt repository of exactly the chosen packages, whose files were verified just before."""
    place.mkdir()
    place.chmod(0o755)
    stanzas = []
    for package in chosen:
        target = place / package.file.replace("%3a", "_")
        shutil.copyfile(store.path(package), target)
        target.chmod(0o644)
        control = run(["dpkg-deb", "--field", target]).output.rstrip("\n")
        stanzas.append(f"{control}\nFilename: ./{target.name}\nSize: {package.size}\nSHA256: {package.sha256}\n")
    (place / "Packages").write_text("\n".join(stanzas), encoding="utf-8")
    (place / "Packages").chmod(0o644)
    return place


def _words(recipe: RootRecipe, chosen: str, repository: Path, hooks: Sequence[Path], target: Path) -> list[str]:
    # as root, mmdebstrap mounts /proc, /sys and /dev in its tree: nobody else may ever see that
    words = list(_APART) if chosen == "root" else []
    words += ["mmdebstrap", f"--mode={chosen}", "--variant=apt", "--format=tar"]
    words += [f"--architectures={recipe.architecture}", f"--include={','.join(recipe.packages)}"]
    words += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", *(f"--customize-hook={hook}" for hook in hooks)]
    words += ["--dpkgopt=force-unsafe-io"]  # the tree is thrown away; images/finish-root.sh removes the setting
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    words += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    # the repository holds only files whose hashes were compared with the pins or with apt's signed index
    return [*words, "", str(target), f"deb [trusted=yes] copy:{repository} ./"]


def _mmdebstrap(words: Sequence[str], recipe: RootRecipe, work: Path, log: Path) -> None:
    """Run mmdebstrap with its tree below `work`; the hint of a failure names its log."""
    env = {"SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(work)}
    try:
        run(words, env=env, log=log)
    except CommandError as error:
        text = log.read_text(encoding="utf-8", errors="replace")
        if "No space left on device" in text:
            raise full_disk("root file system", work.parent) from None
        reasons = re.findall(r"^E: (?!mmdebstrap failed)(.*)$", text, re.M) or [error.message.splitlines()[-1]]
        raise BuildError(
            f"mmdebstrap failed: {reasons[0].strip()[:300]}", hint=f"the whole output is in {log}"
        ) from None


def _drop_old(newest: Path) -> None:
    """Keep the few newest tars of the cache; what a killed run left half written goes (the lock is held)."""
    for path in folder().glob(".*.tar.*"):
        path.unlink()
    for path in folder().glob(f"{WORK}-*"):
        ext4.remove_tree(path)
    tars = sorted(folder().glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in tars[KEEP:]:
        if path != newest:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
