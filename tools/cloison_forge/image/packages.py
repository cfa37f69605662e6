# SPDX-License-Identifier: GPL-2.0-or-later
"""From pinned names to verified .deb files: resolve, download, and say where reality differs from the pins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, CommandError, UsageError
from cloison_forge.core.stage import atomic_file, digest_bytes, digest_file
from cloison_forge.image import lockfile
from cloison_forge.image.lockfile import Package
from cloison_forge.image.recipe import RootRecipe
from cloison_forge.source.apt import PrivateApt

RESOLVE = ("-o", "APT::Install-Recommends=false", "-o", "APT::Install-Suggests=false")


@dataclass(frozen=True)
class Chosen:
    """The packages to install, and in what they differ from the pinned ones (empty: in nothing)."""

    packages: tuple[Package, ...]
    differences: tuple[str, ...]


class Store:
    """The cache of .deb files and of what was taken instead of pins; `folder` is ``rootfs/`` of the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.debs = folder / "debs"
        self.substitutes = folder / "substitutes"

    def path(self, package: Package) -> Path:
        """Return where the file of a package is kept."""
        return self.debs / package.file

    def missing(self, packages: Sequence[Package]) -> list[Package]:
        """Return the packages whose file is absent or not what it must be; such a file is removed."""
        absent = []
        for package in packages:
            path = self.path(package)
            if not path.is_file() or path.stat().st_size != package.size or digest_file(path) != package.sha256:
                path.unlink(missing_ok=True)
                absent.append(package)
        return absent

    def substitute(self, key: str) -> list[Package] | None:
        """Return what an earlier run took instead of the pins whose key is `key`."""
        path = self.substitutes / f"{key}.lock"
        return lockfile.read(path) if path.is_file() else None

    def remember(self, key: str, packages: Sequence[Package]) -> None:
        """Keep what was taken instead of the pins, so that the next run takes the same."""
        self.substitutes.mkdir(parents=True, exist_ok=True)
        lockfile.write(self.substitutes / f"{key}.lock", packages)


def pins_key(recipe: RootRecipe, pinned: Sequence[Package]) -> str:
    """Return a key of what is asked for: the recipe's package names and the pins."""
    names = " ".join((recipe.suite, recipe.architecture, *recipe.packages))
    return digest_bytes("\n".join([names, *(package.line for package in pinned)]).encode())[:32]


def covers(recipe: RootRecipe, pinned: Sequence[Package]) -> list[str]:
    """Return the recipe's packages that the pins do not hold."""
    names = {package.name for package in pinned}
    return [name for name in recipe.packages if name not in names]


def choose(recipe: RootRecipe, pinned: Sequence[Package], store: Store) -> Chosen | None:
    """Say what to install without asking anyone, or None where apt must be asked first."""
    earlier = store.substitute(pins_key(recipe, pinned))
    if earlier is not None:
        return Chosen(tuple(earlier), tuple(lockfile.differences(pinned, earlier)))
    if covers(recipe, pinned):
        return None
    return Chosen(tuple(pinned), ())


def ensure(
    recipe: RootRecipe, pinned: Sequence[Package], store: Store, apt: PrivateApt, *, offline: bool, locked: bool
) -> Chosen:
    """Return what to install, with every file of it in the store and verified.

    Pinned versions are taken where they are in the store or still offered; for the others the
    newest is taken and named, or refused with `locked`. With `offline` nothing is asked over the
    network and `BuildError` names what is missing.
    """
    uncovered = covers(recipe, pinned)
    if locked and uncovered:
        raise UsageError(
            f"the pins do not hold {_some(uncovered)}, which the image's recipe asks for",
            hint="./invoke image.relock pins them",
        )
    known = Chosen(tuple(pinned), ()) if locked else choose(recipe, pinned, store)
    missing = store.missing(known.packages) if known else []
    if known and not missing:
        return known
    if offline:
        names = [f"{package.name} {package.version}" for package in missing] or uncovered
        raise BuildError(
            f"offline, and the cache lacks {len(names)} of the image's packages: {_some(names)}",
            hint="run once without --offline",
        )
    apt.update()
    if missing:
        _download(apt, store, _offered(apt, missing), strict=False)
        missing = store.missing(missing)
        if known and not missing:
            return known
    if locked:
        gone = _some([f"{package.name} {package.version}" for package in missing])
        raise BuildError(
            f"Debian no longer offers {gone}, and --locked takes nothing else",
            hint="without --locked the newest of the same suite is taken; ./invoke image.relock pins it",
        )
    taken = resolve(recipe, pinned, apt)
    _download(apt, store, store.missing(taken), strict=True)
    store.remember(pins_key(recipe, pinned), taken)
    return Chosen(tuple(taken), tuple(lockfile.differences(pinned, taken)))


