# SPDX-License-Identifier: GPL-2.0-or-later
"""What the check of a series finds, and which of it is waived with a reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from cloison_forge.core.errors import UsageError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
TOOLS = ("checkpatch", "sparse", "compiler", "kernel-doc")


@dataclass(frozen=True)
class Finding:
    """One thing that must not be: in which patch or file, of which type where a tool names types, and what."""

    where: str
    text: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind + ': ' if self.kind else ''}{self.text}"


@dataclass(frozen=True)
class Check:
    """One check of the series: its name, status, findings, and a word on what was looked at."""

    name: str
    status: str
    detail: str = ""
    findings: tuple[Finding, ...] = ()


def checked(name: str, findings: Iterable[Finding], detail: str = "") -> Check:
    """Return a check that passed if there are no findings."""
    found = tuple(findings)
    return Check(name, FAILED if found else PASSED, detail, found)


@dataclass(frozen=True)
class Waiver:
    """A finding of a tool that is accepted, and why. `file` is a pattern of a patch's or file's name."""

    tool: str
    kind: str
    file: str
    reason: str


@dataclass(frozen=True)
class Limits:
    """How much of the kernel's own files a series may touch."""

    files: int = 70
    lines: int = 550


@dataclass(frozen=True)
class Policy:
    """What ``patches/check.toml`` says: the limits of the footprint and the waivers."""

    limits: Limits = Limits()
    waivers: tuple[Waiver, ...] = ()

    def split(self, tool: str, findings: Sequence[Finding]) -> tuple[list[Finding], list[Waiver]]:
        """Return the findings of `tool` that stay, and the waivers that were needed."""
        kept: list[Finding] = []
        used: list[Waiver] = []
        for finding in findings:
            match = next((w for w in self.waivers if w.tool == tool and _covers(w, finding)), None)
            if match is None:
                kept.append(finding)
            elif match not in used:
                used.append(match)
        return kept, used

    def of(self, tool: str) -> list[Waiver]:
        """The waivers for one tool."""
        return [waiver for waiver in self.waivers if waiver.tool == tool]


def _covers(waiver: Waiver, finding: Finding) -> bool:
    return waiver.kind in (finding.kind, "") and fnmatch(finding.where, waiver.file)


def policy(file: Path) -> Policy:
    """Read the policy; a missing file is the default one, a waiver without a reason is refused."""
    if not file.is_file():
        return Policy()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        limits = Limits(**data.pop("footprint", {}))
        waivers = tuple(_waiver(file, number, entry) for number, entry in enumerate(data.pop("waiver", []), 1))
    except (tomllib.TOMLDecodeError, TypeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}", hint="it knows [footprint] files, lines and [[waiver]] entries") from None
    if data:
        raise UsageError(f"{file}: unknown '{next(iter(data))}'", hint="it knows [footprint] and [[waiver]]")
    return Policy(limits, waivers)


def _waiver(file: Path, number: int, entry: dict[str, str]) -> Waiver:
    unknown = set(entry) - {"tool", "type", "file", "reason"}
    tool, reason = entry.get("tool", ""), entry.get("reason", "")
    if unknown or tool not in TOOLS or not reason.strip() or not (entry.get("type") or entry.get("file")):
        raise UsageError(
            f"{file}: waiver {number} is not complete",
            hint=f"tool ({', '.join(TOOLS)}), type and/or file, and a reason",
        )
    return Waiver(tool, entry.get("type", ""), entry.get("file", "*"), reason)


@dataclass(frozen=True)
class Footprint:
    """What a series costs to carry.

    `files` are the kernel's own files that it touches, with (added, removed) lines; `own` the lines of
    our own files by kind: code, documentation, tests.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    own_files: int = 0

    @property
    def added(self) -> int:
        """Lines added to the kernel's own files."""
        return sum(added for added, _ in self.files.values())

    @property
    def removed(self) -> int:
        """Lines removed from the kernel's own files."""
        return sum(removed for _, removed in self.files.values())

    @property
    def lines(self) -> int:
        """Lines touched in the kernel's own files, a changed line counted as one removed and one added."""
        return self.added + self.removed

    def as_json(self, limits: Limits) -> dict[str, object]:
        """The footprint for programs."""
        return {
            "existing_files": len(self.files),
            "existing_lines": self.lines,
            "added": self.added,
            "removed": self.removed,
            "own_files": self.own_files,
            "own_lines": dict(sorted(self.own.items())),
            "limits": asdict(limits),
            "files": {name: {"added": a, "removed": r} for name, (a, r) in sorted(self.files.items())},
        }


@dataclass(frozen=True)
class Report:
    """The answer of `patch.check`."""

    line: str
    series_sha256: str
    patches: tuple[str, ...]
    checks: tuple[Check, ...]
    footprint: Footprint
    limits: Limits

    @property
    def passed(self) -> bool:
        """Say whether no check failed."""
        return all(check.status != FAILED for check in self.checks)

    def as_json(self) -> dict[str, object]:
        """The report for programs."""
        return {
            "schema": "cloison-series-check-1",
            "line": self.line,
            "series_sha256": self.series_sha256,
            "patches": list(self.patches),
            "passed": self.passed,
            "checks": [
                {
                    "name": check.name,
                    "status": check.status,
                    "detail": check.detail,
                    "findings": [asdict(finding) for finding in check.findings],
                }
                for check in self.checks
            ],
            "footprint": self.footprint.as_json(self.limits),
        }
