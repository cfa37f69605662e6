# SPDX-License-Identifier: GPL-2.0-or-later
"""Signatures: good, wrong content, wrong key, none; kernel.org's tarballs from a local server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.source_fakes import Keys, Server, kernel_tar, line_for, live_in, serve, sha256, xz

from cloison_forge.core.paths import Project
from cloison_forge.core.stage import digest_file
from cloison_forge.source import cache, kernelorg, keyring
from cloison_forge.source.model import NotOfferedError, RefusedError
from cloison_forge.source.signature import Detached, UnknownKeyError, clearsigned, judge

LINE = line_for("6.12.7")


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Keys, Keys]]:
    pair = (Keys("developer"), Keys("stranger"))
    yield pair
    for one in pair:
        one.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return live_in(tmp_path, monkeypatch)


def checked(data: bytes, signature: bytes, ring: Path, folder: Path) -> str:
    (folder / "sig").write_bytes(signature)
    detached = Detached(folder / "sig", ring, "the tar")
    with detached.feed:
        for at in range(0, len(data), 1000):
            detached.feed.write(data[at : at + 1000])
        return detached.result().fingerprint


def test_a_detached_signature_is_checked_over_a_stream(keys: tuple[Keys, Keys], tmp_path: Path) -> None:
    good, stranger = keys
    data = kernel_tar("6.12.7")
    signature = good.detached(data)
    assert checked(data, signature, good.keyring, tmp_path) == good.fingerprint
    with pytest.raises(RefusedError, match="the tar is refused: the signature does not fit the contents"):
        checked(data + b"\0", signature, good.keyring, tmp_path)
    with pytest.raises(UnknownKeyError, match="key that is not in the keyring"):
        checked(data, stranger.detached(data), good.keyring, tmp_path)
    with pytest.raises(RefusedError, match="carries no signature"):
        checked(data, b"", good.keyring, tmp_path)


def test_only_the_signed_text_of_a_clear_signed_file_counts(keys: tuple[Keys, Keys], tmp_path: Path) -> None:
    good, stranger = keys
    path = tmp_path / "sums"
    path.write_bytes(b"abc not signed\n" + good.clear(b"abc signed\n"))
    text, signature = clearsigned(path, [good.keyring], "sums")
    assert text.strip() == "abc signed"
    assert signature.fingerprint == good.fingerprint
    path.write_bytes(good.clear(b"abc signed\n").replace(b"abc signed", b"abc forged"))
    with pytest.raises(RefusedError, match="does not fit"):
        clearsigned(path, [good.keyring], "sums")
    path.write_bytes(stranger.clear(b"abc signed\n"))
    with pytest.raises(UnknownKeyError):
        clearsigned(path, [good.keyring], "sums")


@pytest.mark.parametrize("word", ["BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG"])
def test_one_bad_signature_spoils_a_good_one(word: str) -> None:
    good = (
        "[GNUPG:] GOODSIG AB me\n[GNUPG:] VALIDSIG " + " ".join(["F" * 40, "2026-01-01", *"12345678", "E" * 40]) + "\n"
    )
    assert judge(good, "x").fingerprint == "E" * 40
    with pytest.raises(RefusedError):
        judge(good + f"[GNUPG:] {word} CD other\n", "x")
    assert judge(good + "[GNUPG:] ERRSIG CD 1 2 3 9 9\n[GNUPG:] NO_PUBKEY CD\n", "x").user == "me"


def test_the_developers_keyring_is_the_documented_one(place: Project) -> None:
    page = (keyring.DEVELOPERS.parent / "README.md").read_text(encoding="utf-8")
    assert digest_file(keyring.DEVELOPERS) in page
    ring = keyring.developers()
    data = ring.read_bytes()
    assert ring == keyring.developers()
    ring.write_bytes(b"tampered")
    assert keyring.developers().read_bytes() == data
    from cloison_forge.core.run import run

    listing = run(["gpg", "--homedir", place.cache, "--show-keys", "--with-colons", ring], merge_stderr=False).output
    primaries = re.findall(r"^pub:.*\n(?:.*\n)*?fpr:+([0-9A-F]{40}):", listing, re.M)
    assert len(primaries) == 4
    assert all(f"`{key}`" in page for key in primaries)


def test_a_file_without_keys_is_refused() -> None:
    with pytest.raises(RefusedError, match="holds no public key"):
        keyring.dearmoured("-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n", "x")


class Mirror:
    """kernel.org on 127.0.0.1 with some releases, signed by `developer`; the sums are signed by a stranger."""

    def __init__(self, server: Server, keys: tuple[Keys, Keys]) -> None:
        self.server, self.keys = server, keys
        self.sums: dict[str, str] = {}

    def release(self, version: str, *, signed: bytes = b"", by: int = 0) -> bytes:
        tar = kernel_tar(version, top=f"linux-{version}")
        base = f"/v6.x/linux-{version}.tar"
        self.server.files[f"{base}.xz"] = xz(tar)
        self.server.files[f"{base}.sign"] = self.keys[by].detached(signed or tar)
        self.sums[version] = sha256(xz(tar))
        self.publish()
        return tar

    def publish(self) -> None:
        text = "".join(f"{value}  linux-{version}.tar.xz\n" for version, value in self.sums.items())
        self.server.files["/v6.x/sha256sums.asc"] = self.keys[1].clear(text.encode())


@pytest.fixture
def mirror(keys: tuple[Keys, Keys], place: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serve() as server:
        monkeypatch.setenv("CLOISON_KERNELORG", server.url)
        yield Mirror(server, keys)


def left() -> list[str]:
    return sorted(path.name for path in cache.folder(LINE, "kernelorg").iterdir())


def test_a_release_with_a_good_signature_is_cached_with_its_proof(mirror: Mirror) -> None:
    tar = mirror.release("6.12.7")
    origin = kernelorg.fetch(LINE, keys=mirror.keys[0].keyring)
    assert (origin.name, origin.version, origin.tar_sha256) == ("kernelorg", "6.12.7", sha256(tar))
    assert origin.provenance["key"] == mirror.keys[0].fingerprint
    assert mirror.server.url not in str(origin.provenance)
    assert left() == ["linux-6.12.7.tar.xz", "linux-6.12.7.tar.xz.origin.json"]
    assert cache.cached(LINE, "kernelorg") == [origin]
    mirror.server.seen.clear()
    assert kernelorg.fetch(LINE, keys=mirror.keys[0].keyring) == origin
    assert [path for path, _ in mirror.server.seen] == ["/v6.x/sha256sums.asc"]


@pytest.mark.parametrize(("signed", "by", "why"), [(b"other", 0, "does not fit"), (b"", 1, "not in the keyring")])
def test_a_release_with_another_signature_is_put_aside(mirror: Mirror, signed: bytes, by: int, why: str) -> None:
    mirror.release("6.12.7", signed=signed, by=by)
    with pytest.raises(RefusedError, match=rf"linux-6\.12\.7\.tar\.xz is refused.*{why}") as caught:
        kernelorg.fetch(LINE, keys=mirror.keys[0].keyring)
    assert "quarantine" in caught.value.hint
    assert left() == []
    assert cache.cached(LINE) == []


def test_a_tampered_tarball_is_refused_by_its_hash(mirror: Mirror) -> None:
    mirror.release("6.12.7")
    mirror.server.files["/v6.x/linux-6.12.7.tar.xz"] = xz(kernel_tar("6.12.7", extra="evil"))
    with pytest.raises(RefusedError, match=r"linux-6\.12\.7\.tar\.xz is refused: its SHA-256"):
        kernelorg.fetch(LINE, keys=mirror.keys[0].keyring)
    assert left() == []


def test_a_tarball_with_a_matching_forged_hash_falls_to_the_signature(mirror: Mirror) -> None:
    mirror.release("6.12.7")
    evil = xz(kernel_tar("6.12.7", extra="evil"))
    mirror.server.files["/v6.x/linux-6.12.7.tar.xz"] = evil
    mirror.sums["6.12.7"] = sha256(evil)
    mirror.publish()
    with pytest.raises(RefusedError, match="does not fit the contents"):
        kernelorg.fetch(LINE, keys=mirror.keys[0].keyring)
    assert cache.cached(LINE) == []


def test_forged_sums_under_a_known_key_are_refused(mirror: Mirror, keys: tuple[Keys, Keys]) -> None:
    mirror.release("6.12.7")
    text = keys[0].clear(b"0" * 64 + b"  linux-6.12.7.tar.xz\n").replace(b"000  linux", b"001  linux")
    mirror.server.files["/v6.x/sha256sums.asc"] = text
    with pytest.raises(RefusedError, match=r"sha256sums\.asc is refused"):
        kernelorg.fetch(LINE, keys=keys[0].keyring)
    mirror.server.files["/v6.x/sha256sums.asc"] = b"<html>portal</html>"
    with pytest.raises(RefusedError, match=r"sha256sums\.asc"):
        kernelorg.fetch(LINE, keys=keys[0].keyring)


def test_the_newest_of_the_line_is_found_by_number(mirror: Mirror) -> None:
    for version in ("6.12.9", "6.12.10", "6.13.1", "6.1.200"):
        mirror.release(version)
    ring = mirror.keys[0].keyring
    assert kernelorg.fetch(LINE, "newest", keys=ring).version == "6.12.10"
    assert kernelorg.fetch(LINE, "6.12.9", keys=ring).version == "6.12.9"
    with pytest.raises(NotOfferedError, match=r"does not offer Linux 6\.12\.7") as caught:
        kernelorg.fetch(LINE, keys=ring)
    assert "6.12.10" in caught.value.hint
    del mirror.server.files["/v6.x/linux-6.12.10.tar.xz"]
    del mirror.server.files["/v6.x/linux-6.12.10.tar.sign"]
    for path in cache.folder(LINE, "kernelorg").glob("*6.12.10*"):
        path.unlink()
    assert kernelorg.fetch(LINE, "newest", keys=ring).version == "6.12.9"
