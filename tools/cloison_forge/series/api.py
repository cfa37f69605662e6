# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch series of a kernel line: apply it, edit it, write it back, check it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, CheckError, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage, digest_bytes
from cloison_forge.series.applying import TreeLike, one_line_errors, put, report, scratch, sweep
from cloison_forge.series.area import CHANGED_BY_HAND, Area, AreaRecord, Edited
from cloison_forge.series.editing import edit_series
from cloison_forge.series.exporting import area_series, prove, write_queue, write_series
from cloison_forge.series.findings import FAILED, Report, policy
from cloison_forge.series.placing import Placement, copy_untouched
from cloison_forge.series.reading import Series, read

if TYPE_CHECKING:
    from cloison_forge.series.checking import Builds

VARIANTS = ("on", "off", "absent", "placebo")


@dataclass(frozen=True)
class Exported:
    """What an export wrote: names of changed and removed patches, and the folder of the packagers' queue."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]
    queue: Path


@dataclass(frozen=True)
class Applied:
    """A tree in one state of the series.

    `path` is the tree, `key` its stamp key, `patches` the names of what is applied, in order (none
    for the variant 'absent'), `series_sha256` their digest, `offsets` one text for each hunk that
    sat elsewhere than its patch says (never on the reference source).
    """

    path: Path
    key: str
    patches: tuple[str, ...]
    variant: str = "on"
    series_sha256: str = ""
    offsets: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, object]:
        """What a build's provenance file says about the series."""
        return {
            "variant": self.variant,
            "patches": list(self.patches),
            "series_sha256": self.series_sha256,
            "offsets": list(self.offsets),
        }


def series_of(line: Line) -> Series:
    """Read the series of a kernel line."""
    return read(project().patches / line.series)


def placement_of(line: Line, tree: TreeLike) -> Placement:
    """Return the line's tree together with the folder of its originals."""
    return Placement(tree.path, project().line(line.name) / "pristine")


def apply(line: Line, tree: TreeLike, *, variant: str = "on") -> Applied:
    """Make the tree of the line hold its series, writing only files that differ; nothing to do costs milliseconds.

    The variants 'on' and 'off' are the same tree (they differ in configuration); 'absent' gives a
    second, untouched copy, 'placebo' a third with one function that nobody calls. A patch that does
    not fit raises `ConflictError` and changes nothing.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no variant '{variant}'", hint=f"variants: {', '.join(VARIANTS)}")
    folder = project().line(line.name)
    begun = time.monotonic()
    with locked(folder / ".series", f"the source tree of {line.name}"), one_line_errors("patch"):
        sweep(folder, ".series.", ".absent.", ".placebo.")
        if variant in ("absent", "placebo"):
            return _copy(line, tree, variant)
        series = series_of(line)
        rescue = folder / CHANGED_BY_HAND / time.strftime("%Y%m%d-%H%M%S")
        outcome = put(tree, series, placement_of(line, tree), rescue=rescue)
    report("patch", outcome, series, begun)
    return Applied(tree.path, outcome.key, series.names, variant, series.digest, outcome.offsets)


def revert(line: Line, tree: TreeLike) -> Applied:
    """Give every touched file of the line's tree its original content again."""
    folder = project().line(line.name)
    begun = time.monotonic()
    with locked(folder / ".series", f"the source tree of {line.name}"), one_line_errors("patch"):
        empty = series_of(line).first(0)
        rescue = folder / CHANGED_BY_HAND / time.strftime("%Y%m%d-%H%M%S")
        outcome = put(tree, empty, placement_of(line, tree), rescue=rescue)
    report("patch", outcome, empty, begun)
    return Applied(tree.path, outcome.key, (), "on", empty.digest)


