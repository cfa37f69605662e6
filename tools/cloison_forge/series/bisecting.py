# SPDX-License-Identifier: GPL-2.0-or-later
"""Does each patch of a series build, with the option on and off?

A whole kernel after every patch would take hours: a hook in a header that everything includes means
compiling everything. So each state compiles what the series touches, and is asked for every function of
ours that it uses: it must be defined by then. The last state is linked whole. With `full` every state is.

What has built once is remembered in the user's cache under everything it depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import CommandError
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import digest_bytes, digest_file, write_json
from cloison_forge.kernel import identity
from cloison_forge.series import lint
from cloison_forge.series.applying import key_of
from cloison_forge.series.building import Config, Workshop
from cloison_forge.series.findings import Finding
from cloison_forge.series.planning import Plan, compiled, own_files, plan, uncompiled
from cloison_forge.series.reading import Patch, Series

_FORMAT = "3"


@dataclass(frozen=True)
class Symbols:
    """What the compiled objects of one state use and define; `left` are objects that were not compiled."""

    undefined: tuple[str, ...] = ()
    defined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """The series after some of its patches, with VSERVER on or off."""

    series: Series
    on: bool

    @property
    def patch(self) -> Patch:
        """The last patch of this state."""
        return self.series.patches[-1]

    @property
    def word(self) -> str:
        """'on' or 'off'."""
        return "on" if self.on else "off"


def states(series: Series) -> Iterator[State]:
    """Every state of the series: after one patch, two, and so on, each with the option on and off."""
    for count in range(1, len(series.patches) + 1):
        for on in (True, False):
            yield State(series.first(count), on)


def each_patch(
    shop: Workshop, series: Series, touched: Config, whole: Config, *, full: bool
) -> tuple[list[Finding], list[str]]:
    """Build every state of the series; return what does not build, and the objects that were left out.

    `touched` is the configuration in which the touched files are compiled, `whole` the one in which
    the last state (each one, if `full`) is linked.
    """
    require("nm", package="binutils", why="to see which functions a patch uses")
    found: list[Finding] = []
    known: list[tuple[State, Symbols]] = []
    total = 2 * len(series.patches)
    for number, state in enumerate(states(series), 1):
        last = len(state.series.patches) == len(series.patches)
        try:
            known.append((state, _compiled(shop, state, touched, f"{number} of {total}")))
            if last or full:
                _linked(shop, state, whole, f"{number} of {total}")
        except CommandError as error:
            found.append(Finding(state.patch.name, f"does not build with VSERVER {state.word}: {error.message}"))
    return found + list(_too_early(known)), sorted({name for _, symbols in known for name in symbols.left})


def _too_early(known: list[tuple[State, Symbols]]) -> Iterator[Finding]:
    """Name functions of ours that a state uses and that only a later patch defines."""
    ours = {name for state, symbols in known if state.on for name in symbols.defined}
    for state, symbols in known:
        for name in sorted((set(symbols.undefined) & ours) - set(symbols.defined)):
            yield Finding(state.patch.name, f"with VSERVER {state.word} '{name}' is used and not defined")


def _compiled(shop: Workshop, state: State, config: Config, count: str) -> Symbols:
    """Compile what this state touches, or remember that it was; `CommandError` carries the first error."""
    verdict = _verdict(shop, state, config, "touched")
    if verdict.is_file():
        return Symbols(**{name: tuple(value) for name, value in json.loads(verdict.read_text()).items()})
    _move(shop, state)
    tree, obj = shop.tree.path, shop.folder / f"{config.name}-{state.word}" / "obj"
    wanted = plan(state.series, tree, config.source_arch, on=state.on)
    log = _log(shop, state)
    with ui.step("check", f"{count}: {state.patch.name}, VSERVER {state.word}: {len(wanted.goals)} goals"):
        words = ["-k", "prepare", *wanted.goals]
        printed = shop.make(config, obj.parent.name, words, on=state.on, log=log, check=False)
        errors = lint.errors(printed)
        if errors:
            raise CommandError(f"{errors[0]} (all of it in {log})", log=str(log))
        missing = set(wanted.objects) - compiled(wanted, tree, obj) - set(lint.uncompiled(printed))
        if missing:
            raise CommandError(f"{min(missing)} was not made (see {log})", log=str(log))
        symbols = _use(state, wanted, tree, obj)
    write_json(verdict, asdict(symbols))
    return symbols


def _use(state: State, wanted: Plan, tree: Path, obj: Path) -> Symbols:
    """Say which symbols the objects of a state use, and which ones our own objects define."""
    there = compiled(wanted, tree, obj)
    ours = own_files(state.series)
    undefined, _ = _symbols([obj / name for name in sorted(there)])
    _, defined = _symbols([obj / name for name in sorted(there) if f"{name[:-2]}.c" in ours])
    left = {*wanted.left, *uncompiled(wanted, state.series, tree, obj)}
    return Symbols(tuple(sorted(undefined)), tuple(sorted(defined)), tuple(sorted(left)))


def _linked(shop: Workshop, state: State, config: Config, count: str) -> None:
    """Build the whole kernel of a state, or remember that it was; `CommandError` carries the first error."""
    verdict = _verdict(shop, state, config, "whole")
    if verdict.is_file():
        return
    _move(shop, state)
    log = _log(shop, state)
    with ui.step("check", f"{count}: {state.patch.name}, VSERVER {state.word}: the whole kernel {config.name}"):
        target = identity.TARGETS[config.arch]
        try:
            shop.make(config, f"{config.name}-{state.word}", [target], on=state.on, log=log, check=True)
        except CommandError as error:
            first = lint.errors(log.read_text(encoding="utf-8", errors="replace"))
            raise CommandError(f"{(first or [error.message])[0]} (all of it in {log})", log=str(log)) from None
    write_json(verdict, {"patch": state.patch.name, "variant": state.word})


def _move(shop: Workshop, state: State) -> None:
    shop.open()
    shop.state(state.series)


def _log(shop: Workshop, state: State) -> Path:
    return shop.logs / f"check-{state.patch.slug}-{state.word}.log"


def _symbols(objects: list[Path]) -> tuple[set[str], set[str]]:
    """Return the symbols that objects use without defining them, and the global ones that they define."""
    if not objects:
        return set(), set()
    output = run(["nm", "--format=posix", "--no-demangle", *objects], env={"LC_ALL": "C"}).output
    rows = [line.split() for line in output.splitlines() if line and not line.endswith(":")]
    undefined = {row[0] for row in rows if len(row) > 1 and row[1] == "U"}
    defined = {row[0] for row in rows if len(row) > 1 and row[1] in "TDBRVWC"}
    return undefined - defined, defined


def _verdict(shop: Workshop, state: State, config: Config, what: str) -> Path:
    parts = [_FORMAT, what, key_of(shop.tree, state.series), digest_file(config.path), identity.compiler(config.arch)]
    key = digest_bytes("\0".join([*parts, state.word]).encode())
    return project().cache / "verdicts" / f"builds-{key}.json"
