# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree of a few files, and patches for it in mail format."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from cloison_forge.core.lines import Line

Files = dict[str, str | None]

FORK = "".join(f"/* fork line {number} */\n" for number in range(1, 61))
EXIT = "".join(f"/* exit line {number} */\n" for number in range(1, 41))

LINE = Line("6.12", "6.12.117", "linux-source-6.12", "6.12.117-1", "", "", "6.12")


@dataclass(frozen=True)
class FakeTree:
    """What the source room hands over."""

    path: Path
    key: str = "tree-1"
    reference: bool = True


def diff(before: Files, after: Files) -> str:
    """A git-style diff between two sets of files."""
    text = ""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        text += f"diff --git a/{name} b/{name}\n"
        text += "new file mode 100644\n" if old is None else "deleted file mode 100644\n" if new is None else ""
        text += "".join(
            difflib.unified_diff(
                (old or "").splitlines(keepends=True),
                (new or "").splitlines(keepends=True),
                "/dev/null" if old is None else f"a/{name}",
                "/dev/null" if new is None else f"b/{name}",
            )
        )
    return text


def mail(subject: str, text: str, *, author: str = "Ada Kern <ada@example.org>") -> str:
    """A patch mail around a diff."""
    return (
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        f"From: {author}\nDate: Thu, 1 Oct 2026 12:00:00 +0000\nSubject: [PATCH] {subject}\n\n"
        f"Why: {subject} is needed.\n\nSigned-off-by: {author}\n---\n{text}-- \n2.39.5\n"
    )


@dataclass
class Bench:
    """A fake checkout: tree, series folder and pristine folder below one temporary folder."""

    root: Path
    files: Files = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.root / "build" / "6.12" / "source"

    @property
    def series(self) -> Path:
        return self.root / "patches" / "6.12"

    def setup(self) -> Bench:
        self.files = {"kernel/fork.c": FORK, "kernel/exit.c": EXIT, "MAINTAINERS": "nobody\n"}
        for name, text in self.files.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text or "")
        (self.root / "patches" / "common").mkdir(parents=True)
        self.series.mkdir()
        (self.series / "common").symlink_to("../common")
        (self.series / "series").write_text("# the series\n")
        return self

    def add(self, name: str, after: Files, subject: str = "") -> None:
        """Append a patch that changes `after`'s files from what the patches before left."""
        before = {path: self.files.get(path) for path in after}
        text = mail(subject or f"vserver: do {Path(name).stem}", diff(before, after))
        (self.series / name).write_text(text)
        self.files.update(after)
        self.names.append(name)
        with (self.series / "series").open("a") as stream:
            stream.write(name + "\n")

    def standard(self) -> Bench:
        """Three patches: our own file, a hook, and an extension of our file."""
        self.add("common/core.patch", {"kernel/vserver/core.c": "int vs_core;\nint vs_more;\n"})
        self.add(
            "hook-fork.patch", {"kernel/fork.c": FORK.replace("/* fork line 30 */\n", "/* fork line 30 */\nint vs;\n")}
        )
        self.add("common/more.patch", {"kernel/vserver/core.c": "int vs_core;\nint vs_changed;\n"})
        return self

    def snapshot(self) -> dict[str, tuple[str, int]]:
        """Contents and times of the tree's files."""
        return {
            str(path.relative_to(self.tree)): (path.read_text(), path.stat().st_mtime_ns)
            for path in sorted(self.tree.rglob("*"))
            if path.is_file() and path.name != ".cloison-series.json"
        }
