# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk: its table is checked by an independent reader, the boot loaders by their bytes, and twice is the same."""

from __future__ import annotations

import binascii
import os
import struct
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from cloison_forge.core.errors import BuildError, ToolMissingError
from cloison_forge.image import boot, disk, recipe

PLAN = recipe.load()
RELEASE = "6.12.117-cloison"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, disk.Layout]:
    work = tmp_path_factory.mktemp("disk")
    kernel, root = work / "bzImage", work / "root.ext4"
    kernel.write_bytes(os.urandom(3_000_001))
    with root.open("wb") as stream:
        stream.write(b"begin")
        stream.seek(20 << 20)
        stream.write(b"middle")
        stream.truncate(40 << 20)
    place = disk.write(work / "disk.raw", PLAN, kernel, RELEASE, root, work)
    return work / "disk.raw", kernel, root, place


def header(data: bytes) -> dict[str, int | bytes]:
    """Read a GPT header and check its own checksum."""
    signature, _, size, crc, _, own, other, first, last = struct.unpack_from("<8sIIIIQQQQ", data)
    guid, entries, count, length, entries_crc = struct.unpack_from("<16sQIII", data, 56)
    assert signature == b"EFI PART"
    assert binascii.crc32(data[:16] + bytes(4) + data[20:size]) == crc
    return {
        "own": own, "other": other, "first": first, "last": last, "guid": guid,
        "entries": entries, "count": count, "length": length, "crc": entries_crc,
    }  # fmt: skip


def test_both_tables_are_right(made: tuple[Path, Path, Path, disk.Layout]) -> None:
    path, _, _, place = made
    data = path.read_bytes()
    main = header(data[512:1024])
    backup = header(data[-512:])
    last = len(data) // 512 - 1
    assert (main["own"], main["other"], backup["own"], backup["other"]) == (1, last, last, 1)
    assert main["guid"] == backup["guid"] == uuid.UUID(PLAN.disk.guid).bytes_le
    tables = []
    for head in (main, backup):
        begin = int(head["entries"]) * 512
        table = data[begin : begin + int(head["count"]) * int(head["length"])]
        assert binascii.crc32(table) == head["crc"]
        tables.append(table)
    assert tables[0] == tables[1]
    found = [struct.unpack_from("<16s16sQQ", tables[0], number * 128) for number in range(4)]
    assert [entry[1] for entry in found] == [
        uuid.UUID(PLAN.disk.bios_guid).bytes_le,
        uuid.UUID(PLAN.disk.esp_guid).bytes_le,
        uuid.UUID(PLAN.disk.root_guid).bytes_le,
        bytes(16),
    ]
    assert found[2][2] * 512 == place.root
    assert (found[2][3] + 1) * 512 == place.root + place.root_size
    assert found[2][3] <= int(main["last"])
    assert data[510:512] == b"\x55\xaa"
    assert data[450] == 0xEE


def test_the_boot_sector_leads_to_the_core(made: tuple[Path, Path, Path, disk.Layout]) -> None:
    data = made[0].read_bytes()
    (sector,) = struct.unpack_from("<Q", data, 0x5C)
    assert sector * 512 == made[3].bios
    core = data[sector * 512 :]
    rest, length, segment = struct.unpack_from("<QHH", core, 0x1F4)
    assert rest == sector + 1
    assert length * 512 < made[3].esp - made[3].bios
    assert segment == 0x820
    assert any(core[512 : 512 * length])


