# SPDX-License-Identifier: GPL-2.0-or-later
"""The access rule of file tags: a file of another context is not read, changed, linked, moved or replaced."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cloison_verify.catalogue import check, same_context
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.syscalls import syscall
from cloison_verify.volumes import AT_FDCWD, Volume, attacker_tag, link_descriptor, prepare, volume, with_tag

RENAMEAT2 = 316 if os.uname().machine == "x86_64" else 276
EXCHANGE, WHITEOUT = 2, 4
AT_EMPTY_PATH = 0x1000
SECONDS = 60

Step = Callable[[str], object]
"""An operation on a file; it gets the path of one that was made for it alone."""


def _file(path: str) -> None:
    Path(path).write_text("secret", encoding="ascii")


def outcomes(folder: str, steps: Sequence[Step]) -> str:
    """Do each step on a file of its own; return the distinct outcomes, so that one odd one shows."""
    seen = {attempt(step, f"{folder}/{number}").errno or "ok" for number, step in enumerate(steps)}
    return ", ".join(sorted(seen))


def ruled(
    identifier: str,
    title: str,
    attack: str,
    steps: Sequence[Step],
    vectors: Sequence[str] = (),
    *,
    make: Step = _file,
    kinds: Sequence[str] = ("ext4", "tmpfs"),
) -> None:
    """Register a check for each kind of file system: every step fails with another tag, and succeeds with the own."""
    for kind in kinds:

        def probe(scene: Scene, kind: str = kind) -> Seen:
            with volume(kind) as place:
                _prepare(scene, place, make, len(steps))
                return with_tag(scene, attacker_tag(scene), lambda: outcomes(place.folder, steps))

        check(
            f"tag.{identifier}-{kind}",
            title=f"{title} ({kind})",
            attack=attack,
            expected="EACCES",
            control=same_context("ok"),
            vectors=vectors,
            seconds=SECONDS,
        )(probe)


def _prepare(scene: Scene, place: Volume, make: Step, count: int) -> None:
    def files() -> None:
        for number in range(count):
            make(place.path(str(number)))

    prepare(scene, files)


def _opened(flags: int) -> Step:
    return lambda path: os.close(os.open(path, flags))


ruled(
    "read",
    "a file of another context is not read",
    "open(O_RDONLY), open(O_RDWR), open through an O_PATH descriptor",
    (_opened(os.O_RDONLY), _opened(os.O_RDWR), lambda path: _opened(os.O_RDONLY)(_path_descriptor(path))),
    ["F37"],
)


def _path_descriptor(path: str) -> str:
    """Return a path through an O_PATH descriptor, which is opened without permission on the file."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH)}"


ruled(
    "write",
    "a file of another context is not changed",
    "open(O_WRONLY), O_TRUNC, truncate, chmod, chown, utimes, by path and by O_PATH descriptor",
    (
        _opened(os.O_WRONLY),
        _opened(os.O_WRONLY | os.O_TRUNC),
        lambda path: os.truncate(path, 1),
        lambda path: Path(path).chmod(0o4755),
        lambda path: os.chown(path, 1, 1),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.setxattr(path, "user.mine", b"1"),
        lambda path: Path(_path_descriptor(path)).chmod(0o600),
        lambda path: os.truncate(_path_descriptor(path), 0),
    ),
    ["F38"],
    kinds=("ext4",),
)
ruled(
    "write-few",
    "a file of another context is not changed",
    "open(O_WRONLY), truncate, chmod, chown, utimes",
    (
        _opened(os.O_WRONLY),
        lambda path: os.truncate(path, 1),
        lambda path: Path(path).chmod(0o4755),
        lambda path: os.chown(path, 1, 1),
        lambda path: os.utime(path, (1, 1)),
    ),
    ["F38"],
    kinds=("tmpfs",),
)
ruled(
    "change",
    "attributes of a file of another context are not changed by its path",
    "chmod, setxattr(user.…)",
    (lambda path: Path(path).chmod(0o4755), lambda path: os.setxattr(path, "user.mine", b"1")),
    ["F38"],
    kinds=("ext4",),
)
ruled(
    "unlink",
    "a file of another context is not removed from a folder of all",
    "unlink in a folder with tag 0",
    (lambda path: Path(path).unlink(),),
    ["F38"],
)
ruled(
    "rmdir",
    "a folder of another context is neither removed nor searched",
    "rmdir, opendir, a file in it",
    (os.rmdir, lambda path: list(os.scandir(path)), lambda path: _file(f"{path}/new")),
    ["F38"],
    make=lambda path: Path(path).mkdir(),
)
ruled(
    "readlink",
    "a symbolic link of another context is not followed",
    "readlink, open through it",
    (os.readlink, _opened(os.O_RDONLY)),
    ["F37"],
    make=lambda path: Path(path).symlink_to("/etc/passwd"),
)


def _linkat(path: str) -> None:
    """Link an O_PATH descriptor, which needs CAP_DAC_READ_SEARCH and no path."""
    descriptor = os.open(path, os.O_PATH)
    name = (path + "-linked").encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.linkat(descriptor, b"", AT_FDCWD, name, AT_EMPTY_PATH):
        raise OSError(ctypes.get_errno(), "linkat")


ruled(
    "link",
    "no hard link is made to a file of another context",
    "link, linkat(AT_EMPTY_PATH), link of /proc/self/fd/N",
    (
        lambda path: os.link(path, path + "-linked"),
        _linkat,
        lambda path: link_descriptor(os.open(path, os.O_PATH), path + "-linked"),
    ),
    ["F34"],
)


def renameat2(old: str, new: str, flags: int) -> None:
    """Call renameat2(2)."""
    words = [ctypes.create_string_buffer(name.encode()) for name in (old, new)]
    syscall(RENAMEAT2, AT_FDCWD, ctypes.addressof(words[0]), AT_FDCWD, ctypes.addressof(words[1]), flags)


def _with_own(path: str, step: Callable[[str, str], object]) -> None:
    """Do a step with the file and one of the attacker's own."""
    own = path + "-own"
    _file(own)
    step(path, own)


ruled(
    "rename",
    "a file of another context is not moved, exchanged or replaced",
    "rename, renameat2(EXCHANGE, WHITEOUT), rename over it",
    (
        lambda path: Path(path).rename(path + "-moved"),
        lambda path: renameat2(path, path + "-moved", WHITEOUT),
        lambda path: _with_own(path, lambda theirs, own: renameat2(theirs, own, EXCHANGE)),
        lambda path: _with_own(path, lambda theirs, own: renameat2(own, theirs, EXCHANGE)),
        lambda path: _with_own(path, lambda theirs, own: Path(own).rename(theirs)),
    ),
    ["F35"],
)


@check(
    "tag.everybody",
    title="files of tag 0 are everybody's, and a tag of 0 or 1 reaches all files",
    attack="read a file of tag 0 with a tag, and tagged files with tags 0 and 1",
    expected="ok, ok, ok, EACCES",
    control=same_context("ok, ok, ok, ok"),
    seconds=SECONDS,
)
def everybody(scene: Scene) -> Seen:
    """Read as each of them."""
    with volume("tmpfs") as place:
        prepare(scene, lambda: _file(place.path("shared")), tag=0)
        prepare(scene, lambda: _file(place.path("tagged")))
        tag = attacker_tag(scene)
        plan = ((tag, "shared"), (0, "tagged"), (1, "tagged"), (tag, "tagged"))
        seen = [with_tag(scene, tag, partial(_opened(os.O_RDONLY), place.path(name))) for tag, name in plan]
    return Seen(", ".join(sight.text for sight in seen))
