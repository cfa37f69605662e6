# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies on the disk before the root file system: GRUB for BIOS and UEFI, and the EFI system partition."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import BuildError, CommandError, ToolMissingError
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.image.recipe import DiskRecipe
from cloison_forge.source.model import full_disk

SECTOR = 512
GRUB = Path("/usr/lib/grub")
_COMMON = ("part_gpt", "fat", "search", "search_fs_uuid", "configfile", "normal", "linux", "serial", "terminal", "echo")
_MODULES = {
    "i386-pc": (*_COMMON, "biosdisk", "halt", "reboot"),
    "x86_64-efi": (*_COMMON, "efi_gop", "all_video", "halt", "reboot"),
}
_PACKAGES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin"}


@dataclass(frozen=True)
class Loaders:
    """GRUB as bytes: the first 440 bytes of the disk, BIOS core image, UEFI program."""

    boot: bytes
    core: bytes
    efi: bytes


def render(template: str, values: dict[str, object]) -> str:
    """Fill in one of the templates in ``images/``; a name that it needs and `values` lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(project().images),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render(values)


def menu(settings: DiskRecipe, release: str) -> str:
    """Return GRUB's menu for a kernel of `release`."""
    return render(
        "grub.cfg.j2",
        {
            "release": release,
            "root_partuuid": settings.root_guid,
            "console": settings.console,
            "unit": int(settings.console.removeprefix("ttyS")) if settings.console.startswith("ttyS") else 0,
            "speed": settings.speed,
            "timeout": settings.timeout,
        },
    )


def loaders(settings: DiskRecipe, core_sector: int, work: Path) -> Loaders:
    """Make GRUB for both firmwares; the BIOS core is to be written at `core_sector`, counted in 512 bytes."""
    require("grub-mkimage", package="grub-common", why="to make the image bootable")
    early = work / "early.cfg"
    uuid = f"{settings.esp_serial[:4]}-{settings.esp_serial[4:]}"
    early.write_text(render("grub-early.cfg", {"esp_uuid": uuid}), encoding="utf-8")
    core, efi = (_mkimage(platform, early, work) for platform in ("i386-pc", "x86_64-efi"))
    early.unlink()
    boot = (GRUB / "i386-pc" / "boot.img").read_bytes()
    return Loaders(place_boot(boot, core_sector), place_core(core, core_sector), efi)


def _mkimage(platform: str, early: Path, work: Path) -> bytes:
    if not (GRUB / platform / "moddep.lst").is_file():
        raise ToolMissingError(
            f"GRUB for {platform} is not installed, needed to make the image bootable",
            hint=f"apt-get install {_PACKAGES[platform]}, or run ./invoke doctor",
        )
    out = work / f"{platform}.img"
    run(["grub-mkimage", "-O", platform, "-p", "/grub", "-c", early, "-o", out, *_MODULES[platform]])
    data = out.read_bytes()
    out.unlink()
    return data


def place_boot(boot: bytes, core_sector: int) -> bytes:
    """Return GRUB's boot sector, without its partition table, told where the core begins.

    The sector number is 8 bytes at 0x5c, little-endian.
    """
    if len(boot) != SECTOR or boot[510:] != b"\x55\xaa":
        raise BuildError("GRUB's boot.img is not a boot sector", hint="reinstall grub-pc-bin")
    return boot[:0x5C] + struct.pack("<Q", core_sector) + boot[0x64:440]


def place_core(core: bytes, core_sector: int) -> bytes:
    """Return GRUB's core image told where its second sector lies.

    Its first sector ends in a list of blocks; the first entry, 8 bytes at 0x1f4, is the sector from
    which the rest is read in one piece.
    """
    (start,) = struct.unpack_from("<Q", core, 0x1F4)
    if len(core) < 2 * SECTOR or start != 2:
        raise BuildError("GRUB's core image has another layout than GRUB 2.06's", hint="is another GRUB installed?")
    padded = core + bytes(-len(core) % SECTOR)
    return padded[:0x1F4] + struct.pack("<Q", core_sector + 1) + padded[0x1FC:]


def write_esp(target: Path, settings: DiskRecipe, files: dict[str, bytes | Path], epoch: int, work: Path) -> None:
    """Write a FAT32 file system with `files` (path to contents) to `target`; every time stamp is `epoch`, in UTC."""
    for program in ("mformat", "mmd", "mcopy"):
        require(program, package="mtools", why="for the image's EFI system partition")
    target.touch()
    os.truncate(target, settings.esp_mib << 20)
    size = sum(path.stat().st_size if isinstance(path, Path) else len(path) for path in files.values())
    if size > (settings.esp_mib - 4) << 20:
        raise BuildError(
            f"kernel and boot loader need {size >> 20} MiB, the EFI system partition has {settings.esp_mib}",
            hint="make esp_mib in images/host.toml larger",
        )
    sectors = (settings.esp_mib << 20) // SECTOR
    geometry = ["-F", "-c", "1", "-T", str(sectors), "-h", "255", "-s", "63", "-H", "0"]
    _mtools(["mformat", "-i", target, *geometry, "-v", "CLOISON", "-N", settings.esp_serial, "::"], epoch, work)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    if folders:
        _mtools(["mmd", "-i", target, *(f"::/{name}" for name in folders)], epoch, work)
    for name, contents in sorted(files.items()):
        source = work / "member"
        source.write_bytes(contents if isinstance(contents, bytes) else contents.read_bytes())
        os.utime(source, (epoch, epoch))
        _mtools(["mcopy", "-m", "-i", target, source, f"::/{name}"], epoch, work)
        source.unlink()


def _mtools(words: Sequence[str | Path], epoch: int, work: Path) -> None:
    env = {"TZ": "UTC", "SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "0", "LC_ALL": "C.UTF-8"}
    try:
        run(words, env={**env, "MTOOLSRC": os.devnull})
    except CommandError as error:
        if "No space left on device" in error.message:
            raise full_disk("EFI system partition", work.parent) from None
        reason = error.message.splitlines()[-1].strip(" |")
        raise BuildError(f"the EFI system partition cannot be written: {reason}", hint=error.hint) from None
