# SPDX-License-Identifier: GPL-2.0-or-later
"""The git work area of a series: only the files it touches, one commit a patch, ordinary git to change it.

The first commit, tagged ``base``, holds the originals; ``git am`` puts the patches on top, so that
author, date and message carry over. A git note on each commit says which patch file it came from;
git copies the note when the commit is amended or rebased. Hooks, templates and settings of the
user do not take part in what is done here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.run import Result, run
from cloison_forge.core.stage import write_json
from cloison_forge.series.fitting import Content, place
from cloison_forge.series.reading import Patch, Series

BASE = "base"
CHANGED_BY_HAND = "changed-by-hand"
NOTES = "refs/notes/cloison"
_RECORD = "cloison.json"
_AM = ["am", "--keep-cr", "--keep-non-patch", "--no-scissors", "--whitespace=nowarn", "--committer-date-is-author-date"]
# The kernel's own attributes: they decide what stands after @@ in a hunk.
_ATTRIBUTES = "*.c diff=cpp\n*.h diff=cpp\n*.dtsi diff=dts\n*.dts diff=dts\n*.rs diff=rust\n*.[ch] -text\n"


@dataclass(frozen=True)
class AreaRecord:
    """What the area was opened from.

    `names` maps subjects to patch names; `head` is the commit that equals the series on disk,
    empty while a repair is under way; `added` are files that no patch touches yet; `writing` says
    that an export has begun and not ended.
    """

    tree: str
    series: str
    head: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    writing: bool = False


@dataclass(frozen=True)
class Edited:
    """An open work area: its folder, and the patch at which it stopped, if one did not fit."""

    path: Path
    stopped_at: str = ""


class Area:
    """A git work area in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git_dir = path / ".git"

    def git(self, *words: str | Path, check: bool = True, env: Mapping[str, str] | None = None) -> Result:
        """Run git in the area, whatever the caller's own git settings are."""
        fixed = {
            "GIT_DIR": str(self.git_dir),
            "GIT_WORK_TREE": str(self.path),
            "GIT_INDEX_FILE": str(self.git_dir / "index"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Cloison",
            "GIT_AUTHOR_EMAIL": "cloison@localhost",
            "GIT_COMMITTER_NAME": "Cloison",
            "GIT_COMMITTER_EMAIL": "cloison@localhost",
            "LC_ALL": "C",
            "TZ": "UTC",
        }
        return run(["git", *words], cwd=self.path, env={**fixed, **(env or {})}, check=check)

    @property
    def exists(self) -> bool:
        """Say whether there is a complete area."""
        return (self.git_dir / _RECORD).is_file()

    @property
    def busy(self) -> bool:
        """Say whether git waits for the user to resolve something."""
        return any((self.git_dir / name).exists() for name in ("rebase-apply", "rebase-merge", "MERGE_HEAD"))

    @property
    def dirty(self) -> list[str]:
        """Files that are changed and not committed."""
        return [line[3:] for line in self.git("status", "--porcelain", "-uall").output.splitlines()]

    @property
    def stashed(self) -> bool:
        """Say whether git stash holds something that is nowhere else."""
        return self.git("rev-parse", "--quiet", "--verify", "refs/stash", check=False).status == 0

    @property
    def head(self) -> str:
        """The present commit."""
        return self.git("rev-parse", "HEAD").output.strip()

    def record(self) -> AreaRecord:
        """Read what the area was opened from."""
        try:
            value = json.loads((self.git_dir / _RECORD).read_text(encoding="utf-8"))
            return AreaRecord(**{**value, "added": tuple(value["added"])})
        except (OSError, ValueError, TypeError, KeyError):
            raise BuildError(
                f"{self.path} is not a work area of this toolkit", hint="move it away and run ./invoke patch.edit"
            ) from None

    def write_record(self, record: AreaRecord) -> None:
        """Write what the area stands for, whole or not at all."""
        write_json(self.git_dir / _RECORD, asdict(record))

    def commits(self) -> list[str]:
        """The commits on top of the originals, oldest first."""
        listed = self.git("rev-list", "--reverse", "--parents", f"{BASE}..HEAD").output.split("\n")
        rows = [line.split() for line in listed if line]
        for row in rows:
            if len(row) > 2:
                raise UsageError(
                    f"the work area holds a merge ({row[0][:12]})", hint="a series is a line: use git rebase instead"
                )
        return [row[0] for row in rows]

    def subjects(self, commits: Sequence[str]) -> list[str]:
        """The subject of each commit."""
        if not commits:
            return []
        return self.git("show", "-s", "--format=%s", *commits).output.splitlines()

    def note(self, commit: str, name: str) -> None:
        """Write down which patch file a commit belongs to."""
        self.git("notes", f"--ref={NOTES}", "add", "-f", "-m", name, commit)

    def notes(self) -> dict[str, str]:
        """The patch file of each noted commit; the first one where git joined two."""
        listed = self.git("notes", f"--ref={NOTES}", "list", check=False)
        found: dict[str, str] = {}
        for line in listed.output.splitlines() if listed.status == 0 else []:
            blob, commit = line.split()
            found[commit] = self.git("cat-file", "blob", blob).output.split("\n")[0].strip()
        return found

    def remember(self) -> None:
        """Note the patch file on each commit that has none and bears a known subject."""
        commits, notes, names = self.commits(), self.notes(), dict(self.record().names)
        taken = {notes[commit] for commit in commits if commit in notes}
        for commit, subject in zip(commits, self.subjects(commits), strict=True):
            name = names.get(subject, "")
            if commit not in notes and name and name not in taken:
                self.note(commit, name)
                taken.add(name)


def open_area(
    area: Area, series: Series, tree_key: str, originals: Mapping[str, Content | None], added: Sequence[str]
) -> Edited:
    """Fill an area with the originals and one commit for each patch; it stops at a patch that does not fit."""
    _prepare(area, originals)
    names = {patch.subject: patch.name for patch in series.patches}
    area.write_record(AreaRecord(tree_key, series.digest, "", names, tuple(added)))
    stopped = _am(area, series.patches)
    area.remember()
    if stopped:
        return Edited(area.path, stopped)
    area.write_record(AreaRecord(tree_key, series.digest, area.head, names, tuple(added)))
    return Edited(area.path)


def _prepare(area: Area, originals: Mapping[str, Content | None]) -> None:
    """Make the repository with the commit of the originals."""
    area.path.mkdir(parents=True)
    area.git("init", "--quiet", "--template=", "--initial-branch=series")
    settings = {
        "notes.rewriteRef": NOTES,
        "notes.rewriteMode": "concatenate",
        "core.autocrlf": "false",
        "core.excludesFile": os.devnull,
        "gc.auto": "0",
        "commit.gpgSign": "false",
    }
    for name, value in settings.items():
        area.git("config", name, value)
    (area.git_dir / "info").mkdir(exist_ok=True)
    (area.git_dir / "info" / "attributes").write_text(_ATTRIBUTES, encoding="utf-8")
    for name, what in originals.items():
        if what is not None:
            place(area.path / name, what)
    area.git("add", "--all", "--force", ".")
    # A fixed date: the same originals give the same commit.
    date = {"GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}
    area.git(
        "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "The originals of the touched files",
        env=date,
    )  # fmt: skip
    area.git("tag", BASE)


def _am(area: Area, patches: Sequence[Patch]) -> str:
    """Apply the patches as commits; return the name of the one that does not fit, left ready to be resolved."""
    if not patches:
        return ""
    result = area.git(*_AM, *(patch.path.resolve() for patch in patches), check=False)
    if result.status == 0:
        return ""
    if not area.busy:
        raise BuildError("git am failed: " + result.output.strip().replace("\n", "; "), hint=f"look at {area.path}")
    stopped = patches[len(area.commits())]
    _mark_conflicts(area, stopped)
    return stopped.name


def _mark_conflicts(area: Area, patch: Patch) -> None:
    """Put the patch that stopped git am into the files, with conflict markers where it does not fit."""
    missing = [c.source for c in patch.files if c.source and not (area.path / c.source).exists()]
    run(
        ["patch", "-p1", "--merge=diff3", "--force", "--binary", "--no-backup-if-mismatch", "--reject-file=-",
         "--input", area.git_dir / "rebase-apply" / "patch"],
        cwd=area.path, env={"LC_ALL": "C"}, check=False,
    )  # fmt: skip
    ui.warn(f"{patch.name} does not fit; everything before it is committed in {area.path}")
    for name in dict.fromkeys(change.path for change in patch.files if change.source not in missing):
        now = (area.path / name).read_bytes() if (area.path / name).is_file() else b""
        if b"\n<<<<<<<" in b"\n" + now:
            ui.say(f"          | {name}: conflict markers show both sides")
        else:
            ui.say(f"          | {name}: put where it seems to belong; look at it with git diff")
    for name in missing:
        ui.say(f"          | {name} does not exist in this source")


def next_steps(edited: Edited) -> list[str]:
    """What to type next, one line each."""
    if edited.stopped_at:
        return [
            f"cd {edited.path}",
            "look at git diff, resolve what has <<<<<<< markers, then: git add --all && git am --continue",
            "again for each patch that stops; at the end: ./invoke patch.export",
        ]
    return [
        f"cd {edited.path}",
        "change it with ordinary git: one commit is one patch (git rebase --interactive base)",
        "then: ./invoke patch.export; a file that no patch touches yet comes in with ./invoke patch.edit --add FILE",
    ]


def set_aside(area: Area) -> Path:
    """Move an area to a name of its own, so that nothing in it is lost; return the new place."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = area.path.with_name(f"{area.path.name}-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = area.path.with_name(f"{area.path.name}-{stamp}-{number}")
    area.path.rename(target)
    return target


def remove(area: Area) -> None:
    """Remove an area in which nothing is lost."""
    shutil.rmtree(area.path)


def unexported(folder: Path) -> set[Path]:
    """Return what in ``build/`` or ``build/<line>/`` is work of the user that is nowhere else.

    That is an area with changes that are not exported, one that was moved aside, and files that
    somebody changed by hand in the tree.
    """
    found: set[Path] = set()
    for base in (folder, *(path for path in folder.glob("*") if path.is_dir())):
        found.update(base.glob("edit-*"))
        found.update(base.glob(CHANGED_BY_HAND))
        area = Area(base / "edit")
        if area.path.is_dir() and not (
            area.exists and area.head == area.record().head and not area.dirty and not area.stashed
        ):
            found.add(area.path)
    return found


def tree_paths(names: Iterable[str]) -> list[str]:
    """Check file names that the user gave, and return them as paths in the tree."""
    found = []
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise UsageError(f"'{name}' is not a file of the kernel tree", hint="such as kernel/fork.c")
        found.append(str(path))
    return found
