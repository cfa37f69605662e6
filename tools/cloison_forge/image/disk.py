# SPDX-License-Identifier: GPL-2.0-or-later
"""The raw disk: GPT, BIOS boot partition, EFI system partition, root partition; sparse, no loop device, no mount."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import BuildError
from cloison_forge.core.run import require, run
from cloison_forge.image import boot
from cloison_forge.image.recipe import Recipe
from cloison_forge.source.model import free_bytes, full_disk

MIB = 1 << 20
SECTOR = boot.SECTOR
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"


@dataclass(frozen=True)
class Layout:
    """Where the partitions lie, in bytes from the start of the disk; `total` is the disk's size."""

    bios: int
    esp: int
    root: int
    root_size: int
    total: int


def layout(esp_mib: int, root_size: int) -> Layout:
    """Lay out a disk for a root file system of `root_size` bytes; everything begins at a whole MiB."""
    bios, esp = MIB, 2 * MIB
    root = esp + esp_mib * MIB
    rounded = (root_size + MIB - 1) // MIB * MIB
    return Layout(bios, esp, root, rounded, root + rounded + MIB)


def table(place: Layout, recipe: Recipe) -> str:
    """Return the partition table as input for sfdisk."""
    disk = recipe.disk
    sectors = [
        (place.bios, place.esp - place.bios, BIOS_BOOT, disk.bios_guid, "bios-boot"),
        (place.esp, place.root - place.esp, ESP, disk.esp_guid, "efi-system"),
        (place.root, place.root_size, LINUX_ROOT_X86_64, disk.root_guid, recipe.root.label),
    ]
    head = f"label: gpt\nlabel-id: {disk.guid}\nunit: sectors\nfirst-lba: {place.bios // SECTOR}\n\n"
    return head + "".join(
        f'start={start // SECTOR}, size={size // SECTOR}, type={kind}, uuid={guid}, name="{name}"\n'
        for start, size, kind, guid, name in sectors
    )


def write(target: Path, recipe: Recipe, kernel: Path, release: str, root: Path, work: Path) -> Layout:
    """Write a disk that boots `kernel` (a bzImage of `release`) with the file system image `root`."""
    require("sfdisk", package="fdisk", why="for the image's partition table")
    place = layout(recipe.disk.esp_mib, root.stat().st_size)
    used = root.stat().st_blocks * 512 + 2 * kernel.stat().st_size + 8 * MIB
    if free_bytes(work) < used:
        raise full_disk(f"disk image: needs {used // 10**6} MB", work.parent)
    grub = boot.loaders(recipe.disk, place.bios // SECTOR, work)
    if len(grub.core) > place.esp - place.bios:
        raise BuildError("GRUB's core does not fit into the BIOS boot partition")
    esp = work / "esp.fat"
    files: dict[str, bytes | Path] = {
        "EFI/BOOT/BOOTX64.EFI": grub.efi,
        "grub/grub.cfg": boot.menu(recipe.disk, release).encode(),
        "linux": kernel,
    }
    boot.write_esp(esp, recipe.disk, files, recipe.root.epoch, work)
    with target.open("wb") as disk:
        disk.truncate(place.total)
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", target], input_text=table(place, recipe))
    with target.open("r+b") as disk:
        disk.write(grub.boot)
        disk.seek(place.bios)
        disk.write(grub.core)
        copy_sparse(esp, disk.fileno(), place.esp)
        copy_sparse(root, disk.fileno(), place.root)
    esp.unlink()
    verify(target, recipe)
    return place


def copy_sparse(source: Path, target: int, offset: int) -> int:
    """Copy the data of a file, not its holes, to `offset` of a descriptor that holds zeros there; return the bytes."""
    copied = 0
    with source.open("rb") as stream:
        descriptor, size = stream.fileno(), source.stat().st_size
        position = 0
        while position < size:
            try:
                begin = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            position = begin
            while position < end:
                count = os.copy_file_range(descriptor, target, end - position, position, offset + position)
                if count == 0:
                    raise BuildError(f"{source} became shorter while it was copied")
                position += count
                copied += count
    return copied


def verify(path: Path, recipe: Recipe) -> None:
    """Read the table back with sfdisk, which checks it; anything but the recipe's three partitions is an error."""
    complaint = ""
    result = run(["sfdisk", "--verify", path], check=False, env={"LC_ALL": "C.UTF-8"})
    if result.status != 0 or "No errors detected" not in result.output:
        complaint = (result.output.strip().splitlines() or ["no answer"])[-1]
    read = run(["sfdisk", "--json", path], check=False, merge_stderr=False)
    found = json.loads(read.output).get("partitiontable", {}) if read.status == 0 else {}
    identifiers = [part.get("uuid", "").lower() for part in found.get("partitions", [])]
    if not complaint and (
        found.get("label") != "gpt"
        or identifiers != [recipe.disk.bios_guid, recipe.disk.esp_guid, recipe.disk.root_guid]
    ):
        complaint = f"a table '{found.get('label', 'none')}' with {len(identifiers)} partitions instead of gpt with 3"
    if complaint:
        raise BuildError(f"sfdisk is not content with {path.name}: {complaint}", hint=f"sfdisk --verify {path}")
