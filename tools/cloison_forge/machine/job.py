# SPDX-License-Identifier: GPL-2.0-or-later
"""The job disk: what a booted machine is to do, as a plain tar that PID 1 reads from a second disk.

The format is described in ``images/init/job.c``: the first member is a text of "WORD VALUE" lines,
the others are files that PID 1 unpacks below ``/run/cloison``.
"""

from __future__ import annotations

import io
import json
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_verify.catalogue import Check

MAGIC = "cloison-job"
PACKAGES = ("cloison", "cloison_verify")
_LONGEST_ARGUMENTS = 120_000


@dataclass(frozen=True)
class Window:
    """The terminal of an interactive shell: TERM, rows and columns."""

    term: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Share:
    """A host folder to mount at ``/mnt/share``: file system type, and what to mount."""

    type: str
    source: str


@dataclass(frozen=True)
class Job:
    """One job. `mode` is "verify", "shell", "boot" or "relay"; `role` tells the runner which machine it is in.

    `parameters` are more of what the runner is told. `extra` files are unpacked beside the job's own (names are
    relative, without "..").
    """

    mode: str
    plan: Sequence[Check] = ()
    role: str = "main"
    command: Sequence[str] = ()
    window: Window | None = None
    share: Share | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    def text(self, *, channel: str, terminal: str, ending: str) -> str:
        """Return the job text for a machine with these device names and this way to end."""
        lines = [f"nonce {self.nonce}", f"mode {self.mode}", f"channel {channel}", f"ending {ending}"]
        if self.mode == "shell":
            lines.append(f"terminal {terminal}")
        if self.share is not None:
            lines += [f"share-type {self.share.type}", f"share-from {self.share.source}"]
        if self.window is not None:
            lines += [f"term {self.window.term}", f"window {self.window.rows} {self.window.columns}"]
        lines += [f"check {check.id} {check.seconds}" for check in self.plan]
        if any("\n" in line for line in lines):
            raise UsageError("a line break in the name of the shared folder", hint="share a folder with a plain name")
        return "\n".join(lines) + "\n"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Give the other members: the packages and parameters of a verification, or the words of a command."""
        if self.mode == "verify":
            yield "parameters.json", json.dumps({"role": self.role, **self.parameters}).encode()
            for package in PACKAGES:
                yield from _package(project().root / "tools" / package)
        if self.command:
            words = b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in self.command)
            if len(words) > _LONGEST_ARGUMENTS:
                raise UsageError(f"the command is {len(words)} bytes long", hint="put it into a script in --share")
            yield "argv", words
        yield from self.extra.items()

    def write(self, path: Path, *, channel: str, terminal: str, ending: str) -> None:
        """Write the job disk."""
        text = self.text(channel=channel, terminal=terminal, ending=ending)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, MAGIC, text.encode())
            for name, data in self.files():
                _add(archive, name, data)


def _package(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*.py")):
        yield f"lib/{path.relative_to(folder.parent)}", path.read_bytes()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(data))
