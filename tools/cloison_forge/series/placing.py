# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving a source tree between two states of the series, writing only the files that differ.

Make goes by modification times, so a file that changes always gets a newer one, on the way back
too; a file that stays keeps its own. The originals are kept beside the tree in ``pristine/``. What
the tree holds is written down in the tree itself, so that a tree that was extracted anew starts
from nothing; it is written before the first file changes and after the last, so that an interrupted
move is known as such and is finished, or undone, by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError
from cloison_forge.core.run import run
from cloison_forge.core.stage import STAMP, atomic_file, digest_bytes, write_json
from cloison_forge.series.fitting import Content, content

STATE = ".cloison-series.json"


@dataclass(frozen=True)
class Record:
    """What the tree holds of one touched file.

    `original` is the SHA-256 of the original, empty if there was none; `mode` its permission bits;
    `written` the SHA-256, `size` and `mtime_ns` of what was put there, empty and 0 if removed.
    """

    original: str
    mode: int
    written: str = ""
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True)
class State:
    """What a tree holds: the key of the applied series, the touched files, and whether the move was finished."""

    key: str = ""
    finished: bool = True
    files: Mapping[str, Record] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


class Placement:
    """A source tree with the folder of its originals."""

    def __init__(self, tree: Path, pristine: Path) -> None:
        self.tree, self.pristine = tree, pristine

    def state(self) -> State:
        """Read what the tree holds; a tree without a record is untouched."""
        try:
            value = json.loads((self.tree / STATE).read_text(encoding="utf-8"))
            files = {name: Record(**record) for name, record in value["files"].items()}
            return State(value["key"], value["finished"], files, value["details"])
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._lost(f"{self.tree / STATE} cannot be read ({type(error).__name__})") from None

    def holds(self, key: str) -> bool:
        """Say, from the record and the times of the touched files alone, whether the tree holds `key`."""
        state = self.state()
        return state.key == key and state.finished and not self.touched_by_hand(state)

    def touched_by_hand(self, state: State) -> list[str]:
        """Name the files whose size or time is not what was written."""
        return [name for name, record in state.files.items() if not self._as_written(name, record)]

    def _as_written(self, name: str, record: Record) -> bool:
        try:
            status = (self.tree / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return record.written == ""
        return record.written != "" and (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)

    def _kept(self, name: str, record: Record) -> Content | None:
        if not record.original:
            return None
        kept = content(self.pristine / name)
        if kept is None or digest_bytes(kept.data) != record.original:
            raise self._lost(f"the original of {name} in {self.pristine} is missing or was changed")
        return Content(kept.data, record.mode)

    def _lost(self, what: str) -> BuildError:
        return BuildError(what, hint=f"remove {self.tree}; the next run extracts the source again")

    def originals(self, names: list[str]) -> dict[str, Content | None]:
        """Return the originals of several files."""
        files = self.state().files
        return {name: self._kept(name, files[name]) if name in files else content(self.tree / name) for name in names}

    def move(
        self, key: str, wanted: Mapping[str, Content | None], details: Mapping[str, object], keep: Path | None = None
    ) -> list[str]:
        """Give the touched files the `wanted` contents, every other one its original; return what was written.

        What somebody changed by hand in a touched file is copied to `keep` before it is overwritten.
        """
        before = self.state()
        if not before.files and not before.key:
            shutil.rmtree(self.pristine, ignore_errors=True)
        originals = self.originals(sorted({*before.files, *wanted}))
        if not before.finished:
            self._sweep(originals)
        records = {name: _record(what) for name, what in originals.items()}
        self._save(originals, before)
        self._rescue(before, keep)
        interim = {name: before.files.get(name, record) for name, record in records.items()}
        self._write(State("", False, interim))
        changed = [name for name, what in originals.items() if self.put_back(name, wanted.get(name, what))]
        final = {name: self._written(name, records[name], wanted[name]) for name in sorted(wanted)}
        self._write(State(key, True, final, details))
        self._forget(set(originals) - set(wanted))
        return changed

    def _sweep(self, names: Iterable[str]) -> None:
        """Remove what a killed run was writing beside the files of `names`."""
        for path in (base / name for name in names for base in (self.tree, self.pristine)):
            for stray in path.parent.glob(f".{path.name}.????????"):
                stray.unlink()

    def _save(self, originals: Mapping[str, Content | None], before: State) -> None:
        """Keep the originals of files that the series did not touch until now."""
        for name, what in originals.items():
            if name not in before.files and what is not None:
                with atomic_file(self.pristine / name) as beside:
                    beside.write_bytes(what.data)

    def _rescue(self, before: State, keep: Path | None) -> None:
        """Copy files that were changed by hand aside; a touch alone, or our own interrupted write, is none."""
        if keep is None or not before.finished:
            return
        for name in self.touched_by_hand(before):
            now = content(self.tree / name)
            if now is None or digest_bytes(now.data) in {before.files[name].written, before.files[name].original}:
                continue
            (keep / name).parent.mkdir(parents=True, exist_ok=True)
            (keep / name).write_bytes(now.data)
            ui.warn(f"{self.tree / name} was changed by hand; your version is kept in {keep / name}")

    def put_back(self, name: str, what: Content | None) -> bool:
        """Write one file of the tree if it differs, with a time newer than the old one's."""
        path = self.tree / name
        now = content(path)
        if now == what:
            return False
        if what is None:
            path.unlink()
            self._prune(path.parent)
            return True
        old = path.stat().st_mtime_ns if now is not None else 0
        with atomic_file(path) as beside:
            beside.write_bytes(what.data)
        path.chmod(what.mode)
        if path.stat().st_mtime_ns <= old:
            newer = max(time.time_ns(), old + 10_000_000)
            os.utime(path, ns=(newer, newer))
        return True

    def _prune(self, folder: Path) -> None:
        """Remove folders that became empty; a kernel tree has none of its own."""
        while folder != self.tree and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _written(self, name: str, record: Record, what: Content | None) -> Record:
        if what is None:
            return record
        status = (self.tree / name).stat()
        return Record(record.original, record.mode, digest_bytes(what.data), status.st_size, status.st_mtime_ns)

    def _forget(self, names: set[str]) -> None:
        for name in names:
            (self.pristine / name).unlink(missing_ok=True)

    def _write(self, state: State) -> None:
        files = {name: vars(record) for name, record in state.files.items()}
        value = {"key": state.key, "finished": state.finished, "files": files, "details": dict(state.details)}
        write_json(self.tree / STATE, value)


def _record(what: Content | None) -> Record:
    return Record("", 0) if what is None else Record(digest_bytes(what.data), what.mode)


def copy_untouched(tree: Path, placement: Placement, folder: Path) -> None:
    """Copy a tree into an empty folder, with the original content of every touched file.

    The series may be moved meanwhile: what was touched before or after the copy gets its original.
    """
    touched = set(placement.state().files)
    run(["cp", "-a", "--reflink=auto", f"{tree}/.", folder])
    touched |= set(placement.state().files)
    copy = Placement(folder, placement.pristine)
    for name, what in placement.originals(sorted(touched)).items():
        copy.put_back(name, what)
    for stamp in (STAMP, STATE):
        (folder / stamp).unlink(missing_ok=True)
