# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile a kernel out of tree, through one compiler cache, with a fixed build identity."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import CommandError
from cloison_forge.core.lines import Line
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage, digest_file, write_json
from cloison_forge.kconfig.api import Configured, PatchedTree, folder_name
from cloison_forge.kernel import identity, seed
from cloison_forge.kernel.progress import Follower, Totals, planned, present

FORMAT = "1"  # raise when the same inputs would give other bytes
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Kernel:
    """A built kernel.

    `image` is the bootable file (a bzImage, or the UML executable), `release` what uname -r says,
    `config` its configuration, `key` the SHA-256 of the image: an equal image has an equal key.
    `symbols` is System.map; `provenance` says what it was made from, and is also `provenance_path`.
    """

    image: Path
    arch: str
    release: str
    config: Path
    provenance: dict[str, object]
    key: str
    variant: str = "on"
    profile: str = ""
    symbols: Path = Path()
    provenance_path: Path = Path()


def build(
    line: Line, applied: PatchedTree, configured: Configured, *, jobs: int = 0, totals: Path | None = None
) -> Kernel:
    """Compile the kernel of a configuration and return it; with the same inputs nothing is done.

    `jobs` is the number of parallel compilers, by default one a processor; `totals` the file that
    remembers how many objects a configuration has (by default in the user's cache). An interrupted build goes
    on where it was. A compile error raises `CommandError` with the compiler's message and the log.
    """
    profile = configured.profile
    name = folder_name(profile.name, configured.variant)
    out = project().line(line.name) / "kernel" / name
    inputs = {
        "format": FORMAT,
        "tree": applied.key,
        "extraction": extraction(applied.path),
        "config": configured.key,
        "compiler": identity.compiler(profile.arch),
    }
    stage = Stage("kernel", out, inputs, in_place=True)
    with locked(out, f"the kernel {name}"):
        if stage.fresh() and _whole(out / "artifacts"):
            ui.note("kernel", f"{name}: up to date")
        else:
            (out / ".stamp.json").unlink(missing_ok=True)
            known = Totals(totals or project().cache / "objects.json")
            stage.ensure(lambda folder: _make(line, applied, configured, folder, jobs or os.cpu_count() or 1, known))
        return _finished(out, configured)


def _whole(artifacts: Path) -> bool:
    """Say whether nobody has taken anything out of the artifacts folder."""
    try:
        image = json.loads((artifacts / PROVENANCE).read_text(encoding="utf-8"))["image"]
    except (OSError, ValueError, KeyError):
        return False
    return all((artifacts / name).is_file() for name in (image, "config", "System.map"))


def extraction(tree: Path) -> str:
    """Return a text that changes whenever the folder of a source tree is filled anew.

    A new extraction has old modification times, which make would take for 'nothing changed'.
    """
    for stamp in (".cloison-source.json", ".stamp.json"):
        try:
            value = json.loads((tree / stamp).read_text(encoding="utf-8"))
            return str(value.get("made") or f"{value.get('key')} {tree.stat().st_ino}")
        except (OSError, ValueError, AttributeError):
            continue
    return str(tree.stat().st_ino)


def _make(line: Line, applied: PatchedTree, configured: Configured, out: Path, jobs: int, totals: Totals) -> None:
    obj = out / "obj"
    _same_tree_or_empty(applied.path, obj)
    _begin_with_a_sibling(obj, configured.path, applied.path)
    identity.link_source(applied.path, obj)
    _put_config(configured.path, obj / ".config")
    arch = configured.profile.arch
    words = identity.make_words(applied.path, obj, arch)
    env = identity.environment(project().line(line.name))
    Path(env["CCACHE_DIR"]).mkdir(parents=True, exist_ok=True)
    log = project().line(line.name) / "logs" / f"kernel-{out.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    follower = _compile(words, identity.TARGETS[arch], env, obj, log, f"-j{jobs}", (totals, configured.key))
    provenance = _provenance(applied, configured, obj)
    _publish(obj, out / "artifacts", arch, provenance)
    ui.note(
        "kernel",
        f"{out.name} {provenance['release']}: {follower.compiled} objects compiled in "
        f"{ui.seconds(time.monotonic() - begun)}"
        + (f", {len(follower.warnings)} warnings, see {log}" if follower.warnings else ""),
    )


def _same_tree_or_empty(tree: Path, obj: Path) -> None:
    """Drop the objects of another extraction: their times say nothing about this one. The cache refills them."""
    mark, now = obj / ".cloison-source", extraction(tree)
    try:
        before = mark.read_text(encoding="utf-8")
    except OSError:
        before = ""
    if before != now and obj.is_dir():
        doomed = Path(tempfile.mkdtemp(dir=obj.parent, prefix=".old."))
        obj.replace(doomed / "obj")
        shutil.rmtree(doomed, ignore_errors=True)
    obj.mkdir(parents=True, exist_ok=True)
    if before != now:
        mark.write_text(now, encoding="utf-8")


