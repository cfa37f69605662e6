# SPDX-License-Identifier: GPL-2.0-or-later
"""Does each patch build, with the option on and off; and what do sparse and gcc's W=1 say that they did not before?

All of it happens in a copy of the tree and in object folders of its own, ``build/<line>/check``, so
that the ordinary build is not disturbed. A state that has built once is remembered in the user's
cache under everything it depends on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import CommandError
from cloison_forge.core.paths import project
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import digest_bytes, digest_file, write_json
from cloison_forge.kernel import identity
from cloison_forge.series import lint
from cloison_forge.series.applying import TreeLike, key_of, put
from cloison_forge.series.findings import Finding
from cloison_forge.series.placing import Placement, copy_untouched
from cloison_forge.series.reading import Series

_SOURCE_ARCH = {"x86_64": "x86"}
_FORMAT = "1"


@dataclass(frozen=True)
class Config:
    """A configuration to start from: its file, architecture, and a name for folders."""

    path: Path
    arch: str
    name: str


@dataclass(frozen=True)
class CheckTree:
    """The copy of the tree that the checks move through the states of the series."""

    path: Path
    key: str
    reference: bool


class Workshop:
    """The copy and its object folders, for one line."""

    def __init__(self, folder: Path, tree: TreeLike, placement: Placement, logs: Path) -> None:
        self.folder, self._tree, self._placement, self.logs = folder, tree, placement, logs
        self.tree = CheckTree(folder / "source", tree.key, tree.reference)
        self.placement = Placement(self.tree.path, folder / "pristine")

    def open(self) -> None:
        """Copy the tree, unless the copy is there and of the same source."""
        mark = self.folder / "copied"
        if mark.is_file() and mark.read_text(encoding="utf-8") == self._tree.key:
            return
        with ui.step("check", "copying the source for the checks"):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            beside = Path(tempfile.mkdtemp(dir=self.folder, prefix=".source."))
            copy_untouched(self._tree.path, self._placement, beside)
            beside.chmod(0o755)
            beside.rename(self.tree.path)
            mark.write_text(self._tree.key, encoding="utf-8")

    def state(self, series: Series) -> None:
        """Move the copy to a state of the series."""
        put(self.tree, series, self.placement)

    def make(self, config: Config, name: str, words: list[str], *, on: bool, log: Path, check: bool) -> str:
        """Run make in the object folder `name` with VSERVER on or off; return what it printed."""
        obj = self.folder / name / "obj"
        obj.mkdir(parents=True, exist_ok=True)
        identity.link_source(self.tree.path, obj)
        make = identity.make_words(self.tree.path, obj, config.arch)
        env = identity.environment(project().build)
        Path(env["CCACHE_DIR"]).mkdir(parents=True, exist_ok=True)
        text = config.path.read_text(encoding="utf-8")
        _write_config(obj, text if on else _without_vserver(text))
        jobs = f"-j{os.cpu_count() or 1}"
        run([*make, "olddefconfig"], env=env, log=log)
        return run([*make, jobs, *words], env=env, log=log, check=check, on_line=lambda _: None).output


def _write_config(obj: Path, text: str) -> None:
    """Put the wanted configuration in place; olddefconfig adds to it what this state of the tree knows."""
    (obj / ".config").write_text(text, encoding="utf-8")


def _without_vserver(text: str) -> str:
    kept = [line for line in text.splitlines() if "CONFIG_VSERVER" not in line]
    return "\n".join([*kept, "# CONFIG_VSERVER is not set", ""])


def states(series: Series) -> Iterator[Series]:
    """Every state of the series, after one patch, two, and so on."""
    for count in range(1, len(series.patches) + 1):
        yield series.first(count)


def each_patch(shop: Workshop, series: Series, config: Config) -> list[Finding]:
    """Build every state of the series with the option on and off; return those that do not build.

    States that have built before, on any checkout of this user, are not built again.
    """
    found: list[Finding] = []
    total = 2 * len(series.patches)
    for number, state in enumerate(states(series)):
        patch = state.patches[-1]
        for on in (True, False):
            word = "on" if on else "off"
            verdict = _verdict(shop, state, config, word)
            if verdict.is_file():
                continue
            shop.open()
            shop.state(state)
            done = 2 * number + (not on)
            log = shop.logs / f"check-{patch.slug}-{word}.log"
            log.unlink(missing_ok=True)
            with ui.step("check", f"{done + 1} of {total}: building {patch.name} with VSERVER {word}"):
                text = _build(shop, config, word, log)
            if text:
                found.append(Finding(patch.name, f"does not build with VSERVER {word}: {text}", "build"))
            else:
                write_json(verdict, {"patch": patch.name, "variant": word, "builds": True})
    return found


def _build(shop: Workshop, config: Config, word: str, log: Path) -> str:
    """Build one state; return an empty text or the first error."""
    try:
        target = identity.TARGETS[config.arch]
        shop.make(config, f"{config.name}-{word}", [target], on=word == "on", log=log, check=True)
    except CommandError as error:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        first = next((line for line in lines if " error: " in line or "undefined reference" in line), error.message)
        return f"{first.splitlines()[0]} (all of it in {log})"
    return ""


def _verdict(shop: Workshop, state: Series, config: Config, word: str) -> Path:
    key = digest_bytes(
        "\0".join(
            [_FORMAT, key_of(shop.tree, state), digest_file(config.path), identity.compiler(config.arch), word]
        ).encode()
    )
    return project().cache / "verdicts" / f"builds-{key}.json"


def warnings(shop: Workshop, series: Series, config: Config) -> tuple[list[Finding], list[Finding], str]:
    """Compile the touched files with sparse and W=1, pristine and patched.

    Returns what is new of sparse, what is new of the compiler, and a word on what was looked at.
    """
    require("sparse", why="to compare its messages")
    shop.open()
    touched = set(series.touched)
    counts: list[tuple[lint.Messages, lint.Messages]] = []
    detail = ""
    for state in (series.first(0), series):
        shop.state(state)
        arch = _SOURCE_ARCH.get(config.arch, config.arch)
        objects, left = lint.targets(sorted(touched), arch, shop.tree.path)
        word = f"{len(objects)} files, {'patched' if state.patches else 'pristine'}"
        with ui.step("check", f"sparse and W=1 on {word}"):
            counts.append(_messages(shop, config, objects))
        detail = f"{len(objects)} files" + (f"; not compiled for {config.arch}: {', '.join(left)}" if left else "")
    (sparse_a, gcc_a), (sparse_b, gcc_b) = counts
    return lint.new_messages(sparse_a, sparse_b, touched), lint.new_messages(gcc_a, gcc_b, touched), detail


def _messages(shop: Workshop, config: Config, objects: list[str]) -> tuple[lint.Messages, lint.Messages]:
    """Compile objects anew, once with gcc's extra warnings and once under sparse."""
    log = shop.logs / "check-warnings.log"
    name = f"{config.name}-lint"
    if not objects:
        return lint.Messages(), lint.Messages()
    shop.make(config, name, ["prepare"], on=True, log=log, check=True)
    prefix = f"../{identity.SOURCE_LINK}/"
    for file in objects:
        (shop.folder / name / "obj" / file).unlink(missing_ok=True)
    compiled = shop.make(config, name, ["-k", "W=1", *objects], on=True, log=log, check=False)
    checked = shop.make(config, name, ["-k", "C=2", "CHECK=sparse", *objects], on=True, log=log, check=False)
    return lint.messages(checked.splitlines(), prefix), lint.messages(compiled.splitlines(), prefix)
