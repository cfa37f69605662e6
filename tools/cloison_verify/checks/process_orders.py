# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that give orders to the machine, and so to processes of which no number is named."""

from __future__ import annotations

import os
from pathlib import Path

from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, Seen, attempt


def _next_number(scene: Scene, *, inside: bool) -> Seen:
    """Set what the kernel takes for the last number it gave, and start a process."""
    wanted = 31_000 + os.getpid() % 1000

    def operation() -> str:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1), encoding="ascii")
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return "a process of the number" if child == wanted else "another number"

    return scene.attack(lambda: attempt(operation), inside=inside)


check(
    "process.chosen-next-number",
    title="nobody chooses the number of the next process",
    attack="write(/proc/sys/kernel/ns_last_pid), then fork",
    expected=("EPERM", "EACCES"),
    control=instead(lambda scene: _next_number(scene, inside=False), "a process of the number", "the same on the host"),
    vectors=["P56"],
    not_on=dict.fromkeys(("qemu", "xen"), "another processor may take the number first"),
)(lambda scene: _next_number(scene, inside=True))


def _sysrq(scene: Scene, *, inside: bool) -> Seen:
    opened = os.open("/proc/sysrq-trigger", os.O_WRONLY)
    try:
        return scene.attack(lambda: attempt(lambda: os.write(opened, b"h") and None), inside=inside, keep=[opened])
    finally:
        os.close(opened)


check(
    "process.sysrq",
    title="no member gives orders to the kernel by the console's keys",
    attack="write(/proc/sysrq-trigger) to a descriptor that the host opened",
    expected="EPERM",
    control=instead(lambda scene: _sysrq(scene, inside=False), "ok", "the same on the host"),
    vectors=["K37"],
)(lambda scene: _sysrq(scene, inside=True))
