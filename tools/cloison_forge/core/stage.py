# SPDX-License-Identifier: GPL-2.0-or-later
"""Stages: functions from inputs to an output folder, skipped while their inputs are the same.

A stage's key is a hash over named inputs (digests of files, versions of tools, settings), never
over modification times. The key and the inputs are kept in ``.stamp.json`` in the output folder,
written last; a stage that was interrupted has no stamp and runs again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui

STAMP = ".stamp.json"


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(paths: Iterable[Path], base: Path) -> str:
    """Return one digest over the names (relative to `base`) and contents of files; folders are walked."""
    total = hashlib.sha256()
    for path in sorted(_walk(paths)):
        total.update(f"{path.relative_to(base)}\0{digest_file(path)}\n".encode())
    return total.hexdigest()


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        else:
            yield path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes its place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all."""
    with atomic_file(path) as beside:
        beside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Stage:
    """One stage: its name, its output folder and its named inputs.

    `in_place` stages (a source tree, an object folder) change their folder step by step; others
    get an empty folder beside the output, which replaces it when they are done.
    """

    name: str
    out: Path
    inputs: Mapping[str, str]
    in_place: bool = False

    @property
    def key(self) -> str:
        """Hash over the named inputs, in hexadecimal."""
        return digest_bytes(json.dumps(dict(self.inputs), sort_keys=True).encode())

    def fresh(self) -> bool:
        """Say whether the output was made from exactly these inputs."""
        return self.stamp().get("key") == self.key

    def stamp(self) -> dict[str, object]:
        """Return the stamp of the output folder, or an empty one."""
        try:
            value = json.loads((self.out / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def changed(self) -> list[str]:
        """Name the inputs that differ from those of the present output."""
        old = self.stamp().get("inputs")
        if not isinstance(old, dict):
            return ["nothing made yet"]
        return sorted(name for name in {*old, *self.inputs} if old.get(name) != self.inputs.get(name))

    def ensure(self, make: Callable[[Path], None]) -> bool:
        """Run `make(folder)` unless the output is fresh; return whether it ran."""
        if self.fresh():
            ui.note(self.name, "up to date")
            return False
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if self.in_place:
            self.out.mkdir(exist_ok=True)
            (self.out / STAMP).unlink(missing_ok=True)
            make(self.out)
            self._write_stamp(self.out)
            return True
        beside = Path(tempfile.mkdtemp(dir=self.out.parent, prefix=f".{self.out.name}."))
        try:
            make(beside)
            self._write_stamp(beside)
            beside.chmod(0o755)
            old = Path(tempfile.mkdtemp(dir=self.out.parent, prefix=f".{self.out.name}.old."))
            if self.out.exists():
                self.out.replace(old / "x")
            beside.replace(self.out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return True

    def _write_stamp(self, folder: Path) -> None:
        write_json(folder / STAMP, {"stage": self.name, "key": self.key, "inputs": dict(self.inputs)})
