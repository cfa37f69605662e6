# SPDX-License-Identifier: GPL-2.0-or-later
"""How many objects a kernel has, and how many of them are there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.run import run
from cloison_forge.core.stage import write_json

_OBJECT = re.compile(r"^\s+(?:CC|AS)\s+(?:\[M\]\s+)?(\S+\.o)$")
_ECHOED = re.compile(r"echo '\s+(?:CC|AS)\s+(?:\[M\]\s+)?(\S+\.o)'")


def is_object(line: str) -> str:
    """Return the object that a line of kbuild's output announces, or an empty string."""
    found = _OBJECT.match(line)
    return found[1] if found else ""


def present(obj: Path) -> int:
    """Count the compiled objects of an object folder (some 20 ms)."""
    count = 0
    for _, folders, files in os.walk(obj):
        folders[:] = [name for name in folders if name not in ("include", "scripts", "tools", "source")]
        count += sum(1 for name in files if name.endswith(".o.cmd"))
    return count


def planned(words: Sequence[str], target: str, env: dict[str, str]) -> int:
    """Ask make, which compiles nothing, how many objects are still to be made (some 5 s).

    It gives 0, which means unknown, where make itself does not know.
    """
    output = run([*words, "-n", target], env=env, check=False).output
    return len(set(_ECHOED.findall(output)))


class Totals:
    """The number of objects of each configuration that was ever built here, in one small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> int:
        """Return the number of objects of a configuration, 0 if it was never built."""
        value = self._read().get(key, 0)
        return value if isinstance(value, int) else 0

    def put(self, key: str, count: int) -> None:
        """Remember the number of objects of a configuration; the newest 200 are kept."""
        known = self._read()
        if count <= 0 or known.get(key) == count:
            return
        known.pop(key, None)
        write_json(self._path, dict([*known.items(), (key, count)][-200:]))

    def _read(self) -> dict[str, object]:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


class Follower:
    """Reads make's output: draws the bar, keeps the compiler's messages."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self._bar = ui.Progress("kernel", what, total)
        self._bar.update(done)
        self.compiled = 0
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def line(self, text: str) -> None:
        """Take one line of output."""
        if name := is_object(text):
            self.compiled += 1
            self._bar.advance(1, name)
        elif " error: " in text or (text.startswith(("make: ***", "make[")) and "***" in text) or "ld: " in text:
            self.errors.append(text)
        elif " warning: " in text:
            self.warnings.append(text)

    def finish(self) -> None:
        """Remove the bar."""
        self._bar.finish()