def resolve(recipe: RootRecipe, pinned: Sequence[Package], apt: PrivateApt) -> list[Package]:
    """Ask apt for the whole set that the recipe needs, with pinned versions where they are offered.

    Raises `UsageError` for a package that does not exist, `BuildError` where no set fits.
    """
    preferences = apt.folder / "preferences"
    with atomic_file(preferences) as beside:
        beside.write_text(
            "".join(f"Package: {p.name}\nPin: version {p.version}\nPin-Priority: 1001\n\n" for p in pinned),
            encoding="utf-8",
        )
    words = ["-o", f"Dir::Etc::preferences={preferences}", *RESOLVE]
    try:
        result = apt.run("apt-get", *words, "-s", "install", "?essential", *recipe.packages)
    except CommandError as error:
        unknown = re.findall(r"E: Unable to locate package (\S+)", error.message)
        unknown += re.findall(r"E: Package '(\S+)' has no installation candidate", error.message)
        if unknown:
            raise UsageError(
                f"Debian {recipe.suite} has no package '{unknown[0]}'",
                hint="look for a misspelt name under packages in images/*.toml",
            ) from None
        raise BuildError(
            f"apt finds no set of packages that fits together: {error.message.splitlines()[-1].strip(' |')}",
            hint="./invoke image.relock tries without the pins",
        ) from None
    chosen = re.findall(r"^Inst (\S+) \((\S+) ", result.output, re.M)
    return _described(apt, [(name.partition(":")[0], version) for name, version in chosen])


def _described(apt: PrivateApt, chosen: Sequence[tuple[str, str]]) -> list[Package]:
    """Return name, size and hash of each version out of apt's signed index."""
    text = apt.run("apt-cache", "show", *(f"{n}={v}" for n, v in chosen)).output
    found: dict[str, Package] = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.M))
        if (fields.get("Package", ""), fields.get("Version", "")) in chosen and fields.get("SHA256"):
            found[fields["Package"]] = Package(
                fields["Package"], fields["Version"], fields["Architecture"], int(fields["Size"]), fields["SHA256"]
            )
    absent = [name for name, _ in chosen if name not in found]
    if absent:
        raise BuildError(f"apt's index gives no SHA-256 for {_some(absent)}", hint="try again after apt-get update")
    return sorted(found.values())


def _offered(apt: PrivateApt, packages: Sequence[Package]) -> list[Package]:
    """Return those of `packages` that apt offers in exactly this version; refuse one with another content."""
    text = apt.run("apt-cache", "show", "--all-versions", *(p.name for p in packages), check=False).output
    hashes: dict[tuple[str, str], set[str]] = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.M))
        if fields.get("SHA256"):
            hashes.setdefault((fields.get("Package", ""), fields.get("Version", "")), set()).add(fields["SHA256"])
    offered = []
    for package in packages:
        known = hashes.get((package.name, package.version))
        if known and package.sha256 not in known:
            raise BuildError(
                f"{package.name} {package.version} is refused: the mirror's SHA-256 is not the pinned one",
                hint="the mirror or the pins in images/*.lock were tampered with; compare with another mirror",
            )
        if known:
            offered.append(package)
    return offered


def _download(apt: PrivateApt, store: Store, packages: Sequence[Package], *, strict: bool) -> None:
    """Bring packages into the store; with `strict` one that is not what its index promises is an error."""
    if not packages:
        return
    work = store.folder / "incoming"
    work.mkdir(parents=True, exist_ok=True)
    store.debs.mkdir(exist_ok=True)
    total = sum(package.size for package in packages)
    with ui.step("image", f"downloading {len(packages)} packages ({total / 1e6:.0f} MB)"):
        try:
            apt.run("apt-get", "download", "-q", *(f"{p.name}={p.version}" for p in packages), cwd=work)
        except CommandError as error:
            reason = (re.findall(r"^\s*\|? ?E: (.*)$", error.message, re.M) or [error.message.splitlines()[-1]])[0]
            raise BuildError(
                f"the image's packages cannot be downloaded: {reason.strip()[:200]}",
                hint="check the network and try again; what was downloaded is kept",
            ) from None
        finally:
            _take_in(store, work, packages)
    bad = store.missing(packages)
    if bad and strict:
        raise BuildError(
            f"{_some([p.name for p in bad])}: what was downloaded is not what apt's index promises",
            hint="try again; if it stays, the mirror is broken",
        )


def _take_in(store: Store, work: Path, packages: Sequence[Package]) -> None:
    """Move complete and right files from `work` to the store, and drop the rest."""
    by_hash = {package.sha256: package for package in packages}
    for path in work.iterdir():
        package = by_hash.get(digest_file(path))
        if package:
            path.replace(store.path(package))
        else:
            path.unlink()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
