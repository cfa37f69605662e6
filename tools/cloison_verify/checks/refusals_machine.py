# SPDX-License-Identifier: GPL-2.0-or-later
"""What is refused before anything has happened, and what is refused as something unknown."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cloison.flags import ContextCaps
from cloison_verify.acts import call, combined
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.refusals import NO_KEXEC
from cloison_verify.checks.rights import NOTHING, inside
from cloison_verify.scene import Scene, Seen, attempt

KEXEC_FILE_UNLOAD, KEXEC_FILE_ON_CRASH = 1, 2
EXT4_IOC_GETVERSION, EXT4_IOC_RESIZE_FS = 0x80086603, 0x40086610
LIMIT = Path("/proc/sys/kernel/kexec_load_limit_panic")


def _unload_crash_kernel() -> None:
    call("kexec_file_load", -1, -1, 0, 0, KEXEC_FILE_UNLOAD | KEXEC_FILE_ON_CRASH)


def _unloading(caps: ContextCaps) -> Probe:
    """Return a probe that unloads the crash kernel inside, and sees whether the host's limit has counted that."""

    def probe(scene: Scene) -> Seen:
        if LIMIT.read_text(encoding="ascii").strip() == "-1":
            LIMIT.write_text("1000000", encoding="ascii")
        before = LIMIT.read_text(encoding="ascii")
        seen = inside(_unload_crash_kernel, caps)(scene)
        return combined(seen, "limit stays" if LIMIT.read_text(encoding="ascii") == before else "limit counts")

    return probe


check(
    "refusals.kexec-file",
    title="a context neither unloads the crash kernel nor uses up the limit of loads",
    attack="kexec_file_load(UNLOAD, ON_CRASH), which reads no file, as root of a context with the full bound",
    expected="EPERM, limit stays",
    control=instead(_unloading(ContextCaps.GRANT_KEXEC), "ok, limit counts", "with grant_kexec"),
    vectors=["K02"],
    not_on=NO_KEXEC,
)(_unloading(NOTHING))


def _ask(command: int) -> Probe:
    """Return a probe of a command on a file of a file system that does not know it."""

    def operation() -> None:
        descriptor = os.open("/run/cloison", os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, command, bytes(8))
        finally:
            os.close(descriptor)

    def probe(scene: Scene) -> Seen:
        return scene.attack(lambda: attempt(operation), inside=True)

    return probe


check(
    "refusals.question",
    title="a question to a file system is unknown rather than refused, for programs go on then",
    attack="ioctl(EXT4_IOC_GETVERSION) as root of a context",
    expected="ENOTTY",
    control=instead(_ask(EXT4_IOC_RESIZE_FS), "EPERM", "a command that changes the file system"),
    vectors=["F73"],
)(_ask(EXT4_IOC_GETVERSION))
