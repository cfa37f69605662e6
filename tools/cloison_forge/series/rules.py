# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that a series keeps, as far as they can be read off the patches themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import parseaddr

from cloison_forge.series.area import BASE, Area
from cloison_forge.series.findings import Finding, Footprint, Limits
from cloison_forge.series.reading import SHARED, Patch, Series, available

_NAME = re.compile(r"^(?:common/[a-z0-9][a-z0-9-]*|compat|hook-[a-z0-9][a-z0-9-]*)\.patch$")
_TRAILER = re.compile(r"^(?:[A-Z][a-z]+(?:-[a-z]+)*-by|Link|Fixes|Cc|Closes): ")
_SIGNED = re.compile(r"^Signed-off-by: (.+)$", re.MULTILINE)
_SUBJECT_LENGTH = 75
Exists = Callable[[str], bool]


def names(series: Series, others: dict[str, Series]) -> Iterator[Finding]:
    """File names say whose a patch is; none lies about unlisted; hooks bear the same names on every line."""
    for patch in series.patches:
        if not _NAME.match(patch.name):
            yield Finding(patch.name, "is neither common/NAME, hook-NAME nor compat (small letters, digits, -)")
    listed = {name for each in (series, *others.values()) for name in each.names}
    for name in available(series.folder):
        if name not in listed:
            yield Finding(name, "lies in the folder and is in no series")
    for line, other in others.items():
        hooks = {name for name in series.names if name.startswith("hook-")}
        for name in sorted(hooks ^ {name for name in other.names if name.startswith("hook-")}):
            where = f"is not in the series of {line}" if name in hooks else f"is only in the series of {line}"
            yield Finding(name, where)


def mail(series: Series) -> Iterator[Finding]:
    """Every patch can be mailed: who, when, what, why, and signed off by its author."""
    subjects = Counter(patch.subject for patch in series.patches)
    for patch in series.patches:
        yield from (Finding(patch.name, text) for text in _mail(patch))
        if patch.subject and subjects[patch.subject] > 1:
            yield Finding(patch.name, f"another patch has the same subject: {patch.subject}")


def _mail(patch: Patch) -> Iterator[str]:
    for header in ("from", "date", "subject"):
        if not patch.headers.get(header):
            yield f"has no {header.capitalize()}: header"
    if not patch.headers.get("subject", "").startswith("[PATCH"):
        yield "the subject does not start with [PATCH]"
    if len(patch.subject) > _SUBJECT_LENGTH:
        yield f"the subject has {len(patch.subject)} characters; {_SUBJECT_LENGTH} are the kernel's limit"
    if patch.subject.endswith("."):
        yield "the subject ends with a full stop"
    author = parseaddr(patch.headers.get("from", ""))[1]
    signers = {parseaddr(signer)[1] for signer in _SIGNED.findall(patch.message)}
    if author not in signers:
        yield f"has no Signed-off-by: of its author {author or '(unknown)'}"
    said = [line for line in patch.message.splitlines() if line.strip() and not _TRAILER.match(line)]
    if not said:
        yield "does not say why: the message is empty"


def ownership(series: Series, exists: Exists) -> Iterator[Finding]:
    """Shared patches and compat.patch touch no file of the kernel, and shared ones no file of a line."""
    line_owned = {
        change.path: patch.name
        for patch in series.patches
        if not patch.shared
        for change in patch.files
        if change.source is None
    }
    for patch in series.patches:
        if patch.name.startswith("hook-"):
            continue
        for path in sorted({path for change in patch.files for path in change.paths}):
            if exists(path):
                yield Finding(patch.name, f"touches {path}, which is the kernel's: that belongs into a hook-*.patch")
            elif patch.shared and path in line_owned:
                yield Finding(patch.name, f"touches {path}, which {line_owned[path]} owns; {SHARED} serves every line")


def normal_form(series: Series, exported: Series) -> Iterator[Finding]:
    """The bytes on disk are those that an export writes, so that a refresh does not churn."""
    for patch, normal in zip(series.patches, exported.patches, strict=True):
        if patch.data != normal.data:
            yield Finding(patch.name, f"is not as ./invoke patch.export writes it ({_difference(patch, normal)})")


def _difference(patch: Patch, normal: Patch) -> str:
    pairs = zip(patch.data.split(b"\n"), normal.data.split(b"\n"), strict=False)
    for number, (present, wanted) in enumerate(pairs, 1):
        if present != wanted:
            return f"line {number}: '{wanted.decode('utf-8', 'replace')[:70]}'"
    return "its length differs"


def whitespace(area: Area, series: Series) -> Iterator[Finding]:
    """No patch adds blanks at the end of a line, blank lines at the end of a file, or blanks before a tab."""
    for commit, patch in zip(area.commits(), series.patches, strict=True):
        for line in area.git("show", "--format=", "--check", commit, check=False).output.splitlines():
            if not line.startswith("+") and not _heading(area, commit, line):
                yield Finding(patch.name, line)


def _heading(area: Area, commit: str, line: str) -> bool:
    """Say whether what git takes for the middle of a conflict underlines a title of seven letters."""
    match = re.match(r"(.+):(\d+): leftover conflict marker$", line)
    if match is None:
        return False
    text = area.git("show", f"{commit}:{match[1]}").output.splitlines()
    return text[int(match[2]) - 1] == "======="


def measure(area: Area) -> Footprint:
    """Count what the area's commits change in all, against the originals."""
    base = {name for name in area.git("ls-tree", "-r", "--name-only", "-z", BASE).output.split("\0") if name}
    rows = area.git("diff", "--numstat", "--no-renames", "-z", BASE, "HEAD").output.split("\0")
    files: dict[str, tuple[int, int]] = {}
    own: Counter[str] = Counter()
    own_files = 0
    for row in filter(None, rows):
        added, removed, name = row.split("\t")
        if name in base:
            files[name] = (int(added), int(removed))
        else:
            own[kind_of(name)] += int(added)
            own_files += 1
    return Footprint(files, dict(own), own_files)


def kind_of(name: str) -> str:
    """Say what one of our own files is: documentation, tests or code."""
    if name.startswith("Documentation/"):
        return "documentation"
    if name.startswith("tools/testing/") or re.search(r"(?:_|-)(?:kunit|test|tests)\.[ch]$|/tests?/", name):
        return "tests"
    return "code"


def footprint(found: Footprint, limits: Limits) -> Iterator[Finding]:
    """The gate: how many of the kernel's own files and lines may be touched."""
    if len(found.files) > limits.files:
        yield Finding("series", f"touches {len(found.files)} of the kernel's files; the limit is {limits.files}")
    if found.lines > limits.lines:
        yield Finding("series", f"touches {found.lines} lines of the kernel's files; the limit is {limits.lines}")
