# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of the tree for the checks that compile, and what sparse and gcc's W=1 say that they did not before.

The copy and its object folders are in ``build/<line>/check``, so that the ordinary build is not
disturbed. It moves through the states of the series as the tree itself does: by the files that differ.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloison_forge.core import ui
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import digest_bytes, digest_files
from cloison_forge.kconfig.tree import SOURCE_ARCH
from cloison_forge.kernel import identity
from cloison_forge.series import lint
from cloison_forge.series.applying import TreeLike, put
from cloison_forge.series.findings import Finding
from cloison_forge.series.placing import Placement, copy_untouched
from cloison_forge.series.planning import Plan, compiled, plan, uncompiled
from cloison_forge.series.reading import Series


@dataclass(frozen=True)
class Config:
    """A configuration to start from: its file, architecture, and a name for folders."""

    path: Path
    arch: str
    name: str

    @property
    def source_arch(self) -> str:
        """The architecture's folder below arch/."""
        return SOURCE_ARCH.get(self.arch, self.arch)


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
        env = identity.environment(self.folder.parent)
        Path(env["CCACHE_DIR"]).mkdir(parents=True, exist_ok=True)
        self._configure(config, obj, [*make, "olddefconfig"], env, on=on, log=log)
        jobs = f"-j{os.cpu_count() or 1}"
        return run([*make, jobs, *words], env=env, log=log, check=check, on_line=lambda _: None).output

    def _configure(
        self, config: Config, obj: Path, make: list[str], env: dict[str, str], *, on: bool, log: Path
    ) -> None:
        """Put the wanted configuration in place, unless it was made from the same settings and options."""
        text = config.path.read_text(encoding="utf-8")
        text = text if on else _without_vserver(text)
        options = [name for name in self.placement.state().files if PurePosixPath(name).name.startswith("Kconfig")]
        there = [name for name in sorted(options) if (self.tree.path / name).is_file()]
        key = digest_bytes(f"{text}\0{digest_files([self.tree.path / n for n in there], self.tree.path)}".encode())
        mark = obj / ".cloison-configured"
        if mark.is_file() and mark.read_text(encoding="utf-8") == key and (obj / ".config").is_file():
            return
        mark.unlink(missing_ok=True)
        (obj / ".config").write_text(text, encoding="utf-8")
        run(make, env=env, log=log)
        mark.write_text(key, encoding="utf-8")


def _without_vserver(text: str) -> str:
    kept = [line for line in text.splitlines() if "CONFIG_VSERVER" not in line]
    return "\n".join([*kept, "# CONFIG_VSERVER is not set", ""])


def warnings(shop: Workshop, series: Series, config: Config) -> tuple[list[Finding], list[Finding], str]:
    """Compile the touched files with sparse and W=1, pristine and patched.

    Returns what is new of sparse, what is new of the compiler, and a word on what was looked at.
    """
    require("sparse", package="sparse", why="to compare its messages")
    shop.open()
    touched = set(series.touched)
    tree, obj = shop.tree.path, shop.folder / f"{config.name}-lint" / "obj"
    printed: list[tuple[str, str]] = []
    for on in (False, True):
        shop.state(series if on else series.first(0))
        wanted = plan(series, tree, config.source_arch, on=on)
        with ui.step("check", f"sparse and W=1, {'patched' if on else 'pristine'}: {len(wanted.goals)} goals"):
            printed.append(_printed(shop, config, wanted, obj))
    compiler, sparse = (
        lint.new_messages(_messages(printed[0][n]), _messages(printed[1][n]), touched) for n in range(2)
    )
    left = sorted({*wanted.left, *uncompiled(wanted, series, tree, obj)})
    detail = f"{len(compiled(wanted, tree, obj))} files"
    detail += f"; not compiled in {config.name}: {', '.join(left)}" if left else ""
    return [finding for finding in sparse if finding not in compiler], compiler, detail


def _messages(text: str) -> lint.Messages:
    return lint.messages(text.splitlines(), f"../{identity.SOURCE_LINK}/")


def _printed(shop: Workshop, config: Config, wanted: Plan, obj: Path) -> tuple[str, str]:
    """Compile the objects anew with gcc's extra warnings, then look at them with sparse; return what both printed."""
    log = shop.logs / "check-warnings.log"
    name = obj.parent.name
    if not wanted.goals:
        return "", ""
    shop.make(config, name, ["prepare"], on=True, log=log, check=True)
    for file in (obj / name for name in compiled(wanted, shop.tree.path, obj)):
        file.unlink()
    gcc = shop.make(config, name, ["-k", "W=1", *wanted.goals], on=True, log=log, check=False)
    sparse = shop.make(config, name, ["-k", "W=1", "C=2", "CHECK=sparse", *wanted.goals], on=True, log=log, check=False)
    return gcc, sparse
