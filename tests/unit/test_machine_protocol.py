# SPDX-License-Identifier: GPL-2.0-or-later
"""Framing of the result channel: one byte wrong anywhere is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.machine_fakes import good_records, stream

from cloison_forge.machine.protocol import LONGEST_LINE, Stream, encode

GOOD = stream(*good_records())


def kinds(data: bytes, size: int = 1 << 20) -> tuple[list[str], str]:
    reader = Stream()
    found = [record.kind for start in range(0, len(data), size) for record in reader.feed(data[start : start + size])]
    reader.close()
    return found, reader.fault


def test_a_good_stream_is_read_in_pieces_of_any_size() -> None:
    whole = kinds(GOOD)
    assert whole == (["hello", *["begin", "end"] * 3, "bye"], "")
    assert kinds(GOOD, 1) == whole
    assert kinds(GOOD, 7) == whole


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    data = bytearray(GOOD)
    data[place] ^= change
    found, fault = kinds(bytes(data))
    assert fault or len(found) < 8


@given(st.integers(0, 7), st.integers(0, 7))
def test_no_missing_or_repeated_line_goes_unnoticed(first: int, second: int) -> None:
    lines = GOOD.splitlines(keepends=True)
    without = b"".join(lines[:first] + lines[first + 1 :])
    assert kinds(without)[1] or "bye" not in kinds(without)[0]
    repeated = b"".join([*lines[: second + 1], lines[second], *lines[second + 1 :]])
    assert kinds(repeated)[1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD[:-40], "the middle of line 7"),
        (GOOD + b"x", "the middle of line 8"),
        (GOOD + encode(8, {"t": "begin", "id": "a.b"}), "a line after bye"),
        (GOOD.replace(b"\n", b"\r\n"), "is no record"),
        (encode(1, {"t": "hello"}), "carries number 1"),
        (encode(0, {"kind": "hello"}), "does not say what it is"),
        (b"0 00000000 {}\n", "wrong CRC"),
        (b"x" * (LONGEST_LINE + 1), "longer than"),
        (b"0 e5bdb6e2 {\x80}\n", "is no record"),
    ],
)
def test_faults_are_named(data: bytes, why: str) -> None:
    assert why in kinds(data)[1]


def test_a_field_that_stands_twice_is_a_fault() -> None:
    import zlib

    body = b'{"t":"end","id":"abi.version","id":"abi.other"}'
    line = b"0 %08x %s\n" % (zlib.crc32(b"0 " + body), body)
    assert "twice" in kinds(line)[1]


def test_bye_must_count_and_sum_up() -> None:
    records = good_records()
    data = stream(*records, bye=False)
    wrong_count = data + encode(7, {"t": "bye", "count": 6, "sha256": "", "tainted": 0})
    assert "bye counts 6 lines, 7 came" in kinds(wrong_count)[1]
    wrong_sum = data + encode(7, {"t": "bye", "count": 7, "sha256": "0" * 64, "tainted": 0})
    assert "SHA-256" in kinds(wrong_sum)[1]
