# SPDX-License-Identifier: GPL-2.0-or-later
"""The image room's interface: the root file system and the bootable disk of a kernel line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked as lock_of
from cloison_forge.core.paths import project
from cloison_forge.core.stage import Stage, digest_file, digest_files, write_json
from cloison_forge.image import boot, companion, ext4, recipe, rootfs
from cloison_forge.image import disk as raw
from cloison_forge.image import hypervisor as xen
from cloison_forge.image.rights import may_own
from cloison_forge.source.model import disk_errors


@dataclass(frozen=True)
class RootImage:
    """The root file system: `path` is an ext4 image without partition table, to be used read-only or copied.

    `key` changes with anything that is in it; `uuid` is the file system's.
    """

    path: Path
    key: str
    uuid: str


def root(line: Line, name: str = "host", *, offline: bool = False, locked: bool = False) -> RootImage:
    """Make the root file system of an image, which holds no kernel and depends on none.

    `offline` takes packages from the cache only, `locked` only the pinned versions.
    """
    plan = recipe.named(name)
    tar = rootfs.ensure(plan, offline=offline, locked=locked)
    settings = plan.root
    geometry = ext4.Geometry(settings.uuid, settings.hash_seed, settings.label, settings.epoch, settings.free_mib)
    out = project().line(line.name) / "image" / ("root" if name == "host" else f"root-{name}")
    stage = Stage(
        "image",
        out,
        {
            "packages": tar.key,
            "companion": companion.digest(),
            "geometry": repr(geometry),
            "code": digest_file(Path(ext4.__file__)),
        },
    )

    def make(folder: Path) -> None:
        with ui.step("image", "writing the root file system"):
            extra = folder / "companion.tar"
            companion.write(extra, settings, folder)
            log = project().line(line.name) / "logs" / "image.log"
            ext4.make(folder / "root.ext4", [tar.path, extra], geometry, folder, log, fake=not may_own(folder))
            (folder / "init").unlink()
            extra.unlink()
        write_json(
            folder / "manifest.json",
            {
                "key": stage.key,
                "suite": settings.suite,
                "packages": [package.line for package in tar.packages],
                "not_as_pinned": list(tar.differences),
            },
        )

    with lock_of(out.parent, f"the image of {line.name}"), disk_errors("root file system", out.parent):
        _drop_leftovers(out)
        stage.ensure(make)
    return RootImage(out / "root.ext4", stage.key, settings.uuid)


class BootKernel(Protocol):
    """What a disk needs of a kernel: the bzImage, its release ('6.12.117-cloison') and a key of its contents."""

    @property
    def image(self) -> Path:
        """The bootable file."""

    @property
    def release(self) -> str:
        """What ``uname -r`` answers."""

    @property
    def key(self) -> str:
        """Key of the stage that built it."""

    @property
    def provenance(self) -> Mapping[str, object]:
        """What it was made from."""


@dataclass(frozen=True)
class Disk:
    """A bootable raw disk: `path` is sparse, to be used read-only or copied.

    `root_partuuid` is the root partition's, for ``root=PARTUUID=`` on a kernel's command line;
    `console` is the serial line of the boot menu; `release` the kernel's.
    """

    path: Path
    key: str
    root_partuuid: str
    console: str
    release: str


def disk(line: Line, kernel: BootKernel, root: RootImage, variant: str = "on") -> Disk:
    """Make the bootable disk out of a kernel and a root file system; seconds, for only data is copied.

    A disk with another variant of the kernel is one of its own, beside the usual one.
    """
    plan = recipe.load()
    out = project().line(line.name) / "image" / ("disk" if variant == "on" else f"disk-{variant}")
    templates = [project().images / "grub.cfg.j2", project().images / "grub-early.cfg"]
    code = [Path(module.__file__ or "") for module in (boot, raw)]
    stage = Stage(
        "disk",
        out,
        {
            "root": root.key,
            "kernel": kernel.key,
            "release": kernel.release,
            "layout": repr(plan.disk),
            "templates": digest_files(templates, project().root),
            "code": " ".join(map(digest_file, code)),
        },
    )

    def make(folder: Path) -> None:
        with ui.step("disk", f"writing the disk with kernel {kernel.release}"):
            raw.write(folder / "disk.raw", plan, kernel.image, kernel.release, root.path, folder)
        write_json(
            folder / "manifest.json",
            {
                "kernel": kernel.release,
                "kernel_sha256": digest_file(kernel.image),
                "kernel_provenance": dict(kernel.provenance),
                "root": root.key,
                "root_partuuid": plan.disk.root_guid,
            },
        )

    with lock_of(out.parent, f"the image of {line.name}"), disk_errors("disk image", out.parent):
        _drop_leftovers(out)
        stage.ensure(make)
    return Disk(out / "disk.raw", stage.key, plan.disk.root_guid, plan.disk.console, kernel.release)


def hypervisor(line: Line, root: RootImage) -> Path:
    """Take the newest Xen out of the root file system, uncompressed, for who boots it without a boot loader."""
    out = project().line(line.name) / "image" / "xen"
    stage = Stage("xen", out, {"root": root.key, "code": digest_file(Path(xen.__file__))})

    def make(folder: Path) -> None:
        xen.take_out(root.path, folder / "xen")

    with lock_of(out.parent, f"the image of {line.name}"), disk_errors("hypervisor", out.parent):
        if not stage.fresh():
            stage.ensure(make)
    return out / "xen"


def _drop_leftovers(out: Path) -> None:
    """Remove what runs that were killed left beside `out`; the caller holds the lock, so nobody works there."""
    for path in out.parent.glob(f".{out.name}.*"):
        ext4.remove_tree(path)


def relock(name: str = "host") -> list[str]:
    """Pin the newest packages that Debian offers for an image; return what changed, a phrase a package."""
    return rootfs.relock(recipe.named(name))
