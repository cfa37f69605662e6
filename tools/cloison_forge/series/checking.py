# SPDX-License-Identifier: GPL-2.0-or-later
"""The check of a series: every rule, one after the other, into one report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, ForgeError
from cloison_forge.series import bisecting, building, lint, rules
from cloison_forge.series.applying import TreeLike, scratch
from cloison_forge.series.area import Area, open_area
from cloison_forge.series.building import Config, Workshop
from cloison_forge.series.exporting import area_series
from cloison_forge.series.findings import (
    FAILED,
    PASSED,
    SKIPPED,
    Check,
    Finding,
    Footprint,
    Policy,
    Report,
    checked,
)
from cloison_forge.series.fitting import Content, Fit, fit
from cloison_forge.series.placing import Placement
from cloison_forge.series.reading import Series


@dataclass(frozen=True)
class Subject:
    """What is checked: the series of a line in a tree, with the series of other lines, and the policy.

    `memory` is the folder that remembers earlier verdicts.
    """

    line: str
    series: Series
    others: dict[str, Series]
    tree: TreeLike
    placement: Placement
    policy: Policy
    memory: Path


@dataclass(frozen=True)
class Builds:
    """What the checks that compile need: a configuration to link, one to compile touched files in, a place.

    `full` links the kernel after every patch and not only after the last.
    """

    whole: Config
    touched: Config
    shop: Workshop
    full: bool = False


def examine(subject: Subject, builds: Builds | None) -> Report:
    """Run every check; those that compile only if `builds` is given."""
    checks, fitted = _fits(subject)
    footprint = Footprint()
    checks.append(checked("names", rules.names(subject.series, subject.others), "files and hooks of every line"))
    checks.append(checked("mail", rules.mail(subject.series), "headers, message, Signed-off-by"))
    if fitted is None:
        rest = "ownership, stable bytes, whitespace, footprint, checkpatch, kernel-doc, builds, sparse, compiler"
        checks += [Check(name, SKIPPED, "the series does not fit") for name in rest.split(", ")]
    else:
        originals = subject.placement.originals(list(subject.series.touched))
        checks.append(_ownership(subject, originals))
        stable, footprint = _stable(subject, originals)
        checks += stable
        checks.append(_footprint(subject, footprint))
        checks.append(_checkpatch(subject))
        checks.append(_kernel_doc(subject, originals, fitted))
        checks += list(_compiled(subject, builds))
    return Report(
        subject.line, subject.series.digest, subject.series.names, tuple(checks), footprint, subject.policy.limits
    )


def _fits(subject: Subject) -> tuple[list[Check], Fit | None]:
    """Fuzz 0 and, on the reference source, offset 0."""
    with _scratch() as folder:
        try:
            fitted = fit(subject.series, subject.placement.originals(list(subject.series.touched)), folder)
        except BuildError as error:
            where = getattr(error, "patch", "series")
            return [Check("fuzz 0", FAILED, "", (Finding(where, error.message),)), Check("offset 0", SKIPPED)], None
    fuzz = Check("fuzz 0", PASSED, f"{len(subject.series.patches)} patches")
    if not subject.tree.reference:
        word = f"{len(fitted.offsets)} hunks at an offset; the source is not the line's reference"
        return [fuzz, Check("offset 0", SKIPPED, word)], fitted
    found = [Finding(o.patch, f"{o.file} hunk {o.hunk} sits {o.lines:+d} lines off") for o in fitted.offsets]
    return [fuzz, checked("offset 0", found, "on the reference source")], fitted


def _ownership(subject: Subject, originals: dict[str, Content | None]) -> Check:
    found = rules.ownership(subject.series, lambda path: originals.get(path) is not None)
    return checked("ownership", found, "common and compat touch no file of the kernel")


def _stable(subject: Subject, originals: dict[str, Content | None]) -> tuple[list[Check], Footprint]:
    """Edit and export in a scratch folder: the same bytes must come out.

    The area also shows blanks that should not be there, and gives the footprint.
    """
    with _scratch() as folder:
        area = Area(folder / "area")
        stopped = open_area(area, subject.series, "", originals, ()).stopped_at
        if stopped:
            finding = Finding(stopped, "git am does not take it, though GNU patch does")
            return [Check("stable bytes", FAILED, "", (finding,)), Check("whitespace", SKIPPED)], Footprint()
        (folder / "out").mkdir()
        try:
            exported = area_series(area, folder / "out")
            found = list(rules.normal_form(subject.series, exported))
        except ForgeError as error:
            found = [Finding("series", error.message)]
        checks = [
            checked("stable bytes", found, "edit and export give the same bytes"),
            checked("whitespace", rules.whitespace(area, subject.series), "git show --check"),
        ]
        return checks, rules.measure(area)


def _footprint(subject: Subject, found: Footprint) -> Check:
    limits = subject.policy.limits
    word = f"{len(found.files)} of {limits.files} files, {found.lines} of {limits.lines} lines of the kernel"
    return checked("footprint", rules.footprint(found, limits), word)


def _checkpatch(subject: Subject) -> Check:
    found = lint.checkpatch(subject.series, subject.tree.path, subject.memory, subject.tree.key)
    return _judged(subject, "checkpatch", found, "--strict, each patch")


def _kernel_doc(subject: Subject, originals: dict[str, Content | None], fitted: Fit) -> Check:
    with _scratch() as folder:
        found = lint.kernel_doc(subject.tree.path, originals, fitted.files, folder)
    return _judged(subject, "kernel-doc", found, "touched files, pristine and patched")


def _judged(subject: Subject, tool: str, findings: list[Finding], detail: str) -> Check:
    """Take waived findings out; a waiver that nothing needs is itself a finding."""
    kept, used = subject.policy.split(tool, findings)
    waived = len(findings) - len(kept)
    for waiver in subject.policy.of(tool):
        if waiver not in used:
            kept.append(Finding("check.toml", f"{tool} does not need the waiver '{waiver.kind or waiver.file}'"))
    return checked(tool, kept, detail + (f"; {waived} waived with a reason" if waived else ""))


def _compiled(subject: Subject, builds: Builds | None) -> Iterator[Check]:
    if builds is None:
        for name in ("builds", "sparse", "compiler"):
            yield Check(name, SKIPPED, "not asked for")
        return
    series = subject.series
    found, left = bisecting.each_patch(builds.shop, series, builds.touched, builds.whole, full=builds.full)
    word = f"{len(series.patches)} patches, VSERVER on and off, {builds.touched.name}; {builds.whole.name} linked"
    word += f"; not compiled: {', '.join(left)}" if left else ""
    yield checked("builds", found, word)
    if found:
        yield Check("sparse", SKIPPED, "the series does not build")
        yield Check("compiler", SKIPPED, "the series does not build")
        return
    sparse, compiler, looked = building.warnings(builds.shop, series, builds.touched)
    yield _judged(subject, "sparse", sparse, looked)
    yield _judged(subject, "compiler", compiler, f"W=1, {looked}")


@contextmanager
def _scratch() -> Iterator[Path]:
    with scratch(Path(tempfile.gettempdir())) as folder:
        yield folder


def show(report: Report) -> None:
    """Print the report for people: a table of checks, the findings, the footprint."""
    marks = {PASSED: "✓ passed", FAILED: "✗ FAILED", SKIPPED: "– not run"}
    rows = [[each.name, marks[each.status], str(len(each.findings) or ""), each.detail] for each in report.checks]
    title = f"The series of {report.line}: {len(report.patches)} patches"
    ui.table(title, ["check", "", "findings", "looked at"], rows)
    for check in report.checks:
        for finding in check.findings[:40]:
            print(f"{check.name}: {finding}")
        if len(check.findings) > 40:
            print(f"{check.name}: and {len(check.findings) - 40} more (--json has all)")
    found = report.footprint
    if not found.files and not found.own_files:
        return
    lines = [[name, f"+{added}", f"-{removed}"] for name, (added, removed) in sorted(found.files.items())]
    lines.append([f"{len(found.files)} files of the kernel", f"+{found.added}", f"-{found.removed}"])
    lines += [[f"our own {kind}", f"+{count}", ""] for kind, count in sorted(found.own.items())]
    ui.table("Footprint", ["file", "added", "removed"], lines)