def _copy(line: Line, tree: TreeLike, variant: str) -> Applied:
    """Make a copy without the series, once for each source; the placebo has a patch of its own."""
    patch = project().patches / "placebo.patch"
    placebo = patch.read_text(encoding="utf-8") if variant == "placebo" else ""
    inputs = {"tree": tree.key, "format": "1", **({"patch": digest_bytes(placebo.encode())} if placebo else {})}
    stage = Stage(variant, project().line(line.name) / variant, inputs)

    def make(folder: Path) -> None:
        with ui.step("patch", f"copying the source of {line.name} without the series"):
            copy_untouched(tree.path, placement_of(line, tree), folder)
            if placebo:
                run(["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "-i", patch], cwd=folder)

    stage.ensure(make)
    return Applied(stage.out, stage.key, (), variant, digest_bytes(placebo.encode()))


def area_of(line: Line) -> Area:
    """Return the place of the line's work area, open or not."""
    return Area(project().line(line.name) / "edit")


def edit(line: Line, tree: TreeLike, *, add: Sequence[str] = (), fresh: bool = False) -> Edited:
    """Open the line's git work area in ``build/<line>/edit`` and say what to do next.

    `add` names files of the tree that no patch touches yet. Where a patch does not fit, the area
    stops there with conflict markers in the files. Work that is not exported is never lost:
    with `fresh` the old area is moved aside.
    """
    with locked(project().line(line.name) / ".series", f"the source tree of {line.name}"), one_line_errors("edit"):
        return edit_series(area_of(line), series_of(line), tree, placement_of(line, tree), add=add, fresh=fresh)


def export(line: Line, tree: TreeLike | None = None) -> Exported:
    """Write the work area back to ``patches/`` and the packagers' queue to ``build/<line>/export``.

    Without an open area one is made from the series first, so that the queue can always be had.
    """
    area = area_of(line)
    if not area.exists:
        edited = edit(line, tree or _default_tree(line))
        if edited.stopped_at:
            raise BuildError(f"{edited.stopped_at} does not fit", hint=f"resolve it in {area.path}, then export again")
    with locked(project().line(line.name) / ".series", f"the source tree of {line.name}"), one_line_errors("export"):
        return _export(line, area)


def _export(line: Line, area: Area) -> Exported:
    old, record = series_of(line), area.record()
    if area.busy:
        raise UsageError(
            f"git waits for a conflict to be resolved in {area.path}",
            hint="edit the marked files, git add --all, git am --continue (or git rebase --continue)",
        )
    if area.dirty:
        raise UsageError(
            f"not committed in {area.path}: {', '.join(area.dirty[:5])}", hint="commit it, amend, or remove it"
        )
    if record.series != old.digest and not record.writing:
        raise UsageError(
            f"{old.folder} has changed since the work area was opened",
            hint="./invoke patch.edit --fresh opens a new one and keeps the old; git cherry-pick your commits over",
        )
    with scratch(area.path.parent) as folder:
        series = area_series(area, folder)
        if not series.patches:
            raise UsageError(f"{area.path} holds no commit", hint="./invoke patch.edit --fresh starts again")
        prove(area, series)
        area.write_record(replace(record, writing=True))
        others = {name for other in _other_series(line).values() for name in other.names}
        changed, removed = write_series(series, old, others)
    for commit, patch in zip(area.commits(), series.patches, strict=True):
        area.note(commit, patch.name)
    names = {patch.subject: patch.name for patch in series.patches}
    area.write_record(AreaRecord(record.tree, series_of(line).digest, area.head, names, record.added))
    queue = _queue(line, area)
    counts = f"{len(series.patches)} patches, {len(changed)} changed, {len(removed)} removed"
    ui.note("export", f"{counts}; queue in {queue}")
    for name in changed:
        ui.say(f"          | {name}")
    for name in removed:
        ui.say(f"          | {name} removed")
    return Exported(tuple(changed), tuple(removed), queue)


def _queue(line: Line, area: Area) -> Path:
    """Write the packagers' queue, once for each state of the area."""
    fragment = (project().kconfig / "variants" / "on.config").read_text(encoding="utf-8")
    inputs = {"head": area.head, "fragment": digest_bytes(fragment.encode()), "format": "1"}
    stage = Stage("export", project().line(line.name) / "export", inputs)
    stage.ensure(lambda folder: write_queue(area, folder, fragment))
    return stage.out


def _other_series(line: Line) -> dict[str, Series]:
    """The series of the other kernel lines, by line."""
    from cloison_forge.core import lines

    return {other.name: series_of(other) for other in lines.load().values() if other.series != line.series}


def _default_tree(line: Line) -> TreeLike:
    """Ask the source room for the line's tree."""
    from cloison_forge.source import api as source

    return source.ensure_tree(line, source.FetchOptions())


def check(
    line: Line, tree: TreeLike | None = None, *, build: bool = True, full: bool = False, json: str = ""
) -> Report:
    """Check the line's series and print a report; `CheckError` if something is found.

    `build` also builds every patch with the option on and off and compares the messages of sparse
    and of the compiler (minutes; what has built once is remembered); `full` links the whole kernel
    after every patch (hours). `json` is a path for the report, '-' for standard output.
    """
    from cloison_forge.core import output
    from cloison_forge.series import checking

    tree = tree or _default_tree(line)
    folder = project().line(line.name)
    with locked(folder / ".check", f"the check of {line.name}"), one_line_errors("check"):
        subject = checking.Subject(
            line.name,
            series_of(line),
            _other_series(line),
            tree,
            placement_of(line, tree),
            policy(project().patches / "check.toml"),
            project().cache / "verdicts",
        )
        report = checking.examine(subject, _builds(line, tree, full) if build else None)
    if json:
        output.write(json, report.as_json())
    if json != "-":
        checking.show(report)
    if not report.passed:
        failed = [check.name for check in report.checks if check.status == FAILED]
        raise CheckError(f"the series of {line.name} fails: {', '.join(failed)}", hint="the findings stand above")
    return report


def _builds(line: Line, tree: TreeLike, full: bool) -> Builds:
    """Configure the kernels of the check: the small one is linked, in the other touched files are compiled."""
    from cloison_forge.kconfig.api import configure
    from cloison_forge.series.building import Config, Workshop
    from cloison_forge.series.checking import Builds

    applied = apply(line, tree)
    configs = []
    for profile in ("uml", "vm"):
        made = configure(line, applied, profile, "on")
        configs.append(Config(made.path, made.profile.arch, profile))
    folder = project().line(line.name)
    shop = Workshop(folder / "check", tree, placement_of(line, tree), folder / "logs")
    return Builds(configs[0], configs[1], shop, full)
