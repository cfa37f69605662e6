# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the result channel: framing only. What the records mean is the judge's business.

A line is ``SEQ CRC32 JSON``: SEQ counts from 0, CRC32 (8 hexadecimal digits) is over ``SEQ JSON``.
The first line that is not exactly as it must be is a fault, and nothing after it is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

LONGEST_LINE = 64 * 1024
_LINE = re.compile(rb"(0|[1-9][0-9]{0,8}) ([0-9a-f]{8}) (\{[\x20-\x7e]*\})")


class StreamFaultError(Exception):
    """The stream is not what a healthy machine sends."""


@dataclass(frozen=True)
class Record:
    """One record: its kind (``hello``, ``begin``, ``end``, ``bye``, ``fault``) and its fields."""

    kind: str
    fields: dict[str, Any]


def encode(sequence: int, fields: dict[str, Any]) -> bytes:
    """Return a line as a machine sends it (for tests and for machines without PID 1)."""
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    number = str(sequence).encode("ascii")
    return b"%s %08x %s\n" % (number, zlib.crc32(number + b" " + body), body)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise StreamFaultError("a field stands twice in one record")
    return fields


class Stream:
    """Turns the bytes of the channel into records.

    `fault` is empty while all is well; once it is set, no further record comes out.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.lines = 0
        self._rest = b""
        self._sum = hashlib.sha256()
        self._ended = False

    def feed(self, data: bytes) -> list[Record]:
        """Take bytes as they come and return the records that are complete and good."""
        records: list[Record] = []
        self._rest += data
        while not self.fault and b"\n" in self._rest:
            line, self._rest = self._rest.split(b"\n", 1)
            try:
                records.append(self._take(line))
            except StreamFaultError as error:
                self.fault = str(error)
        if not self.fault and len(self._rest) > LONGEST_LINE:
            self.fault = f"line {self.lines} is longer than {LONGEST_LINE} bytes"
        return records

    def close(self) -> None:
        """Say that no more bytes will come: half a line is a fault."""
        if not self.fault and self._rest:
            self.fault = f"the stream ends in the middle of line {self.lines}"

    def _take(self, line: bytes) -> Record:
        if self._ended:
            raise StreamFaultError("a line after bye")
        found = _LINE.fullmatch(line)
        if found is None:
            raise StreamFaultError(f"line {self.lines} is no record: {line[:60]!r}")
        number, crc, body = found.groups()
        if zlib.crc32(number + b" " + body) != int(crc, 16):
            raise StreamFaultError(f"wrong CRC in line {self.lines}")
        if int(number) != self.lines:
            raise StreamFaultError(f"line {self.lines} carries number {int(number)}: lines are missing or repeated")
        try:
            fields = json.loads(body, object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError):
            raise StreamFaultError(f"line {self.lines} holds no JSON") from None
        kind = fields.pop("t", None)
        if not isinstance(kind, str):
            raise StreamFaultError(f"line {self.lines} does not say what it is")
        if kind == "bye":
            self._check_bye(fields)
        self.lines += 1
        self._sum.update(line + b"\n")
        return Record(kind, fields)

    def _check_bye(self, fields: dict[str, Any]) -> None:
        self._ended = True
        if fields.get("count") != self.lines:
            raise StreamFaultError(f"bye counts {fields.get('count')} lines, {self.lines} came")
        if fields.get("sha256") != self._sum.hexdigest():
            raise StreamFaultError("bye's SHA-256 is not that of the lines that came")