def _begin_with_a_sibling(obj: Path, config: Path, tree: Path) -> None:
    """Fill an empty folder with the objects of a nearly equal configuration of the same tree, if one is built."""
    if (obj / ".config").exists():
        return
    source = seed.nearest(obj, config, tree, (obj / ".cloison-source").read_text(encoding="utf-8"))
    if source:
        seed.plant(source, obj)
        ui.note("kernel", f"{obj.parent.name}: begins with the objects of {source.parent.name}")


def _put_config(source: Path, target: Path) -> None:
    """Copy the configuration unless it is there already: a new time would make kbuild look at everything."""
    data = source.read_bytes()
    if not target.is_file() or target.read_bytes() != data:
        target.write_bytes(data)


def _compile(
    words: list[str], target: str, env: dict[str, str], obj: Path, log: Path, jobs: str, memory: tuple[Totals, str]
) -> Follower:
    """Run make to the end; the bar's total is make's own count of objects, remembered for each configuration."""
    totals, config_key = memory
    done = present(obj)
    whole = (obj / "vmlinux").is_file()
    total = totals.get(config_key)
    if not total and not whole:
        _run_make([*words, jobs, "prepare"], env, log, Follower("", 0, 0))
        total = done + planned(words, target, env)
    follower = Follower("objects", 0 if whole else total, 0 if whole else done)
    _run_make([*words, jobs, target], env, log, follower)
    totals.put(config_key, present(obj))
    return follower


def _run_make(words: list[str], env: dict[str, str], log: Path, follower: Follower) -> None:
    try:
        run(words, env=env, log=log, on_line=follower.line)
    except CommandError as error:
        raise _compile_error(error, follower, log) from None
    finally:
        follower.finish()


def _compile_error(error: CommandError, follower: Follower, log: Path) -> CommandError:
    """Put the compiler's own message in front of make's long tail."""
    first = next((text for text in follower.errors if " error: " in text), "")
    if not first:
        return error
    return CommandError(
        f"the kernel does not compile: {first}"
        + "".join(f"\n          | {text}" for text in [t for t in follower.errors if " error: " in t][1:6]),
        hint=f"the whole output is in {log}; after a correction the build goes on from here",
        status_code=error.status_code,
        log=str(log),
    )


def _provenance(applied: PatchedTree, configured: Configured, obj: Path) -> dict[str, object]:
    arch = configured.profile.arch
    image = obj / identity.IMAGES[arch]
    return {
        "schema": "cloison-provenance-1",
        "source": _source(applied.path),
        "series": applied.provenance,
        "tree_key": applied.key,
        "profile": configured.profile.name,
        "variant": configured.variant,
        "arch": arch,
        "release": (obj / "include" / "config" / "kernel.release").read_text(encoding="utf-8").strip(),
        "config_sha256": digest_file(configured.path),
        "compiler": identity.compiler(arch),
        "image": image.name,
        "image_sha256": digest_file(image),
        "objects": present(obj),
    }


def _source(tree: Path) -> object:
    """Return what the source room wrote about this tree; a copy without the series asks its original."""
    for folder in (tree, tree.with_name("source")):
        try:
            stamp = json.loads((folder / ".cloison-source.json").read_text(encoding="utf-8"))
            origin = dict(stamp["origin"])
            origin.pop("tar", None)  # a path of this machine
            return {**origin, "tree_sha256": stamp.get("tree_sha256", "")}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {"version": "", "note": "the tree carries no stamp of the source room"}


def _publish(obj: Path, artifacts: Path, arch: str, provenance: dict[str, object]) -> None:
    """Put image, configuration, System.map and provenance into the artifacts folder, whole or not at all."""
    beside = Path(tempfile.mkdtemp(dir=artifacts.parent, prefix=".artifacts."))
    try:
        image = obj / identity.IMAGES[arch]
        shutil.copy2(image, beside / image.name)
        shutil.copyfile(obj / ".config", beside / "config")
        shutil.copyfile(obj / "System.map", beside / "System.map")
        write_json(beside / PROVENANCE, provenance)
        beside.chmod(0o755)
        if artifacts.exists():
            old = Path(tempfile.mkdtemp(dir=artifacts.parent, prefix=".old."))
            artifacts.replace(old / "artifacts")
            shutil.rmtree(old, ignore_errors=True)
        beside.replace(artifacts)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _finished(out: Path, configured: Configured) -> Kernel:
    artifacts = out / "artifacts"
    provenance = json.loads((artifacts / PROVENANCE).read_text(encoding="utf-8"))
    return Kernel(
        image=artifacts / str(provenance["image"]),
        arch=configured.profile.arch,
        release=str(provenance["release"]),
        config=artifacts / "config",
        provenance=provenance,
        key=str(provenance["image_sha256"]),
        variant=configured.variant,
        profile=configured.profile.name,
        symbols=artifacts / "System.map",
        provenance_path=artifacts / PROVENANCE,
    )
