# SPDX-License-Identifier: GPL-2.0-or-later
"""Attributes where they do not belong: in a format of later, on copies of overlayfs, on mounts that are read-only."""

from __future__ import annotations

import os
import struct

from cloison import attributes
from cloison.flags import Change, FileAttributes
from cloison.syscall import Vserver
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.places import folder, mount, unmount
from cloison_verify.scene import Scene, Seen, attempt

NAME = "trusted.vserver"
MS_RDONLY, MS_REMOUNT = 1, 32
EVERY = int(FileAttributes.ADMIN | FileAttributes.WATCH | FileAttributes.HIDE)


def _format(value: bytes) -> Probe:
    """Return a probe of a file in a folder whose attribute has this value."""

    def probe(scene: Scene) -> Seen:
        with folder("format") as top:
            (top / "file").write_text("text", encoding="ascii")
            os.setxattr(top, NAME, value)
            try:
                return scene.attack(lambda: attempt(lambda: (top / "file").stat() and None), inside=True)
            finally:
                os.removexattr(top, NAME)

    return probe


check(
    "files.attribute-of-later",
    title="what this kernel does not understand closes a folder, with the error that says so",
    attack="stat() behind a folder whose attribute is longer than that of this version",
    expected="EUCLEAN",
    control=instead(_format(struct.pack("<II", 1, 0)), "ok", "of this version, without a flag"),
)(_format(struct.pack("<III", 2, 0, 0)))


def _copied_up(scene: Scene, *, inside: bool) -> Seen:
    """Write to a file of a lower layer that has an attribute, and look at the copy."""
    with folder("layers") as top:
        lower, upper, work, merged = (top / name for name in ("lower", "upper", "work", "merged"))
        for made in (lower, upper, work, merged):
            made.mkdir()
        (lower / "file").write_text("text", encoding="ascii")
        attributes.change(Vserver(), lower / "file", Change(int(FileAttributes.IXUNLINK), int(FileAttributes.IXUNLINK)))
        mount("overlay", merged, f"lowerdir={lower},upperdir={upper},workdir={work}")
        try:
            seen = scene.attack(
                lambda: attempt(lambda: (merged / "file").write_text("new", encoding="ascii") and None), inside=inside
            )
        finally:
            unmount(merged)
        copy = upper / "file"
        kept = copy.exists() and NAME in os.listxattr(copy)
        return Seen(f"{seen.text}, {'with' if kept else 'without'} the attribute")


check(
    "files.copy-up",
    title="a member writes to a file of a lower layer that has an attribute; its copy has none",
    attack="open(O_WRONLY) of a file with IXUNLINK through overlayfs that the host has mounted",
    expected="ok, without the attribute",
    control=instead(lambda scene: _copied_up(scene, inside=False), "ok, with the attribute", "on the host"),
)(lambda scene: _copied_up(scene, inside=True))


def _read_only(kind: str, name: str, bits: int) -> Probe:
    """Return a probe that writes the present attributes again, on a read-only mount."""

    def probe(scene: Scene) -> Seen:
        with folder("read-only") as made:
            mount(kind, made)
            try:
                if kind == "tmpfs":
                    (made / name).touch()
                mount(kind, made, flags=MS_RDONLY | MS_REMOUNT)

                def again() -> None:
                    kernel = Vserver()
                    before = int(attributes.get(kernel, made / name).flags)
                    attributes.change(kernel, made / name, Change(before & bits, bits))

                return scene.attack(lambda: attempt(again), inside=False)
            finally:
                unmount(made)

    return probe


check(
    "files.read-only-proc",
    title="entries are hidden and shown through a /proc that is mounted read-only",
    attack="set_iattr of HIDE, ADMIN and WATCH on the host",
    expected="ok",
    control=instead(_read_only("tmpfs", "file", int(FileAttributes.IXUNLINK)), "EROFS", "an attribute that is stored"),
)(_read_only("proc", "execdomains", EVERY))
