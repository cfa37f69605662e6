# SPDX-License-Identifier: GPL-2.0-or-later
"""The feature catalogue: it renders ``kernel/vserver/Kconfig`` and the docs table, and checks the series."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

from cloison_forge.core import ui
from cloison_forge.core.errors import CheckError, UsageError
from cloison_forge.core.paths import Project, project
from cloison_forge.core.stage import atomic_file
from cloison_forge.kconfig import profiles
from cloison_forge.kconfig.profiles import close_matches

KCONFIG = "kernel/vserver/Kconfig"
AUDIENCES = ("users", "developers", "tests")
HELP_WIDTH = 68


@dataclass(frozen=True)
class Feature:
    """One Kconfig symbol of the series; the fields are explained at the top of ``features.toml``."""

    symbol: str
    prompt: str
    help: str
    patch: str
    summary: str
    audience: str
    prompt_if: str = ""
    depends: str = ""
    default: str = ""
    select: tuple[str, ...] = ()

    @property
    def help_lines(self) -> list[str]:
        """The help text, line by line."""
        return self.help.strip("\n").splitlines()

    @property
    def depends_code(self) -> str:
        """The dependencies for a Markdown table; a pipe would end the cell."""
        return f"`{self.depends}`".replace("|", "\\|") if self.depends else ""

    @property
    def select_code(self) -> str:
        """The selected symbols for a Markdown table."""
        return ", ".join(f"`{target}`" for target in self.select)


class _Hunk(Protocol):
    @property
    def old_start(self) -> int: ...
    @property
    def old_lines(self) -> tuple[str, ...]: ...
    @property
    def lines(self) -> tuple[str, ...]: ...


class _Change(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def hunks(self) -> Sequence[_Hunk]: ...


class PatchLike(Protocol):
    """What the catalogue needs of a patch (`cloison_forge.series.reading.Patch`)."""

    @property
    def name(self) -> str:
        """Its name in the series."""

    @property
    def files(self) -> Sequence[_Change]:
        """What it changes."""


def load(path: Path | None = None) -> list[Feature]:
    """Read the catalogue; a mistake ends in one line that names the entry."""
    source = path or project().kconfig / "features.toml"
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{source}: {error}") from None
    entries = data.get("feature", [])
    features = [_feature(entry, source) for entry in entries]
    symbols = [feature.symbol for feature in features]
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise UsageError(f"{source}: {symbol} stands twice")
    return features


def _feature(entry: dict[str, object], source: Path) -> Feature:
    known = {field.name for field in fields(Feature)}
    name = entry.get("symbol", "an entry without symbol")
    for key in entry:
        if key not in known:
            raise UsageError(f"{source}: {name}: unknown key '{key}'{close_matches(key, known)}")
    for key in ("symbol", "prompt", "help", "patch", "summary", "audience"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise UsageError(f"{source}: {name}: {key} is missing")
    values = {**entry, "select": tuple(entry.get("select", ()))}  # type: ignore[arg-type]
    feature = Feature(**values)  # type: ignore[arg-type]
    if feature.audience not in AUDIENCES:
        raise UsageError(f"{source}: {name}: audience is one of {', '.join(AUDIENCES)}, not '{feature.audience}'")
    for line in feature.help_lines:
        if len(line) > HELP_WIDTH:
            raise UsageError(f"{source}: {name}: a line of its help is longer than {HELP_WIDTH} columns: {line}")
    return feature


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(project().kconfig),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render(**values).rstrip("\n") + "\n"


def kconfig_text(features: Iterable[Feature]) -> str:
    """Return ``kernel/vserver/Kconfig`` as the series must contain it."""
    return _render("Kconfig.j2", features=list(features))


def docs_text(features: Iterable[Feature]) -> str:
    """Return ``docs/features.md``."""
    return _render("features.md.j2", features=list(features), profiles=[profiles.get(n) for n in profiles.names()])


def series_text(patches: Iterable[PatchLike], path: str = KCONFIG) -> str:
    """Return the file that the patches together create at `path`, empty if none does."""
    lines: list[str] = []
    for patch in patches:
        for change in patch.files:
            if change.path == path:
                lines = _patched(lines, change.hunks, patch.name)
    return "".join(f"{line}\n" for line in lines)


def _patched(lines: list[str], hunks: Sequence[_Hunk], name: str) -> list[str]:
    result = list(lines)
    for hunk in reversed(hunks):
        start = max(hunk.old_start - 1, 0)
        old = list(hunk.old_lines)
        if result[start : start + len(old)] != old:
            raise CheckError(f"{name}: a hunk of {KCONFIG} does not continue what the patches before it made")
        result[start : start + len(old)] = [line[1:] for line in hunk.lines if line[:1] in " +"]
    return result


def introduced(patches: Iterable[PatchLike]) -> dict[str, str]:
    """Return the symbols that the patches' own Kconfig files define, each with the patch that brings it."""
    brought: dict[str, str] = {}
    for patch in patches:
        for change in patch.files:
            if not change.path.startswith("kernel/vserver/") or not change.path.rpartition("/")[2].startswith(
                "Kconfig"
            ):
                continue
            for hunk in change.hunks:
                for line in hunk.lines:
                    if found := re.match(r"\+(?:menu)?config (\w+)$", line):
                        brought.setdefault(found[1], patch.name)
    return brought


def check(features: Sequence[Feature], patches: Sequence[PatchLike]) -> list[str]:
    """Return what differs between the catalogue and the series: symbols, their patches, the rendered file."""
    wrong: list[str] = []
    brought = introduced(patches)
    for feature in features:
        if feature.symbol not in brought:
            wrong.append(f"{feature.symbol}: no patch of the series introduces it")
        elif brought[feature.symbol] != feature.patch:
            wrong.append(f"{feature.symbol}: {brought[feature.symbol]} introduces it, not {feature.patch}")
    named = {feature.symbol for feature in features}
    wrong += [
        f"{symbol}: {patch} introduces it, the catalogue does not know it"
        for symbol, patch in brought.items()
        if symbol not in named
    ]
    expected, found = kconfig_text(features), series_text(patches)
    if expected != found:
        difference = difflib.unified_diff(
            found.splitlines(), expected.splitlines(), "in the series", "from the catalogue", lineterm="", n=1
        )
        wrong.append(f"{KCONFIG} differs from what the catalogue renders:\n" + "\n".join(difference))
    return wrong


def write(features: Sequence[Feature] | None = None, to: Project | None = None) -> list[Path]:
    """Write ``docs/features.md``, and ``kernel/vserver/Kconfig`` into the open work areas; return what changed."""
    place = to or project()
    entries = features if features is not None else load()
    targets = {place.root / "docs" / "features.md": docs_text(entries)}
    for area in place.build.glob("*/edit/"):
        if (area / KCONFIG).is_file():
            targets[area / KCONFIG] = kconfig_text(entries)
    changed = [path for path, text in targets.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in changed:
        with atomic_file(path) as beside:
            beside.write_text(targets[path], encoding="utf-8")
        ui.note("kconfig", f"wrote {path}")
    if not changed:
        ui.note("kconfig", "the docs table and open work areas agree with the catalogue")
    return changed
