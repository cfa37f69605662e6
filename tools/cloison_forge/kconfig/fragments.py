# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration fragments: files in the kernel's own ``.config`` syntax, with reasons in comments.

Two comments mean something to this toolkit; both speak of the next setting only::

    # waiver: WHY            the setting may come out differently
    # waiver(uml): WHY       ... in the profile uml and in those that extend it
    # override: WHY          this setting replaces that of an earlier fragment

Without an override, two fragments that disagree about a symbol are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError

_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_MARK = re.compile(r"#\s*(waiver|override)(?:\(([\w\s,-]+)\))?:\s*(.*)")
_VALUE = re.compile(r'y|m|n|-?\d+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Setting:
    """One line of a fragment.

    `value` is spelt as in ``.config`` (strings with their quotes), and 'n' for 'is not set'.
    `waiver` and `override` are the reasons given, empty without; `waiver_profiles` limits the waiver.
    """

    symbol: str
    value: str
    file: str
    line: int
    waiver: str = ""
    waiver_profiles: tuple[str, ...] = ()
    override: str = ""

    @property
    def place(self) -> str:
        """Where the line stands, as 'file:line'."""
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        """The line as the kernel reads it."""
        return config_line(self.symbol, self.value)

    def waived_in(self, profiles: Collection[str]) -> bool:
        """Say whether the waiver holds in a profile, given its name and those that it extends."""
        return bool(self.waiver) and (not self.waiver_profiles or not set(profiles).isdisjoint(self.waiver_profiles))


def config_line(symbol: str, value: str) -> str:
    """Return the ``.config`` line that gives `symbol` this value."""
    return f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}"


def parse(text: str, file: str) -> list[Setting]:
    """Read the settings of a fragment; `file` is its name for messages. A line that is no setting is refused."""
    settings: list[Setting] = []
    waiver: tuple[str, tuple[str, ...]] = ("", ())
    override = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if mark := _MARK.fullmatch(line):
            kind, profiles, reason = mark.groups()
            if not reason:
                raise UsageError(f"{file}:{number}: a {kind} without a reason", hint=f"write '# {kind}: why'")
            if kind == "override":
                override = reason
            else:
                waiver = (reason, tuple(re.split(r"[\s,]+", profiles.strip())) if profiles else ())
            continue
        found = _read_setting(line, f"{file}:{number}")
        if found is None:
            if waiver[0] or override:
                if line.startswith("#"):  # a reason may go on over several lines
                    continue
                raise UsageError(f"{file}:{number - 1}: no setting follows the waiver or override")
            continue
        settings.append(Setting(*found, file, number, waiver[0], waiver[1], override))
        waiver, override = ("", ()), ""
    if waiver[0] or override:
        raise UsageError(f"{file}: ends with a waiver or override that no setting follows")
    return settings


def _read_setting(line: str, place: str) -> tuple[str, str] | None:
    """Return symbol and value of a line, None for a comment or an empty line."""
    if unset := _UNSET.fullmatch(line):
        return unset[1], "n"
    if not line or line.startswith("#"):
        return None
    given = _SET.fullmatch(line)
    if given is None or not _VALUE.fullmatch(given[2]):
        raise UsageError(
            f"{place}: not a setting: {line}",
            hint="write CONFIG_NAME=y (or m, n, a number, a quoted text) or '# CONFIG_NAME is not set', comments apart",
        )
    return given[1], given[2]


def merge(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Return the last setting of each symbol; settings that disagree without an override are refused.

    All contradictions are named at once, each with both places.
    """
    merged: dict[str, Setting] = {}
    wrong: list[str] = []
    for setting in settings:
        old = merged.get(setting.symbol)
        if old is not None and old.value != setting.value and not setting.override:
            wrong.append(f"{setting.symbol} is {old.value} at {old.place} and {setting.value} at {setting.place}")
        merged[setting.symbol] = setting
    if wrong:
        raise UsageError(
            "contradictory fragments: " + "; ".join(wrong),
            hint="remove one of the lines, or say '# override: why' above the later one",
        )
    return merged


def read_config(text: str) -> dict[str, str]:
    """Read a ``.config`` as the kernel writes it: symbol to value, 'n' for 'is not set'."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if found := _SET.fullmatch(line):
            values[found[1]] = found[2]
        elif found := _UNSET.fullmatch(line):
            values[found[1]] = "n"
    return values


def load(path: Path, base: Path) -> list[Setting]:
    """Read a fragment file; places name it relative to `base`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"fragment {path}: {getattr(error, 'strerror', error)}") from None
    name = str(path.relative_to(base)) if path.is_relative_to(base) else str(path)
    return parse(text, name)


def render(settings: Iterable[Setting]) -> str:
    """Return the request as the kernel reads it, each line under the place it came from."""
    return "".join(f"# from {setting.place}\n{setting.text}\n" for setting in settings)
