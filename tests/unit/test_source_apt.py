# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's origins against an archive of our own on 127.0.0.1: indexes, packages and sources, honest and forged."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.source_fakes import Keys, Server, kernel_tar, line_for, live_in, serve, sha256, xz

from cloison_forge.core.errors import BuildError, CommandError
from cloison_forge.core.lines import Line
from cloison_forge.core.paths import Project
from cloison_forge.source import apt, cache, debian, orig
from cloison_forge.source.api import FetchOptions, fetch
from cloison_forge.source.model import NotOfferedError, RefusedError, UnreachableError

ARCHITECTURE = subprocess.run(
    ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
).stdout.strip()
TAR = kernel_tar("6.12.7")
LINE = line_for("6.12.7", TAR)


class Archive:
    """A Debian archive with one suite, and a machine that has it among its package sources."""

    def __init__(self, server: Server, keys: Keys, folder: Path) -> None:
        self.server, self.keys, self.folder = server, keys, folder
        self.packages: list[str] = []
        self.sources: list[str] = []
        self.machine = folder / "etc-apt"
        (self.machine / "sources.list.d").mkdir(parents=True)
        (self.machine / "trusted.gpg.d").mkdir()
        ring = self.machine / "trusted.gpg.d" / keys.keyring.name
        ring.write_bytes(keys.keyring.read_bytes())
        self.source = self.machine / "sources.list.d" / "test.sources"
        self.source.write_text(
            f"Types: deb\nURIs: {server.url}/debian\nSuites: stable\nComponents: main\nSigned-By: {ring}\n", "ascii"
        )

    def package(self, version: str, tar: bytes) -> str:
        """Add a linux-source package and return its path on the server."""
        tree = self.folder / f"deb-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/src").mkdir(parents=True)
        (tree / "usr/src/linux-source-6.12.tar.xz").write_bytes(xz(tar))
        control = (
            f"Package: linux-source-6.12\nSource: linux-6.12\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: T <t@example.org>\nDescription: test\n"
        )
        (tree / "DEBIAN/control").write_text(control, "ascii")
        made = self.folder / f"{version}.deb"
        subprocess.run(
            ["dpkg-deb", "--build", "-Znone", "--root-owner-group", tree, made], check=True, capture_output=True
        )
        data = made.read_bytes()
        name = f"pool/linux-source-6.12_{version}_all.deb"
        self.server.files[f"/debian/{name}"] = data
        self.packages.append(f"{control}Filename: {name}\nSize: {len(data)}\nSHA256: {sha256(data)}\n")
        self.publish()
        return f"/debian/{name}"

    def upload(self, version: str, tar: bytes, *, named: bytes = b"") -> tuple[str, str]:
        """Add a source package, its description naming `named` or the tarball, and return the paths of both."""
        upstream = version.partition("-")[0]
        packed = xz(tar)
        tarball, described = f"linux-6.12_{upstream}.orig.tar.xz", f"linux-6.12_{version}.dsc"
        text = f"Format: 3.0 (quilt)\nSource: linux-6.12\nVersion: {version}\nChecksums-Sha256:\n"
        dsc = self.keys.clear(f"{text} {sha256(named or packed)} {len(packed)} {tarball}\n".encode())
        for name, data in ((tarball, packed), (described, dsc)):
            self.server.files[f"/debian/pool/{name}"] = data
        both = ((described, dsc), (tarball, packed))
        sums = "\n".join(f" {sha256(data)} {len(data)} {name}" for name, data in both)
        md5 = "\n".join(f" {hashlib.md5(data).hexdigest()} {len(data)} {name}" for name, data in both)
        self.sources.append(
            f"Package: linux-6.12\nBinary: linux-source-6.12\nVersion: {version}\nArchitecture: any\n"
            f"Format: 3.0 (quilt)\nDirectory: pool\nFiles:\n{md5}\nChecksums-Sha256:\n{sums}\n"
        )
        self.publish()
        return f"/debian/pool/{tarball}", f"/debian/pool/{described}"

    def publish(self, by: Keys | None = None) -> None:
        indexes = {
            f"main/binary-{ARCHITECTURE}/Packages": "\n".join(self.packages).encode(),
            "main/source/Sources": "\n".join(self.sources).encode(),
        }
        release = (
            f"Origin: Debian\nLabel: Test\nSuite: stable\nCodename: stable\nArchitectures: {ARCHITECTURE}\n"
            "Components: main\nDate: Sun, 01 Nov 2026 00:00:00 UTC\nSHA256:\n"
        )
        for name, data in indexes.items():
            self.server.files[f"/debian/dists/stable/{name}"] = data
            release += f" {sha256(data)} {len(data)} {name}\n"
        self.server.files["/debian/dists/stable/InRelease"] = (by or self.keys).clear(release.encode())


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Keys, Keys]]:
    pair = (Keys("archive"), Keys("intruder"))
    yield pair
    for one in pair:
        one.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return live_in(tmp_path, monkeypatch)


