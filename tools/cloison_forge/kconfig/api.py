# SPDX-License-Identifier: GPL-2.0-or-later
"""From a profile to an audited ``.config``; and what a symbol is, needs and got."""

from __future__ import annotations

import json as jsonlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cloison_forge.core import ui
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.stage import Stage, digest_bytes, digest_file, digest_files, write_json
from cloison_forge.kconfig import profiles
from cloison_forge.kconfig.fragments import Setting, read_config, render
from cloison_forge.kconfig.profiles import WITHOUT_SERIES, Profile

if TYPE_CHECKING:
    from cloison_forge.kconfig.explain import Explanation

FORMAT = "2"  # raise when the same inputs would give another .config
_MEMO = ".kconfig-files.json"


class PatchedTree(Protocol):
    """What this room and the kernel room need of a tree (`cloison_forge.series.api.Applied`)."""

    @property
    def path(self) -> Path:
        """The tree's folder."""

    @property
    def key(self) -> str:
        """Changes when the tree's content does."""

    @property
    def provenance(self) -> dict[str, object]:
        """What a build's provenance says about the series."""


@dataclass(frozen=True)
class Configured:
    """A resolved, audited configuration.

    `path` is the ``.config``, `key` the SHA-256 of its contents, `audit` the file with the comparison.
    """

    path: Path
    key: str
    profile: Profile
    variant: str = "on"
    audit: Path = Path()


def folder_name(profile: str, variant: str) -> str:
    """Return the name of an output folder: 'vm', 'vm-off'."""
    return profile if variant == "on" else f"{profile}-{variant}"


def configure(
    line: Line, applied: PatchedTree, profile: str, variant: str = "on", *, offline: bool = False
) -> Configured:
    """Make the configuration of a profile, or find it made; a setting that was lost raises `BuildError`.

    A change in the tree that touches no Kconfig file does not resolve again. `offline` forbids to
    download the distribution's configuration.
    """
    from cloison_forge.kconfig.resolve import base_digest
    from cloison_forge.kernel.identity import compiler

    chosen = profiles.get(profile)
    request = chosen.settings(variant)
    out = project().line(line.name) / "kconfig" / folder_name(profile, variant)
    inputs = {
        "format": FORMAT,
        "request": digest_bytes(render(request.values()).encode()),
        "waivers": digest_bytes(repr([(s.symbol, s.waiver, s.waiver_profiles) for s in request.values()]).encode()),
        "arch": chosen.arch,
        "base": f"{chosen.base} {base_digest(chosen, line, offline=offline)}",
        "compiler": compiler(chosen.arch),
    }
    with locked(out.parent, f"the configuration of {profile}"):
        stage = Stage("kconfig", out, {**inputs, "tree": _tree_digest(applied, out)})
        if stage.fresh():
            ui.note("kconfig", f"{folder_name(profile, variant)}: up to date")
        else:
            _make(line, applied, chosen, variant, request, inputs, out)
    return Configured(out / ".config", digest_file(out / ".config"), chosen, variant, out / "audit.json")


def _tree_digest(applied: PatchedTree, out: Path) -> str:
    """Return the digest of the Kconfig files that the last run read, from a memo while the tree's key is the same."""
    memo = _read(out.with_name(f"{out.name}{_MEMO}"))
    if memo.get("tree") == applied.key:
        return str(memo.get("digest"))
    files = [applied.path / name for name in memo.get("files", [])]
    if not files or not all(file.is_file() for file in files):
        return "unknown"
    digest = digest_files(files, applied.path)
    _remember(applied, out, memo["files"], digest)
    return digest


def _remember(applied: PatchedTree, out: Path, files: list[str], digest: str) -> None:
    write_json(out.with_name(f"{out.name}{_MEMO}"), {"tree": applied.key, "digest": digest, "files": files})


