# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands ``attr`` and ``unhide`` on a real kernel."""

from __future__ import annotations

import json

from cloison_verify.catalogue import check, instead
from cloison_verify.checks.tool import SECONDS, cloison, context
from cloison_verify.places import folder, mounted
from cloison_verify.scene import Scene, Seen


def _hint(text: str) -> str:
    return "a hint" if "hint:" in text else "no hint"


def _attr_refused(_scene: Scene) -> Seen:
    with mounted("ramfs", "tool-unable") as top:
        status, out = cloison("attr", "set", "barrier", str(top))
    return Seen(f"{status}, {_hint(out)}")


@check(
    "tool.attr",
    title="attributes are set and shown by the command, also recursively",
    attack="cloison attr set -R ixunlink,barrier, attr get --json, attr set ~…",
    expected="barrier+ixunlink, ixunlink, none",
    control=instead(_attr_refused, "1, a hint", "on a file system that cannot hold them"),
    seconds=SECONDS,
)
def attr(_scene: Scene) -> Seen:
    """Take a folder and a file through their attributes."""
    with folder("tool-attr") as top:
        (top / "file").touch()
        cloison("attr", "set", "-R", "ixunlink,barrier", str(top))
        _, out = cloison("attr", "get", "-R", "--json", str(top))
        seen = ["+".join(entry["attributes"]) for entry in json.loads(out)]
        cloison("attr", "set", "-R", "none", str(top))
        _, out = cloison("attr", "get", "--json", str(top))
        seen.append("+".join(json.loads(out)[0]["attributes"]) or "none")
    return Seen(", ".join(seen))


def _unhidden(*entries: str) -> Seen:
    """Look for an entry of /proc from inside, after the command has shown it or not."""
    with context("unhide"):
        if entries:
            cloison("unhide", *entries)
        status, _ = cloison("exec", "unhide", "--", "test", "-e", "/proc/partitions")
        cloison("attr", "set", "hide", "/proc/partitions")
    return Seen("seen" if status == 0 else "hidden")


check(
    "tool.unhide",
    title="the command shows contexts an entry of /proc",
    attack="cloison unhide partitions; test -e /proc/partitions inside",
    expected="seen",
    control=instead(lambda _scene: _unhidden(), "hidden", "without the command"),
    seconds=SECONDS,
)(lambda _scene: _unhidden("partitions"))