@pytest.fixture
def archive(keys: tuple[Keys, Keys], place: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    with serve() as server:
        made = Archive(server, keys[0], place.root)
        monkeypatch.setattr(apt, "MACHINE", made.machine)
        yield made


def left(line: Line, origin: str) -> list[str]:
    place = cache.folder(line, origin)
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def test_the_pinned_package_is_proved_and_cached(archive: Archive) -> None:
    archive.package("6.12.7-1", TAR)
    origin = debian.fetch(LINE)
    assert (origin.version, origin.package_version, origin.tar_sha256) == ("6.12.7", "6.12.7-1", sha256(TAR))
    assert origin.provenance["keys"] == [archive.keys.fingerprint]
    assert origin.provenance["suite"] == "stable"
    assert "127.0.0.1" not in str(origin.provenance)
    assert left(LINE, "debian") == [
        "linux-source-6.12_6.12.7-1.tar.xz",
        "linux-source-6.12_6.12.7-1.tar.xz.origin.json",
    ]
    archive.server.seen.clear()
    assert debian.fetch(LINE) == origin
    assert not [path for path, _ in archive.server.seen if "pool" in path]


def test_the_newest_of_the_line_is_taken_and_one_that_is_gone_passed_over(archive: Archive) -> None:
    for version in ("6.12.9-1", "6.12.10-1~deb12u1", "6.13.1-1"):
        path = archive.package(version, kernel_tar(version.partition("-")[0]))
    path = archive.package("6.12.11-1", kernel_tar("6.12.11"))
    del archive.server.files[path]
    assert debian.fetch(LINE, "newest").package_version == "6.12.10-1~deb12u1"
    assert debian.fetch(LINE, "6.12.9-1").version == "6.12.9"
    with pytest.raises(
        NotOfferedError, match=r"does not offer linux-source-6\.12 6\.12\.7-1 to this machine"
    ) as caught:
        debian.fetch(LINE)
    assert "6.12.9-1" in caught.value.hint


def test_a_package_of_the_pinned_version_with_other_contents_is_refused(archive: Archive) -> None:
    archive.package("6.12.7-1", kernel_tar("6.12.7", extra="rebuilt"))
    with pytest.raises(RefusedError, match=r"6\.12\.7-1 is refused: the SHA-256 of its uncompressed tar"):
        debian.fetch(LINE)
    assert left(LINE, "debian") == []


def test_a_tampered_package_is_refused_and_removed(archive: Archive) -> None:
    path = archive.package("6.12.7-1", TAR)
    data = bytearray(archive.server.files[path])
    data[len(data) // 2] ^= 1
    archive.server.files[path] = bytes(data)
    with pytest.raises(RefusedError, match=r"linux-source-6\.12_6\.12\.7-1\.deb is refused: its SHA-256"):
        debian.fetch(LINE)
    assert left(LINE, "debian") == []
    archive.packages.clear()
    archive.package("6.12.7-1.1", TAR)


def test_an_interrupted_package_is_resumed(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    path = archive.package("6.12.7-1", TAR)
    part = cache.folder(LINE, "debian") / "linux-source-6.12_6.12.7-1.deb.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(archive.server.files[path][:1000])
    debian.fetch(LINE)
    assert (path, "bytes=1000-") in archive.server.seen


def test_a_disk_that_fills_up_while_unpacking_keeps_the_download(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive.package("6.12.7-1", TAR)

    def full(argv: list[object], **_: object) -> None:
        raise CommandError(f"{argv[0]} failed\n | tar: x: Wrote only 3584 of 10240 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(debian, "run", full)
        with pytest.raises(BuildError, match="no space left on the disk") as caught:
            fetch(LINE, FetchOptions("debian"))
        assert "\n" not in caught.value.message
    assert left(LINE, "debian") == ["linux-source-6.12_6.12.7-1.deb"]
    archive.server.seen.clear()
    assert fetch(LINE, FetchOptions("debian")).tar_sha256 == sha256(TAR)
    assert path not in [seen for seen, _ in archive.server.seen]


def test_a_disk_that_is_too_small_is_named_at_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.package("6.12.7-1", TAR)
    with monkeypatch.context() as patch:
        patch.setattr(debian, "free_bytes", lambda _: 1000)
        with pytest.raises(BuildError, match=r"linux-source-6\.12 \(0 MB\): no space left"):
            debian.fetch(LINE)
    archive.server.seen.clear()
    monkeypatch.setattr(apt, "free_bytes", lambda _: 10**6)
    with pytest.raises(BuildError, match=r"Debian's package lists \(200 MB\): no space left"):
        debian.fetch(LINE)
    assert archive.server.seen == []


def test_a_release_signed_by_another_key_is_refused(archive: Archive, keys: tuple[Keys, Keys]) -> None:
    archive.package("6.12.7-1", TAR)
    archive.publish(by=keys[1])
    with pytest.raises(RefusedError, match="Debian's package lists are refused"):
        debian.fetch(LINE)
    assert left(LINE, "debian") == []


def test_trust_that_the_machine_gives_away_is_not_taken(archive: Archive, keys: tuple[Keys, Keys]) -> None:
    archive.package("6.12.7-1", TAR)
    archive.publish(by=keys[1])
    archive.source.write_text(archive.source.read_text("ascii") + "Trusted: yes\nAllow-Insecure: yes\n", "ascii")
    with pytest.raises(RefusedError, match="package lists are refused"):
        debian.fetch(LINE)
    archive.source.unlink()
    (archive.machine / "sources.list").write_text(
        f"deb [trusted=yes] {archive.server.url}/debian stable main\n", "ascii"
    )
    with pytest.raises(RefusedError, match="package lists are refused"):
        debian.fetch(LINE)


def test_a_forged_index_is_refused(archive: Archive) -> None:
    path = archive.package("6.12.7-1", TAR)
    index = f"/debian/dists/stable/main/binary-{ARCHITECTURE}/Packages"
    archive.server.files[index] = archive.server.files[index].replace(b"Description: test", b"Description: evil")
    with pytest.raises((NotOfferedError, RefusedError, UnreachableError)):
        debian.fetch(LINE)
    assert path not in [seen for seen, _ in archive.server.seen]


def test_an_archive_that_does_not_answer_is_unreachable(archive: Archive) -> None:
    archive.source.write_text(
        archive.source.read_text("ascii").replace(archive.server.url, "http://127.0.0.1:9"), "ascii"
    )
    with pytest.raises(UnreachableError, match="Debian's package lists cannot be had") as caught:
        debian.fetch(LINE)
    assert "\n" not in caught.value.message
    archive.source.unlink()
    with pytest.raises(UnreachableError, match="no Debian repository is configured"):
        debian.fetch(LINE)


def test_a_broken_repository_beside_a_good_one_does_no_harm(archive: Archive) -> None:
    archive.package("6.12.7-1", TAR)
    (archive.machine / "sources.list.d/other.list").write_text(
        f"deb {archive.server.url}/nothing stable main\n", "ascii"
    )
    assert debian.fetch(LINE).package_version == "6.12.7-1"


def on_disk(archive: Archive) -> None:
    """Move the archive from the server to a folder that the machine has as file: source."""
    for name, data in archive.server.files.items():
        path = archive.folder / "mirror" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    archive.source.write_text(
        archive.source.read_text("ascii").replace(archive.server.url, f"file:{archive.folder}/mirror"), "ascii"
    )


def test_an_archive_that_is_no_web_server_is_left_to_apt(archive: Archive) -> None:
    archive.package("6.12.7-1", TAR)
    archive.upload("6.12.7-1", TAR)
    on_disk(archive)
    assert debian.fetch(LINE).tar_sha256 == sha256(TAR)
    assert orig.fetch(LINE).tar_sha256 == sha256(TAR)
    assert archive.server.seen == []
    assert not any(origin.tar.is_symlink() for origin in cache.cached(LINE))
    assert len(list((archive.folder / "mirror/debian/pool").iterdir())) == 3
    assert left(LINE, "orig") == ["linux-6.12_6.12.7.orig.tar.xz", "linux-6.12_6.12.7.orig.tar.xz.origin.json"]


def test_what_apt_brings_is_checked_too(archive: Archive) -> None:
    path = archive.package("6.12.7-1", TAR)
    archive.upload("6.12.7-1", TAR)
    archive.server.files[path] = archive.server.files[path][:-1] + b"!"
    on_disk(archive)
    with pytest.raises((UnreachableError, RefusedError), match=r"linux-source-6\.12_6\.12\.7-1\.deb"):
        debian.fetch(LINE)
    assert cache.cached(LINE) == []
    (archive.folder / "mirror" / path.lstrip("/")).unlink()
    with pytest.raises((UnreachableError, NotOfferedError), match=r"linux-source-6\.12_6\.12\.7-1\.deb"):
        debian.fetch(LINE)


def test_the_orig_tarball_comes_without_deb_src_lines(archive: Archive) -> None:
    archive.upload("6.12.7-1", TAR)
    archive.upload("6.12.10-1", kernel_tar("6.12.10"))
    origin = orig.fetch(LINE)
    assert (origin.name, origin.version, origin.tar_sha256) == ("orig", "6.12.7", sha256(TAR))
    assert str(origin.provenance["dsc_signature"]).startswith("not checked")
    assert origin.provenance["keys"] == [archive.keys.fingerprint]
    assert orig.fetch(LINE, "newest").version == "6.12.10"
    with pytest.raises(NotOfferedError, match=r"does not offer the source of Linux 6\.12\.8"):
        orig.fetch(LINE, "6.12.8")


def test_a_description_signed_by_a_known_person_is_recorded(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orig, "DEBIAN_KEYRINGS", (archive.keys.keyring,))
    archive.upload("6.12.7-1", TAR)
    origin = orig.fetch(LINE)
    assert str(origin.provenance["dsc_signature"]).startswith(archive.keys.fingerprint)


def test_a_signed_description_of_another_tarball_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orig, "DEBIAN_KEYRINGS", (archive.keys.keyring,))
    archive.upload("6.12.7-1", TAR, named=b"another")
    with pytest.raises(RefusedError, match="names another file"):
        orig.fetch(LINE)
    assert left(LINE, "orig") == []


def test_a_tampered_orig_tarball_is_refused(archive: Archive) -> None:
    path, _ = archive.upload("6.12.7-1", TAR)
    archive.server.files[path] = xz(kernel_tar("6.12.7", extra="evil"))
    with pytest.raises(RefusedError, match=r"linux-6\.12_6\.12\.7\.orig\.tar\.xz is refused"):
        orig.fetch(LINE)
    assert left(LINE, "orig") == []


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("Types: deb deb-src\nTrusted: yes\nURIs: u\n", ".sources", "Types: deb-src\nURIs: u\n"),
        ("deb [arch=amd64 trusted=yes] u s main\n# deb x\n", ".list", "deb-src [arch=amd64 ] u s main\n"),
        ("deb [trusted=yes] u s main\ndeb-src u s main\n", ".list", "deb-src u s main\n"),
        ("deb cdrom:[Debian]/ s main\n", ".list", "deb-src cdrom:[Debian]/ s main\n"),
    ],
)
def test_package_sources_are_rewritten_to_one_kind(text: str, suffix: str, expected: str) -> None:
    assert apt._of_kind(text, suffix, "deb-src") == expected
