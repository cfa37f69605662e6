# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel shows of contexts in /proc: /proc/virtual and the lines of /proc/PID."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Status:
    """``/proc/virtual/XID/status``, as far as the interface promises it. Numbers are what the file says."""

    usecnt: int
    tasks: int
    flags: int
    bcaps: int
    ccaps: int
    tag: int = 0


def pairs(text: str) -> dict[str, str]:
    """Return the ``Key:\\tvalue`` lines of a proc file; lines without a colon are left out."""
    found = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found[key.strip()] = value.strip()
    return found


def contexts(proc: Path = PROC) -> list[int]:
    """Return the ids of all contexts that the caller may see, in order.

    Raises FileNotFoundError where ``/proc/virtual`` is absent or hidden.
    """
    return sorted(int(entry.name) for entry in (proc / "virtual").iterdir() if entry.name.isdecimal())


def status(xid: int, proc: Path = PROC) -> Status:
    """Read a context's status; raises FileNotFoundError when it has ended, ValueError on a strange file."""
    source = proc / "virtual" / str(xid) / "status"
    found = pairs(source.read_text(encoding="ascii"))
    try:
        return Status(
            usecnt=int(found["UseCnt"]),
            tasks=int(found["Tasks"]),
            flags=int(found["Flags"], 16),
            bcaps=int(found["BCaps"], 16),
            ccaps=int(found["CCaps"], 16),
            tag=int(found.get("Tag", "0")),
        )
    except KeyError as error:
        raise ValueError(f"{source}: no line {error}") from None


@dataclass(frozen=True)
class Process:
    """A process as ``/proc/PID`` shows it to a spectator: host pid, parent, xid, user, state and name."""

    pid: int
    parent: int
    xid: int
    uid: int
    state: str
    name: str
    command: str


def processes(proc: Path = PROC) -> list[Process]:
    """Return all processes that the caller can see; those that end meanwhile are left out."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            lines = pairs((entry / "status").read_text(encoding="utf-8", errors="replace"))
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        found.append(
            Process(
                pid=int(lines["Pid"]),
                parent=int(lines["PPid"]),
                xid=int(lines.get("VxID", "0")),
                uid=int(lines["Uid"].split()[0]),
                state=lines["State"][:1],
                name=lines["Name"],
                command=command,
            )
        )
    return sorted(found, key=lambda process: process.pid)


def threads(proc: Path = PROC) -> int:
    """Return the number of threads of the calling process."""
    return int(pairs((proc / "self" / "status").read_text(encoding="utf-8"))["Threads"])