def test_the_esp_holds_kernel_menu_and_loader(made: tuple[Path, Path, Path, disk.Layout], tmp_path: Path) -> None:
    path, kernel, _, place = made

    def read(name: str) -> bytes:
        words = ["mcopy", "-i", f"{path}@@{place.esp}", f"::/{name}", "-"]
        return subprocess.run(words, check=True, capture_output=True).stdout

    assert read("linux") == kernel.read_bytes()
    menu = read("grub/grub.cfg").decode()
    default = menu.split("menuentry")[1]
    assert f"root=PARTUUID={PLAN.disk.root_guid}" in default
    assert "init=/usr/lib/cloison/init" in default
    assert "console=ttyS0,115200" in default
    assert RELEASE in default
    loader = read("EFI/BOOT/BOOTX64.EFI")
    assert loader[:2] == b"MZ"
    assert f"{PLAN.disk.esp_serial[:4]}-{PLAN.disk.esp_serial[4:]}".encode() in loader
    data = path.read_bytes()[place.esp : place.root]
    assert struct.unpack_from("<I", data, 67)[0] == int(PLAN.disk.esp_serial, 16)
    assert data[82:87] == b"FAT32"


def test_the_root_partition_is_the_image_and_the_disk_stays_sparse(
    made: tuple[Path, Path, Path, disk.Layout],
) -> None:
    path, _, root, place = made
    data = path.read_bytes()
    assert data[place.root : place.root + root.stat().st_size] == root.read_bytes()
    assert path.stat().st_blocks * 512 < 16 << 20
    disk.verify(path, PLAN)


def test_twice_gives_the_same_bytes(made: tuple[Path, Path, Path, disk.Layout], tmp_path: Path) -> None:
    path, kernel, root, _ = made
    disk.write(tmp_path / "again.raw", PLAN, kernel, RELEASE, root, tmp_path)
    assert (tmp_path / "again.raw").read_bytes() == path.read_bytes()


def test_a_damaged_table_is_named(made: tuple[Path, Path, Path, disk.Layout], tmp_path: Path) -> None:
    copy = tmp_path / "broken.raw"
    subprocess.run(["cp", "--sparse=always", made[0], copy], check=True)
    with copy.open("r+b") as stream:
        for place in (512, -512):
            stream.seek(place, os.SEEK_SET if place > 0 else os.SEEK_END)
            stream.write(bytes(8))
    with pytest.raises(BuildError, match=r"sfdisk is not content with broken\.raw"):
        disk.verify(copy, PLAN)


def test_a_kernel_that_does_not_fit_is_one_line(made: tuple[Path, Path, Path, disk.Layout], tmp_path: Path) -> None:
    small = replace(PLAN, disk=replace(PLAN.disk, esp_mib=34))
    kernel = tmp_path / "bzImage"
    kernel.touch()
    os.truncate(kernel, 60 << 20)
    with pytest.raises(BuildError, match="the EFI system partition has 34") as caught:
        disk.write(tmp_path / "disk.raw", small, kernel, RELEASE, made[2], tmp_path)
    assert "esp_mib" in caught.value.hint


def test_a_full_disk_is_told_at_once(
    made: tuple[Path, Path, Path, disk.Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: 10**6)
    with pytest.raises(BuildError, match="no space left on the disk of"):
        disk.write(tmp_path / "disk.raw", PLAN, made[1], RELEASE, made[2], tmp_path)


def test_a_missing_grub_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "GRUB", tmp_path)
    with pytest.raises(ToolMissingError, match="GRUB for i386-pc is not installed") as caught:
        boot.loaders(PLAN.disk, 2048, tmp_path)
    assert "grub-pc-bin" in caught.value.hint


def test_another_grub_is_refused_instead_of_patched() -> None:
    with pytest.raises(BuildError, match="another layout"):
        boot.place_core(bytes(4096), 2048)
    with pytest.raises(BuildError, match="not a boot sector"):
        boot.place_boot(bytes(512), 2048)


def test_holes_are_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        stream.seek(8 << 20)
        stream.write(b"data")
        stream.truncate(32 << 20)
    with target.open("wb") as stream:
        stream.truncate(64 << 20)
    with target.open("r+b") as stream:
        assert 4 <= disk.copy_sparse(source, stream.fileno(), 1 << 20) <= 1 << 20
    assert target.read_bytes()[9 << 20 : (9 << 20) + 4] == b"data"
    assert target.stat().st_size == 64 << 20
