# SPDX-License-Identifier: GPL-2.0-or-later
"""The origins git and local: references, signed tags, the user's own trees and tarballs."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.source_fakes import Keys, kernel_files, kernel_tar, line_for, live_in, sha256

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import Project
from cloison_forge.source import cache, gitrepo, local
from cloison_forge.source.model import NotOfferedError, RefusedError, UnreachableError

LINE = line_for("6.12.7")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    return live_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    one = Keys("tagger")
    yield one
    one.close()


def git(folder: Path, *words: str, text: str | None = None) -> str:
    argv = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True, input=text).stdout.strip()


def write(folder: Path, version: str = "6.12.7") -> Path:
    for name, (data, mode) in kernel_files(version).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    return folder


def repository(folder: Path, version: str = "6.12.7") -> Path:
    write(folder, version)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v6.12.7")
    return folder


def names(tar: Path) -> set[str]:
    with tarfile.open(tar) as opened:
        return {member.name.partition("/")[2] for member in opened if not member.isdir()}


def test_a_tag_becomes_a_tar_and_is_known_again(place: Project, tmp_path: Path) -> None:
    there = repository(tmp_path / "repo")
    value = f"{there}#v6.12.7"
    origin = gitrepo.fetch(LINE, value)
    assert (origin.name, origin.version) == ("git", "6.12.7")
    assert origin.provenance["commit"] == git(there, "rev-parse", "HEAD")
    assert origin.provenance["tag_signature"] == "none (not a signed tag)"
    assert str(tmp_path) not in str(origin.provenance)
    assert names(origin.tar) == set(kernel_files("6.12.7"))
    assert sha256(origin.tar.read_bytes()) == origin.tar_sha256
    assert gitrepo.fetch(LINE, value) == origin
    assert gitrepo.cached(LINE, value) == origin
    assert gitrepo.cached(LINE, f"{there}#main") is None


def test_a_branch_that_moved_is_seen(place: Project, tmp_path: Path) -> None:
    there = repository(tmp_path / "repo")
    before = gitrepo.fetch(LINE, f"{there}#main")
    (there / "new.c").write_text("int y;\n", encoding="ascii")
    git(there, "add", "-A")
    git(there, "commit", "-qm", "two")
    after = gitrepo.fetch(LINE, f"{there}#main")
    assert after.tar_sha256 != before.tar_sha256
    assert "new.c" in names(after.tar)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("{repo}#v6.12.8", NotOfferedError, r"v6\.12\.8 of a local repository cannot be had"),
        ("{repo}#old", RefusedError, "is Linux 5.10.1, not of the line 6.12"),
        ("{repo}#empty", RefusedError, "no kernel source"),
        ("/nowhere/at/all#v1", UnreachableError, "cannot be had"),
        ("--upload-pack=touch x#v1", UsageError, "names no git reference"),
        ("{repo}#--exec=x", UsageError, "names no git reference"),
        ("#", UsageError, "names no git reference"),
    ],
)
def test_what_cannot_be_had_is_named(
    place: Project, tmp_path: Path, value: str, kind: type[Exception], text: str
) -> None:
    there = repository(tmp_path / "repo")
    git(there, "checkout", "-q", "-b", "old")
    write(there, "5.10.1")
    git(there, "commit", "-qam", "old")
    git(there, "rm", "-q", "Makefile")
    git(there, "commit", "-qm", "empty")
    git(there, "branch", "empty")
    git(there, "reset", "-q", "--hard", "HEAD~1")
    with pytest.raises(kind, match=text) as caught:
        gitrepo.fetch(LINE, value.format(repo=there))
    assert "\n" not in str(caught.value)
    assert cache.cached(LINE, "git") == []


def signed_tag(there: Path, keys: Keys, name: str, *, forge: bool = False) -> None:
    commit = git(there, "rev-parse", "HEAD")
    text = f"object {commit}\ntype commit\ntag {name}\ntagger t <t@example.org> 1700000000 +0000\n\nLinux\n"
    signature = keys.detached((text + "x" if forge else text).encode()).decode()
    made = git(there, "hash-object", "-t", "tag", "-w", "--stdin", text=text + signature)
    git(there, "update-ref", f"refs/tags/{name}", made)


def test_the_signature_of_a_tag_is_checked(place: Project, tmp_path: Path, keys: Keys) -> None:
    there = repository(tmp_path / "repo")
    signed_tag(there, keys, "good")
    signed_tag(there, keys, "forged", forge=True)
    origin = gitrepo.fetch(LINE, f"{there}#good", keys=keys.keyring)
    assert str(origin.provenance["tag_signature"]).startswith(keys.fingerprint)
    with pytest.raises(RefusedError, match="tag forged is refused: the signature does not fit"):
        gitrepo.fetch(LINE, f"{there}#forged", keys=keys.keyring)
    signed_tag(there, keys, "again")
    unknown = gitrepo.fetch(LINE, f"{there}#again")
    assert str(unknown.provenance["tag_signature"]).startswith("not checked")


def test_requests_are_read_as_url_and_reference(tmp_path: Path) -> None:
    assert gitrepo.parse(LINE, "") == (gitrepo.STABLE, "v6.12.7")
    assert gitrepo.parse(LINE, "v6.12.9") == (gitrepo.STABLE, "v6.12.9")
    assert gitrepo.parse(LINE, "https://example.org/l.git#x/y") == ("https://example.org/l.git", "x/y")
    assert gitrepo.parse(LINE, str(tmp_path)) == (str(tmp_path), "HEAD")
    assert gitrepo._public("https://me:secret@example.org/l.git", "x") == ("https://example.org/l.git", "x")


def test_a_git_tree_is_packed_without_what_git_ignores(place: Project, tmp_path: Path) -> None:
    there = repository(tmp_path / "repo")
    (there / ".gitignore").write_text("*.o\n", encoding="ascii")
    (there / "x.o").write_bytes(b"\0")
    (there / "new.c").write_text("int z;\n", encoding="ascii")
    (there / "Kconfig").unlink()
    origin = local.fetch(LINE, str(there))
    assert names(origin.tar) == set(kernel_files("6.12.7")) - {"Kconfig"} | {".gitignore", "new.c"}
    assert origin.version == "6.12.7"
    assert str(tmp_path) not in str(origin.provenance)


def test_a_plain_tree_gives_the_same_tar_twice_and_must_be_clean(place: Project, tmp_path: Path) -> None:
    there = write(tmp_path / "tree")
    one = local.fetch(LINE, str(there)).tar_sha256
    os.utime(there / "Makefile", (1, 1))
    origin = local.fetch(LINE, str(there))
    assert origin.tar_sha256 == one
    assert names(origin.tar) == set(kernel_files("6.12.7"))
    (there / ".config").touch()
    with pytest.raises(UsageError, match=r"has been built in \(\.config is there\)"):
        local.fetch(LINE, str(there))


def test_a_tarball_is_taken_as_it_is(place: Project, tmp_path: Path) -> None:
    tar = tmp_path / "mine.tar"
    tar.write_bytes(kernel_tar("6.12.7"))
    origin = local.fetch(LINE, str(tar))
    assert (origin.tar, origin.tar_sha256) == (tar, sha256(tar.read_bytes()))


@pytest.mark.parametrize(("value", "text"), [("", "needs a folder or a tarball"), ("/no/such", "does not exist")])
def test_a_local_origin_that_is_not_there_is_a_usage_error(place: Project, value: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        local.fetch(LINE, value)


def test_touching_a_tree_changes_its_fingerprint(tmp_path: Path) -> None:
    there = write(tmp_path / "tree")
    before = local.fingerprint(str(there))
    assert local.fingerprint(str(there)) == before
    (there / "Kconfig").write_text("other\n", encoding="ascii")
    assert local.fingerprint(str(there)) != before
    assert local.fingerprint(str(tmp_path / "gone")) == ""
