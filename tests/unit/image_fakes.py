# SPDX-License-Identifier: GPL-2.0-or-later
"""Small inputs for the tests of the image room: tars of a few files, and a signed Debian repository."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cloison_forge.image.ext4 import Geometry

EPOCH = 1767225600
GEOMETRY = Geometry(
    "393dd0dc-af22-437f-a1bd-93a987f14c6f", "7924b758-348a-45d7-af88-7f3308585733", "test-root", EPOCH, 8
)


def small_tar(path: Path, *, turned: bool = False, extra: Mapping[str, bytes] | None = None) -> Path:
    """Write a tar with owners, modes, links and a device; `turned` gives the members in the opposite order."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []

    def add(name: str, kind: bytes, data: bytes = b"", **more: object) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime, info.mode = kind, len(data), EPOCH - 1000, 0o644
        for key, value in more.items():
            setattr(info, key, value)
        members.append((info, data))

    add("./etc/shadow", tarfile.REGTYPE, b"root:*:\n", uid=0, gid=42, mode=0o640)
    add("./bin/su", tarfile.REGTYPE, b"#!" + bytes(9000), mode=0o4755)
    add("./bin/link", tarfile.SYMTYPE, linkname="su", mode=0o777)
    add("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    add("./home/user/a file, with blanks", tarfile.REGTYPE, b"x" * 70000, uid=1000, gid=1000)
    add("./var/closed/inside", tarfile.REGTYPE, b"y", mode=0o600)
    for name, data in (extra or {}).items():
        add(name, tarfile.REGTYPE, data)
    folders = ["./etc", "./bin", "./dev", "./home", "./home/user", "./var", "./var/closed"]
    with tarfile.open(path, "w") as tar:
        for name in reversed(folders) if turned else folders:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o700 if "closed" in name else 0o755, EPOCH
            tar.addfile(info)
        for info, data in reversed(members) if turned else members:
            tar.addfile(info, io.BytesIO(data))
    return path


class Repository:
    """A Debian repository below `folder`, signed with a throwaway key, that apt reads through ``file:``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: a socket's path has 107 characters at most
        self.key = folder / "key.gpg"
        (folder / "pool").mkdir(parents=True)
        self._gpg("--quick-generate-key", "Test <test@example.test>", "ed25519", "sign", "never")
        self.key.write_bytes(self._gpg("--export"))
        self.stanzas: dict[str, str] = {}

    @classmethod
    def copy(cls, other: Repository, folder: Path) -> Repository:
        """Return a copy of a repository with the same key."""
        shutil.copytree(other.folder, folder)
        made = cls.__new__(cls)
        made.folder, made.home, made.key = folder, other.home, folder / "key.gpg"
        made.stanzas = dict(other.stanzas)
        return made

    def close(self) -> None:
        """End the agent that gpg started, and forget the key."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def _gpg(self, *words: str) -> bytes:
        base = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--yes",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ]
        return subprocess.run([*base, *words], check=True, capture_output=True).stdout

    def add(self, name: str, version: str, *, depends: str = "", essential: bool = False, note: str = "") -> None:
        """Put a version of a package into the repository, instead of an older one."""
        tree = self.folder / "tree"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.test>\n"
        control += (f"Depends: {depends}\n" if depends else "") + ("Essential: yes\n" if essential else "")
        control += f"Description: test {note}\n"
        (tree / "DEBIAN" / "control").write_text(control, encoding="utf-8")
        deb = self.folder / "pool" / f"{name}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        where = f"Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        self.stanzas[name] = control + where

    def publish(self) -> None:
        """Write and sign the index."""
        suite = self.folder / "dists" / "bookworm"
        (suite / "main" / "binary-amd64").mkdir(parents=True, exist_ok=True)
        index = "".join(f"{stanza}\n" for stanza in self.stanzas.values()).encode()
        packages = {"main/binary-amd64/Packages": index, "main/binary-amd64/Packages.gz": gzip.compress(index, mtime=0)}
        for name, data in packages.items():
            (suite / name).write_bytes(data)
        sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in packages.items())
        release = "Origin: Debian\nSuite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\n"
        release += f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}"
        (suite / "Release").write_text(release, encoding="utf-8")
        self._gpg("--output", str(suite / "InRelease"), "--clearsign", str(suite / "Release"))

    def machine(self, folder: Path) -> Path:
        """Return a folder like /etc/apt whose only source is this repository."""
        folder.mkdir(parents=True, exist_ok=True)
        line = f"deb [signed-by={self.key} arch=amd64] file:{self.folder} bookworm main\n"
        (folder / "sources.list").write_text(line, encoding="utf-8")
        return folder
