# SPDX-License-Identifier: GPL-2.0-or-later
"""``cloison tag`` and ``cloison disk-limit`` as an administrator uses them."""

from __future__ import annotations

import json
from pathlib import Path

from cloison_verify.catalogue import check, instead
from cloison_verify.checks.tool import SECONDS, cloison, context
from cloison_verify.scene import Scene, SceneError, Seen
from cloison_verify.volumes import MEGABYTE, OURS, THEIRS, volume


def _must(*words: str, stdin: bytes = b"") -> str:
    """Run the command, which has to succeed; return what it printed."""
    status, out = cloison(*words, stdin=stdin)
    if status:
        raise SceneError(f"cloison {' '.join(words)}: {out}")
    return out


def _reads(tag: int) -> Seen:
    """Hand a tree to a tag, and read it in a context that was made with one."""
    with volume() as place:
        folder = Path(place.path("tree"))
        folder.mkdir()
        (folder / "file").write_text("secret", encoding="ascii")
        _must("tag", "set", str(OURS), "--recursive", str(folder))
        told = {entry["tag"] for entry in json.loads(_must("tag", "get", "--recursive", "--json", str(folder)))}
        with context("tagged", "--tag", str(tag)):
            status, out = cloison("exec", "tagged", "--", "cat", f"{folder}/file")
    return Seen(f"{sorted(told)}, {out if status == 0 else 'refused' if 'Permission denied' in out else out}")


check(
    "tool.tag",
    title="a tree that was handed to one context is closed to another",
    attack="cloison tag set -R, create --tag, exec cat",
    expected=f"[{OURS}], refused",
    control=instead(lambda _scene: _reads(OURS), f"[{OURS}], secret", "a context with the tag of the tree"),
    seconds=SECONDS,
)(lambda _scene: _reads(THEIRS))


def _fill(space: str) -> Seen:
    """Limit a tag that uses 1 MiB already, write 3 MiB more, and take the limits over an unmount."""
    with volume() as place:
        Path(place.path("old")).write_bytes(b"x" * MEGABYTE)
        _must("tag", "set", str(OURS), place.path("old"))
        _must("disk-limit", "set", place.folder, "--tag", str(OURS), "--space", space)
        write = f"head -c {3 * MEGABYTE} /dev/zero > {place.path('new')}"
        Path(place.folder).chmod(0o777)
        status, out = cloison("run", "--tag", str(OURS), "--", "sh", "-c", write)
        Path(place.path("new")).unlink()
        saved = _must("disk-limit", "save", place.folder)
        place.again("tag")
        _must("disk-limit", "restore", stdin=saved.encode())
        shown = json.loads(_must("disk-limit", "show", place.folder, "--json"))
    full = "full" if "No space left" in out else out or str(status)
    return Seen(f"{full}, {shown[0]['space_used'] // 1024} KiB used after")


check(
    "tool.disk-limit",
    title="a limit counts what is there, holds, and comes back after an unmount",
    attack="cloison disk-limit set --space 3M with 1 MiB in use, write 3 MiB, save, umount, mount, restore, show",
    expected="full, 1024 KiB used after",
    control=instead(lambda _scene: _fill("8M"), "0, 1024 KiB used after", "a limit of 8 MiB"),
    seconds=SECONDS,
)(lambda _scene: _fill("3M"))


def _wrong(*words: str) -> str:
    status, out = cloison(*words)
    return f"{status} {'a hint' if 'hint:' in out else 'no hint'}"


@check(
    "tool.tag-refused",
    title="what cannot be tagged or limited is said in one line with a hint",
    attack="cloison tag set on a mount without tags, disk-limit set on ramfs",
    expected="1 a hint, 1 a hint",
    control=instead(lambda _scene: _plain(), "0 no hint", "tag get there, which says '-'"),
    seconds=SECONDS,
)
def tag_refused(_scene: Scene) -> Seen:
    """Ask for what the file systems cannot do."""
    with volume("tmpfs", "") as untagged, volume("ramfs", "") as uncounted:
        first = _wrong("tag", "set", str(OURS), untagged.folder)
        second = _wrong("disk-limit", "set", uncounted.folder, "--tag", str(OURS), "--space", "1M")
    return Seen(f"{first}, {second}")


def _plain() -> Seen:
    with volume("tmpfs", "") as untagged:
        return Seen(_wrong("tag", "get", untagged.folder))
