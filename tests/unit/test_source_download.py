# SPDX-License-Identifier: GPL-2.0-or-later
"""Downloads: whole, resumed, cut, changed, missing, refused, on a full disk."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.source_fakes import Server, serve, sha256

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError
from cloison_forge.source import download as room
from cloison_forge.source.download import Wanted, download, fetch_bytes, session
from cloison_forge.source.model import NotOfferedError, RefusedError, UnreachableError

DATA = random.Random(1).randbytes(900_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serve() as world:
        world.files["/file"] = DATA
        yield world


def wanted(server: Server, folder: Path, **more: Any) -> Wanted:
    return Wanted(f"{server.url}/file", folder / "file", "file", **more)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_arrives_and_nothing_else_stays(server: Server, tmp_path: Path) -> None:
    path = download(wanted(server, tmp_path / "new", sha256=sha256(DATA), size=len(DATA)))
    assert path.read_bytes() == DATA
    assert leftovers(tmp_path / "new") == ["file"]


def test_a_part_is_resumed_with_a_range(server: Server, tmp_path: Path) -> None:
    ask = wanted(server, tmp_path, sha256=sha256(DATA), size=len(DATA))
    ask.part.write_bytes(DATA[:400_000])
    assert download(ask).read_bytes() == DATA
    assert server.seen == [("/file", "bytes=400000-")]


def test_a_cut_transfer_goes_on_from_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut, server.cuts = 300_000, 2
    assert download(wanted(server, tmp_path, sha256=sha256(DATA))).read_bytes() == DATA
    ranges = [span for _, span in server.seen]
    assert ranges[0] == ""
    assert len(ranges) == 3
    assert all(span.startswith("bytes=") for span in ranges[1:])


def test_a_server_that_always_breaks_off_is_named_and_the_part_kept(server: Server, tmp_path: Path) -> None:
    server.cut, server.cuts = 0, 100
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    with pytest.raises(UnreachableError, match="broke off 6 times"):
        download(wanted(server, tmp_path))
    assert (tmp_path / "file.part").read_bytes() == DATA[:1000]
    assert not (tmp_path / "file").exists()
    server.cuts = 0
    assert download(wanted(server, tmp_path, sha256=sha256(DATA))).read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    ask = wanted(server, tmp_path, sha256=sha256(DATA))
    ask.part.write_bytes(b"x" * 5000)
    assert download(ask).read_bytes() == DATA
    assert len(server.seen) == 1


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(server: Server, tmp_path: Path) -> None:
    ask = wanted(server, tmp_path)
    ask.part.write_bytes(b"o" * 300_000)
    ask.tag.write_text('{"etag": "\\"one\\""}', encoding="utf-8")
    server.etag = '"two"'
    assert download(ask).read_bytes() == DATA


@pytest.mark.parametrize("bad", [b"z" * 400_000, DATA + b"more"])
def test_a_part_that_does_not_fit_is_thrown_away_and_the_file_fetched_anew(
    server: Server, tmp_path: Path, bad: bytes
) -> None:
    ask = wanted(server, tmp_path, sha256=sha256(DATA))
    ask.part.write_bytes(bad)
    assert download(ask).read_bytes() == DATA


def test_a_file_that_is_there_is_proved_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    ask = wanted(server, tmp_path, sha256=sha256(DATA))
    ask.target.write_bytes(DATA)
    assert download(ask) == ask.target
    assert server.seen == []
    ask.target.write_bytes(DATA[:-1])
    assert download(ask).read_bytes() == DATA


def test_a_whole_part_needs_no_transfer(server: Server, tmp_path: Path) -> None:
    ask = wanted(server, tmp_path, sha256=sha256(DATA), size=len(DATA))
    ask.part.write_bytes(DATA)
    assert download(ask).read_bytes() == DATA
    assert server.seen == []


def test_tampered_contents_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(RefusedError, match="file is refused: its SHA-256 is"):
        download(wanted(server, tmp_path, sha256=sha256(DATA), size=len(DATA)))
    assert leftovers(tmp_path) == []


def test_a_short_file_with_a_proper_length_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = DATA[:-10]
    with pytest.raises(RefusedError, match=f"{len(DATA) - 10} bytes instead of {len(DATA)}"):
        download(wanted(server, tmp_path, size=len(DATA)))
    assert leftovers(tmp_path) == []


def test_more_than_the_limit_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="more than 1000"):
        download(wanted(server, tmp_path, limit=1000))
    with pytest.raises(RefusedError, match="larger than 1000"):
        fetch_bytes(f"{server.url}/file", "file", session(), 1000)


def test_a_missing_file_is_not_offered(server: Server, tmp_path: Path) -> None:
    del server.files["/file"]
    with pytest.raises(NotOfferedError, match="HTTP 404"):
        download(wanted(server, tmp_path))


def test_a_broken_server_counts_as_unreachable(server: Server, tmp_path: Path) -> None:
    server.status["/file"] = 503
    with pytest.raises(UnreachableError, match="HTTP 503"):
        download(wanted(server, tmp_path))


def test_a_refused_connection_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        download(Wanted(f"http://127.0.0.1:{port}/x", tmp_path / "x", "x"), quick())
    assert "cannot be reached (Connection refused)" in caught.value.message
    assert "\n" not in caught.value.message


def quick() -> Any:
    """Return a session that does not wait before it gives up."""
    import requests

    return requests.Session()


def test_a_full_disk_is_named_and_the_next_run_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = wanted(server, tmp_path, sha256=sha256(DATA))
    written: list[int] = []

    class Full:
        """A bar whose update fails as the write before it would."""

        def __init__(self, *_: object) -> None:
            pass

        def update(self, done: int, detail: str = "") -> None:
            written.append(done)
            if done > 500_000:
                raise OSError(errno.ENOSPC, "No space left on device")

        def finish(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(ui, "Progress", Full)
        with pytest.raises(BuildError, match="download of file: no space left on the disk"):
            download(ask)
    assert written
    assert download(ask).read_bytes() == DATA
    assert server.seen[-1][1].startswith("bytes=")


def test_a_file_that_cannot_fit_is_not_begun(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 1000)
    with pytest.raises(BuildError, match="no space left"):
        download(wanted(server, tmp_path, size=len(DATA)))
    assert server.seen == []


def test_small_files_are_whole_or_an_error(server: Server) -> None:
    assert fetch_bytes(f"{server.url}/file", "file", session()) == DATA
    server.cut, server.cuts = 10, 100
    with pytest.raises(UnreachableError, match="broke off"):
        fetch_bytes(f"{server.url}/file", "file", session())