def _read(path: Path) -> dict[str, Any]:
    try:
        value = jsonlib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _make(
    line: Line,
    applied: PatchedTree,
    profile: Profile,
    variant: str,
    request: dict[str, Setting],
    inputs: dict[str, str],
    out: Path,
) -> None:
    """Parse, check names, resolve, audit; only then does the new configuration take its place."""
    from cloison_forge.kconfig import audit as audits
    from cloison_forge.kconfig import tree
    from cloison_forge.kconfig.resolve import resolve

    name = folder_name(profile.name, variant)
    with ui.step("kconfig", f"{name}: resolving {len(request)} settings"):
        kconf = tree.parse(applied.path, profile.arch)
        audits.check_names(request, kconf)
        files = tree.files(kconf, applied.path)
        digest = digest_files([applied.path / file for file in files], applied.path)
        stage = Stage("kconfig", out, {**inputs, "tree": digest})

        def make(folder: Path) -> None:
            asked, config = folder / "request.config", folder / ".config"
            asked.write_text(render(request.values()), encoding="utf-8")
            tool = out.parent / (f".tool-{variant}" if variant in WITHOUT_SERIES else ".tool")
            log = out.parent.parent / "logs" / "kconfig.log"
            base = resolve(applied.path, tool, profile, asked, config, line, log)
            (folder / ".config.old").unlink(missing_ok=True)
            tree.load_values(kconf, config)
            result = audits.compare(
                request, read_config(config.read_text(encoding="utf-8")), profile.lineage, kconf, read_config(base)
            )
            write_json(folder / "audit.json", result.as_json())
            if result.losses:
                shutil.copyfile(config, rejected(out))
            audits.require_whole(result, profile.name)
            rejected(out).unlink(missing_ok=True)
            kept = f"{result.asked - len(result.waived)} of {result.asked} settings came out as asked"
            ui.note("kconfig", f"{name}: {kept}" + "".join(f"; {w.symbol} waived: {w.waiver}" for w in result.waived))
            if result.base_changes:
                count, where = len(result.base_changes), out / "audit.json"
                ui.note("kconfig", f"{count} settings of the base came out differently, see {where}")
            for stale in result.stale:
                ui.warn(f"the waiver of {stale} is not needed any more")

        stage.ensure(make)
        _remember(applied, out, files, digest)


def require_comparable(*configurations: Configured) -> None:
    """Refuse to compare kernels whose configurations differ in more than ``VSERVER*``; name the symbols."""
    from cloison_forge.core.errors import CheckError

    first, *others = (
        {name: value for name, value in read_config(each.path.read_text(encoding="utf-8")).items() if value != "n"}
        for each in configurations
    )
    for configured, other in zip(configurations[1:], others, strict=True):
        names = sorted(name for name in {*first, *other} if first.get(name) != other.get(name))
        names = [name for name in names if not name.startswith("VSERVER")]
        if names:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            raise CheckError(
                f"the variants {configurations[0].variant} and {configured.variant} of {configured.profile.name} "
                f"differ in more than VSERVER: {', '.join(names[:6])}{more}",
                hint="set them in a fragment of the profile, so that a comparison shows the series alone",
            )


def rejected(out: Path) -> Path:
    """Return where a configuration that failed its audit is kept, for `explain` and for reading."""
    return out.with_name(f"{out.name}.rejected.config")


def explain(
    line: Line, applied: PatchedTree, profile: str, symbol: str, *, variant: str = "on", json: str = ""
) -> Explanation:
    """Say what a symbol is, its value in a profile, what set it and what it needs; `json` is a path or '-'.

    It works on a configuration that failed its audit, too. An unknown symbol ends in one line with close matches.
    """
    from cloison_forge.core import output
    from cloison_forge.core.errors import BuildError
    from cloison_forge.kconfig import explain as explaining
    from cloison_forge.kconfig import tree

    chosen = profiles.get(profile)
    request = chosen.settings(variant)
    out = project().line(line.name) / "kconfig" / folder_name(profile, variant)
    try:
        config = configure(line, applied, profile, variant).path
    except BuildError:
        config = rejected(out)
        if not config.is_file():
            raise
        ui.warn("this configuration failed its audit; the values are those that came out")
    kconf = tree.parse(applied.path, chosen.arch)
    tree.load_values(kconf, config)
    explanation = explaining.explain(symbol, kconf, request, profile)
    if json:
        output.write(json, explanation.as_json())
    if json != "-":
        print(explanation.text)
    return explanation
