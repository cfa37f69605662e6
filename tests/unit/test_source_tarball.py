# SPDX-License-Identifier: GPL-2.0-or-later
"""Tarballs and trees: every compression, damage, the proof on the way, one hash for a tree."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.source_fakes import kernel_files, kernel_tar, sha256, xz

from cloison_forge.core.errors import CommandError
from cloison_forge.core.run import Fed
from cloison_forge.source import tarball, tree
from cloison_forge.source.model import RefusedError

TAR = kernel_tar("6.12.7", extra="x" * 300_000)


@pytest.mark.parametrize("pack", [xz, gzip.compress, bz2.compress, bytes])
def test_the_hash_is_of_the_uncompressed_tar(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(pack(TAR))
    with Fed(["sha256sum"]) as beside:
        assert tarball.digest(path, "t", [beside]) == sha256(TAR)
        assert beside.finish().output.split()[0] == sha256(TAR)


@pytest.mark.parametrize("pack", [xz, gzip.compress, bz2.compress])
def test_a_truncated_tarball_is_refused(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(pack(TAR)[:-40])
    with pytest.raises(RefusedError, match=r"t\.tar is refused: it is damaged or truncated"):
        tarball.digest(path, "t.tar")


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    data = bytearray(xz(TAR))
    data[len(data) // 2] ^= 4
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(RefusedError, match="damaged"):
        tarball.digest(tmp_path / "t", "t")


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\x28\xb5\x2f\xfd" + b"x" * 100)
    with pytest.raises(RefusedError, match="zstd is not supported"):
        tarball.digest(tmp_path / "t", "t")


def unpack(data: bytes, tmp_path: Path, expected: str = "") -> Path:
    (tmp_path / "t.xz").write_bytes(xz(data))
    out = tmp_path / "out"
    out.mkdir()
    tarball.extract(tmp_path / "t.xz", "t.xz", out, expected or sha256(data))
    return out


def test_extraction_keeps_names_modes_contents_and_links(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        out = unpack(TAR, tmp_path)
    finally:
        os.umask(old)
    for name, (data, mode) in kernel_files("6.12.7", "x" * 300_000).items():
        assert (out / name).read_bytes() == data
        assert (out / name).stat().st_mode & 0o777 == mode
    assert (out / "link").is_symlink()
    assert tree.version_of(out, "t") == "6.12.7"


def test_another_tar_than_the_expected_one_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"t\.xz is refused: the SHA-256 of the uncompressed tar"):
        unpack(TAR, tmp_path, "0" * 64)


def test_what_is_no_tar_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be extracted"):
        unpack(b"no tar at all, whatever its hash says" * 50, tmp_path)


def test_a_tar_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as made:
        for name in ("top/../../evil", "/tmp/cloison-evil/x"):
            member = tarfile.TarInfo(name)
            member.size = 4
            made.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(CommandError):
        unpack(sink.getvalue(), tmp_path)
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/cloison-evil").exists()


def plain_tree_hash(root: Path) -> str:
    """Compute the documented tree hash the slow and obvious way."""
    records = []
    for path in root.rglob("*"):
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            records.append((name, "120000", sha256(os.fsencode(path.readlink()))))
        elif path.is_file() and name != b".cloison-source.json":
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            records.append((name, mode, sha256(path.read_bytes())))
    total = hashlib.sha256()
    for name, mode, digest in sorted(records):
        total.update(f"{mode} {digest} ".encode() + name + b"\0")
    return total.hexdigest()


def test_the_tree_hash_is_what_its_documentation_says(tmp_path: Path) -> None:
    out = unpack(TAR, tmp_path)
    for place in range(40):
        (out / f"d{place}/e").mkdir(parents=True)
        (out / f"d{place}/e/f.c").write_text(str(place), encoding="ascii")
    (out / "d1.c").write_text("sorts between d1/ and d10/", encoding="ascii")
    assert tree.tree_sha256(out) == plain_tree_hash(out)


def test_the_tree_hash_sees_what_counts_and_nothing_else(tmp_path: Path) -> None:
    out = unpack(TAR, tmp_path)
    first = tree.tree_sha256(out)
    os.utime(out / "Makefile", (1, 1))
    (out / "Kconfig").chmod(0o600)
    (out / tree.STAMP).write_text("{}", encoding="ascii")
    (out / "empty").mkdir()
    assert tree.tree_sha256(out) == first

    def changed(act: Callable[[], object], undo: Callable[[], object]) -> bool:
        act()
        seen = tree.tree_sha256(out)
        undo()
        assert tree.tree_sha256(out) == first
        return seen != first

    data = (out / "Kconfig").read_bytes()
    assert changed(lambda: (out / "Kconfig").write_bytes(data + b"y"), lambda: (out / "Kconfig").write_bytes(data))
    assert changed(lambda: (out / "Kconfig").chmod(0o755), lambda: (out / "Kconfig").chmod(0o644))
    assert changed(lambda: (out / "Kconfig").rename(out / "Kc"), lambda: (out / "Kc").rename(out / "Kconfig"))
    assert changed(lambda: (out / "new").write_bytes(b""), lambda: (out / "new").unlink())
    target = (out / "link").readlink()

    def relink(to: Path) -> None:
        (out / "link").unlink()
        (out / "link").symlink_to(to)

    assert changed(lambda: relink(Path("Makefile")), lambda: relink(target))


def test_a_folder_that_is_no_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no kernel source"):
        tree.version_of(tmp_path, "there")
    (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 0\nEXTRAVERSION = -rc3\n", "ascii")
    assert tree.version_of(tmp_path, "there") == "6.12.0-rc3"
