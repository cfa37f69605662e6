# SPDX-License-Identifier: GPL-2.0-or-later
"""A small world for the source room's tests: a web server that misbehaves on demand, keys, kernels of a few files."""

from __future__ import annotations

import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloison_forge.core.lines import Line
from cloison_forge.core.paths import Project


@dataclass
class Server:
    """Files by path, and what is wrong with them.

    `cut` closes the connection after so many bytes of a body, as often as `cuts` says; `status`
    answers that instead; `ranges` is whether the server honours ranges; `etag` is the entity tag of
    all files; `seen` collects method, path and range of each request.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    cuts: int = 0
    status: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"one"'
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve() -> Iterator[Server]:
    world = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            world.seen.append((self.path, wanted))
            data = world.files.get(self.path)
            status = world.status.get(self.path, 200 if data is not None else 404)
            if status != 200 or data is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = 0
            valid = self.headers.get("If-Range", world.etag) == world.etag
            if wanted and world.ranges and valid:
                begin = int(wanted.removeprefix("bytes=").partition("-")[0])
                if begin >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", world.etag)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            body = data[begin:]
            if world.cuts and world.cut < len(body):
                world.cuts -= 1
                self.wfile.write(body[: world.cut])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that hang up early are part of the tests

    with Quiet(("127.0.0.1", 0), Handler) as server:
        world.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield world
        finally:
            server.shutdown()
            thread.join()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def makefile(version: str) -> str:
    one, two, *rest = version.split(".")
    three = rest[0] if rest else "0"
    return f"# SPDX\nVERSION = {one}\nPATCHLEVEL = {two}\nSUBLEVEL = {three}\nEXTRAVERSION =\nNAME = Test\n"


def kernel_files(version: str, extra: str = "") -> dict[str, tuple[bytes, int]]:
    """Contents and modes of a kernel of a few files."""
    return {
        "Makefile": (makefile(version).encode(), 0o644),
        "Kconfig": (b'mainmenu "test"\n' + extra.encode(), 0o644),
        "scripts/run.sh": (b"#!/bin/sh\n", 0o755),
        "kernel/ümlaut name.c": (b"int x;\n" * 100, 0o644),
        ".hidden": (b"", 0o644),
    }


def kernel_tar(version: str, extra: str = "", top: str = "linux-source") -> bytes:
    """Return an uncompressed tar of such a kernel, with a symbolic link in it."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (data, mode) in kernel_files(version, extra).items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(f"{top}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "kernel/../Makefile"
        tar.addfile(link)
    return sink.getvalue()


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=1)


def line_for(version: str = "6.12.7", tar: bytes = b"", tree: str = "") -> Line:
    return Line(
        name="6.12",
        version=version,
        package="linux-source-6.12",
        package_version=f"{version}-1",
        tar_sha256=sha256(tar),
        tree_sha256=tree,
        series="6.12",
    )


class Keys:
    """A throwaway GnuPG home with one key; `keyring` is its public part as gpgv and apt want it."""

    def __init__(self, name: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ck.", dir="/tmp"))  # short: it holds sockets
        self.home.chmod(0o700)
        self.name = name
        self._gpg("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")
        self.keyring = self.home / f"debian-archive-{name}.gpg"
        self.keyring.write_bytes(self._gpg("--export"))
        listing = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(row.split(":")[9] for row in listing.splitlines() if row.startswith("fpr"))

    def _gpg(self, *words: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", "--passphrase", ""]
        return subprocess.run([*argv, *words], input=data, check=True, capture_output=True).stdout

    def detached(self, data: bytes) -> bytes:
        return self._gpg("--armor", "--detach-sign", data=data)

    def clear(self, data: bytes) -> bytes:
        return self._gpg("--clearsign", data=data)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)


def live_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give the source room a checkout and a cache below `folder`, and no way around the local server."""
    from cloison_forge.source import cache, extraction

    place = Project(root=folder, cache=folder / "cache")
    for module in (cache, extraction):
        monkeypatch.setattr(module, "project", lambda: place)
    for name in ("CLOISON_BUILD", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return place
