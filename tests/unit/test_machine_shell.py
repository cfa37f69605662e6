# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of the shell: exact bytes, never more input on the way than the guest has asked for."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison_forge.core.errors import MachineError
from cloison_forge.machine.shell import LONGEST, Frames, Session, frame
from cloison_forge.machine.supervisor import Port


@given(st.lists(st.tuples(st.sampled_from([b"o", b"e", b"c"]), st.binary(max_size=300))), st.integers(1, 50))
def test_frames_survive_any_cutting(sent: list[tuple[bytes, bytes]], size: int) -> None:
    data = b"".join(frame(kind, body) for kind, body in sent)
    reader = Frames()
    assert [found for at in range(0, len(data), size) for found in reader.feed(data[at : at + size])] == sent


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(MachineError, match="too long"):
        list(Frames().feed(b"o" + struct.pack(">H", LONGEST + 1)))


class Bench:
    """A session between a pair of sockets and files, with the supervisor's part played by hand."""

    def __init__(self, folder: Path, stdin: int) -> None:
        self.host, self.guest = socket.socketpair()
        self.guest.setblocking(False)
        self.out = os.open(folder / "out", os.O_RDWR | os.O_CREAT)
        self.err = os.open(folder / "err", os.O_RDWR | os.O_CREAT)
        self.ports: dict[int, Callable[[], object]] = {}
        self.frames = Frames()
        self.session = Session(interactive=False, stdin=stdin, stdout=self.out, stderr=self.err)
        self.session.attach(self.host, self.add, self.remove)

    def add(self, port: Port) -> None:
        if Path(f"/proc/self/fd/{port.descriptor}").is_file():
            raise PermissionError  # what epoll says of plain files
        self.ports[port.descriptor] = port.on_ready

    def remove(self, descriptor: int) -> bool:
        self.ports.pop(descriptor, None)
        return False

    def guest_says(self, kind: bytes, body: bytes = b"") -> None:
        self.guest.sendall(frame(kind, body))
        self.ports[self.host.fileno()]()

    def guest_hears(self) -> list[tuple[bytes, bytes]]:
        try:
            return list(self.frames.feed(self.guest.recv(1 << 20)))
        except BlockingIOError:
            return []


@pytest.fixture(name="bench")
def fixture_bench(tmp_path: Path) -> Iterator[tuple[Bench, int]]:
    reading, writing = os.pipe()
    bench = Bench(tmp_path, reading)
    yield bench, writing
    bench.host.close()
    bench.guest.close()


def credit(size: int) -> bytes:
    return struct.pack(">I", size)


def test_output_goes_where_it_belongs_and_the_status_comes_through(bench: tuple[Bench, int], tmp_path: Path) -> None:
    table, _ = bench
    table.guest_says(b"o", b"\x00\xff out")
    table.guest_says(b"e", b"err\r\n")
    before = table.session.status
    table.guest_says(b"x", b"137")
    assert (before, table.session.status) == (None, 137)
    assert (tmp_path / "out").read_bytes() == b"\x00\xff out"
    assert (tmp_path / "err").read_bytes() == b"err\r\n"


def test_input_waits_for_credit(bench: tuple[Bench, int]) -> None:
    table, writing = bench
    stdin = table.session._stdin
    os.write(writing, b"0123456789")
    assert stdin not in table.ports
    table.guest_says(b"c", credit(4))
    table.ports[stdin]()
    assert table.guest_hears() == [(b"i", b"0123")]
    assert stdin not in table.ports, "no more until the guest asks"
    table.guest_says(b"c", credit(100))
    table.ports[stdin]()
    assert table.guest_hears() == [(b"i", b"456789")]
    os.close(writing)
    table.ports[stdin]()
    assert table.guest_hears() == [(b"z", b"")]
    assert stdin not in table.ports
    table.guest_says(b"c", credit(6))
    assert table.guest_hears() == []


def test_a_file_as_input_is_read_by_credit_too(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 5000)
    with (tmp_path / "in").open("rb") as stream:
        table = Bench(tmp_path, stream.fileno())
        table.guest_says(b"c", credit(3000))
        assert [len(body) for _, body in table.guest_hears()] == [3000]
        table.guest_says(b"c", credit(9000))
        assert table.guest_hears() == [(b"i", b"x" * 2000), (b"z", b"")]


def test_input_ends_with_the_command(bench: tuple[Bench, int]) -> None:
    table, _ = bench
    table.guest_says(b"c", credit(10))
    assert table.session._stdin in table.ports
    table.guest_says(b"x", b"0")
    assert table.session._stdin not in table.ports


def test_three_escapes_in_a_row_end_the_machine(bench: tuple[Bench, int]) -> None:
    session = bench[0].session
    session._count_escapes(b"\x1d")
    session._count_escapes(b"\x1dx")
    session._count_escapes(b"\x1d\x1d")
    with pytest.raises(KeyboardInterrupt):
        session._count_escapes(b"\x1d")
