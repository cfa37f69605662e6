# SPDX-License-Identifier: GPL-2.0-or-later
"""``cloison device`` and ``cloison mount`` on a real kernel."""

from __future__ import annotations

import json

from cloison_verify.catalogue import check, instead
from cloison_verify.checks.tool import SECONDS, cloison, context
from cloison_verify.scene import Scene, SceneError, Seen


def _may(name: str) -> str:
    """Say whether a shell in a context opens /dev/fuse."""
    status, _ = cloison("exec", name, "--", "sh", "-c", ": < /dev/fuse")
    return "closed" if status else "open"


def _rules(name: str) -> list[str]:
    status, out = cloison("device", "list", name, "--json")
    if status:
        raise SceneError(out)
    return [f"{rule['number']} {','.join(rule['rights'])}" for rule in json.loads(out)]


@check(
    "tool.device",
    title="a device is mapped to a running context, listed, and taken back",
    attack="cloison device map, list, unmap, and a shell that opens /dev/fuse in between",
    expected="closed, [], open, ['10:229 open'], closed, []",
    control=instead(lambda _scene: Seen(f"{cloison('device', 'list', 'nobody')[0]}"), "3", "a name that nobody has"),
    seconds=SECONDS,
)
def device(_scene: Scene) -> Seen:
    """Open and close one device."""
    with context("devices"):
        seen = [_may("devices"), _rules("devices")]
        for action in ("map", "unmap"):
            status, out = cloison("device", action, "devices", "/dev/fuse")
            if status:
                raise SceneError(out)
            seen += [_may("devices"), _rules("devices")]
    return Seen(", ".join(str(sight) for sight in seen))


def _run(*options: str) -> str:
    """Let a context that lives for one command mount a tmpfs in a mount namespace of its own."""
    status, _ = cloison("run", "--unshare", "mount", *options, "--", "mount", "-t", "tmpfs", "x", "/mnt")
    return "mounted" if status == 0 else "refused"


@check(
    "tool.mount",
    title="a context mounts nothing that it has not been granted",
    attack="mount -t tmpfs with no grant, and with SECURE_MOUNT alone",
    expected="refused, refused",
    control=instead(
        lambda _scene: Seen(_run("--caps", "secure_mount,binary_mount")), "mounted", "a context with both grants"
    ),
    seconds=SECONDS,
)
def mount(_scene: Scene) -> Seen:
    """Grant too little."""
    return Seen(f"{_run()}, {_run('--caps', 'secure_mount')}")


@check(
    "tool.mount-words",
    title="the grants to mount are shown and changed",
    attack="cloison mount NAME mount,binary, then none",
    expected="mount binary, none",
    control=instead(lambda _scene: Seen(f"{cloison('mount', 'nobody')[0]}"), "3", "a name that nobody has"),
    seconds=SECONDS,
)
def mount_words(_scene: Scene) -> Seen:
    """Give and take."""
    seen = []
    with context("mounts"):
        for change in ("mount,binary", "none"):
            status, out = cloison("mount", "mounts", change, "--json")
            if status:
                raise SceneError(out)
            seen.append(" ".join(word for word, may in json.loads(out).items() if may) or "none")
    return Seen(", ".join(seen))
