# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the bad streams from the good one: ``python tests/unit/streams/damage.py``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "tools")]

from cloison_forge.machine.protocol import encode  # noqa: E402

Records = list[dict[str, Any]]


def records(data: bytes) -> Records:
    """Return the records of a stream without bye."""
    found: Records = [json.loads(line.split(b" ", 2)[2]) for line in data.splitlines()]
    return found[:-1]


def seal(found: Records, tainted: int = 0) -> bytes:
    """Return a stream whose framing is right, bye included."""
    data = b"".join(encode(number, record) for number, record in enumerate(found))
    bye = {"t": "bye", "count": len(found), "sha256": hashlib.sha256(data).hexdigest(), "tainted": tainted}
    return data + encode(len(found), bye)


def changed(number: int, **fields: Any) -> Callable[[Records], Records]:
    """Return a change of one record."""

    def change(found: Records) -> Records:
        found[number] = {**found[number], **fields}
        return found

    return change


def _swap_names(found: Records) -> Records:
    for record in found[1:3]:
        record["id"] = "abi.something-else"
    return found


RESEALED: dict[str, Callable[[Records], Records]] = {
    "wrong-nonce": changed(0, nonce="ffffffffffffffffffffffffffffffff"),
    "other-plan": changed(0, plan={"count": 2, "sha256": "0" * 64}),
    "other-kernel": changed(0, uname={"release": "6.1.0-amd64", "version": "#1", "machine": "x86_64"}),
    "duplicate-id": lambda found: [*found[:3], *found[1:3], *found[3:]],
    "unknown-id": _swap_names,
    "missing-control": changed(2, control=None),
    "failed-control": changed(2, control={"kind": "instead", "expected": "", "seen": "ENOSYS", "status": "failed"}),
    "undeclared-skip": changed(4, status="skipped"),
    "false-pass": changed(4, seen="EPERM"),
    "not-all": lambda found: found[:-2],
    "no-hello": lambda found: found[1:],
}


def main() -> None:
    """Write every bad stream."""
    good = (HERE / "good.channel").read_bytes()
    lines = good.splitlines(keepends=True)
    bad = {name: seal(change(records(good))) for name, change in RESEALED.items()}
    bad["tainted"] = seal(records(good), tainted=1 << 9)
    bad["gap"] = b"".join(lines[:3] + lines[5:])
    bad["duplicate-line"] = b"".join([*lines[:3], lines[2], *lines[3:]])
    bad["bad-crc"] = good.replace(b'"seen": "ENOSYS"', b'"seen": "ENOSYX"', 1)
    bad["no-bye"] = b"".join(lines[:-1])
    bad["half-line"] = good[: len(good) // 2]
    bad["after-bye"] = good + lines[1]
    bad["carriage-returns"] = good.replace(b"\n", b"\r\n")
    bad["empty"] = b""
    for name, data in bad.items():
        if data == good:
            raise SystemExit(f"{name} is not damaged")
        (HERE / f"{name}.channel").write_bytes(data)
    console = (HERE / "good.console").read_bytes()
    oops = b"[    0.500000] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"
    (HERE / "oops.console").write_bytes(console.replace(b"reboot:", oops + b"[    0.500001] reboot:", 1))


if __name__ == "__main__":
    main()
