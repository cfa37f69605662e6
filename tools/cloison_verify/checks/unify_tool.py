# SPDX-License-Identifier: GPL-2.0-or-later
"""``cloison unify`` on a real kernel: trees become one, a guest writes, and all of it is undone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead
from cloison_verify.checks.tool import SECONDS, cloison
from cloison_verify.scene import Scene, SceneError, Seen, attempt
from cloison_verify.shared_files import folder, write_with

FILES = 20


def _trees(where: Path) -> tuple[Path, Path]:
    """Make two trees with the same files."""
    made = where / "web", where / "mail"
    for tree in made:
        (tree / "usr/lib").mkdir(parents=True)
        for number in range(FILES):
            path = tree / "usr/lib" / f"lib{number}.so"
            path.write_bytes(bytes([number]) * 20000)
            path.chmod(0o755)
            os.utime(path, ns=(1, 1_600_000_000_000_000_000 + number))
    return made


def _unify(*words: str) -> dict[str, object]:
    status, out = cloison("unify", "--json", "--no-cache", *words)
    if status:
        raise SceneError(out)
    found: dict[str, object] = json.loads(out)
    return found


def _shared(web: Path, mail: Path) -> int:
    """Count the files that both trees have together."""
    return sum(path.stat().st_ino == (mail / path.relative_to(web)).stat().st_ino for path in web.rglob("*.so"))


def _nothing(_scene: Scene) -> Seen:
    with folder() as where:
        web, mail = _trees(where)
        _unify("--dry-run", str(web), str(mail))
        return Seen(f"{_shared(web, mail)} shared")


@check(
    "unify.tool",
    title="trees are unified, a guest writes to its own, and everything is undone",
    attack="cloison unify WEB MAIL; write to a file of WEB in a context; cloison unify --check; --undo",
    expected="20 shared, ok, 19 shared, mail unchanged, check 0, 0 shared",
    control=instead(_nothing, "0 shared", "--dry-run"),
    vectors=["F40"],
    seconds=SECONDS,
)
def tool(scene: Scene) -> Seen:
    """Take two trees through it."""
    with folder() as where:
        web, mail = _trees(where)
        _unify(str(web), str(mail))
        first = _shared(web, mail)
        aim = web / "usr/lib/lib3.so"
        seen = scene.attack(lambda: attempt(write_with(os.O_WRONLY), aim), inside=True)
        then = _shared(web, mail)
        same = (mail / "usr/lib/lib3.so").read_bytes() == bytes([3]) * 20000
        status, _ = cloison("unify", "--check", str(web), str(mail))
        _unify("--undo", str(web), str(mail))
        words = ["mail unchanged" if same else "mail changed", f"check {status}", f"{_shared(web, mail)} shared"]
        return combined(Seen(f"{first} shared, {seen.text}, {then} shared", seen.errno), *words)


def _with(hold: Callable[[Path], object]) -> Seen:
    with folder() as where:
        web, mail = _trees(where)
        held = hold(mail / "usr/lib/lib5.so")
        found = _unify(str(web), str(mail))
        if isinstance(held, int):
            os.write(held, b"late")
            os.close(held)
        return Seen(f"{_shared(web, mail)} shared, skipped {found['skipped']}")


@check(
    "unify.tool-writer",
    title="a file that somebody writes to is not shared",
    attack="cloison unify while a process has one of the files open for writing",
    expected="19 shared, skipped {'in use': 1}",
    control=instead(lambda _: _with(lambda _path: None), "20 shared, skipped {}", "nobody has it open"),
    vectors=["F40"],
    seconds=SECONDS,
)
def writer(_scene: Scene) -> Seen:
    """Hold a file open for writing."""
    return _with(lambda path: os.open(path, os.O_WRONLY))
