# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared files where the file system or the mount has a say in owners and projects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison_verify import mounting
from cloison_verify.acts import combined
from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.shared_files import BROKEN, KEPT, effect, folder, mark, pair, state, write_as_user, write_with
from cloison_verify.volumes import PROJINHERIT, set_project, volume

CLONE_NEWUSER = 0x10000000
MOUNT_ATTR_IDMAP = 0x100000
ELSEWHERE, HERE = 7, 8
"""The project of the root of a file system, and that of the folder with the shared file."""


@contextmanager
def _identities(first: int) -> Iterator[int]:
    """Yield a user namespace, by descriptor, that maps 1,000 users and groups from `first` to themselves."""
    ready, begin = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(begin[1])
        mounting.unshare(CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.read(begin[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{kind}").write_text(f"{first} {first} 1000", encoding="ascii")
        descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
        yield descriptor
        os.close(descriptor)
    finally:
        for end in (*ready, *begin):
            os.close(end)
        os.waitpid(child, 0)


def _mount_mapped(source: Path, target: Path, identities: int) -> None:
    """Mount a tree once more, with its owners mapped."""
    tree = mounting.open_tree(str(source))
    mounting.mount_setattr("", MOUNT_ATTR_IDMAP, 0, tree=tree, identities=identities)
    mounting.move_mount(tree, str(target))
    os.close(tree)


def _owned(scene: Scene, owner: int) -> Seen:
    """Write to a shared file on a mount that knows the owners from 1000 on."""
    with folder() as where, _identities(1000) as identities:
        both = pair(where, marked=False)
        os.chown(both.own, owner, owner)
        os.chown(both.own.parent, 1000, 1000)
        both.own.parent.chmod(0o777)
        both.own.chmod(0o666)
        mark(both.own)
        before = state(both.own)
        target = where / "target"
        target.mkdir()
        _mount_mapped(both.own.parent, target, identities)
        try:
            seen = scene.attack(lambda: write_as_user(target / "file"), inside=True)
            return combined(seen, effect(both, before))
        finally:
            mounting.unmount(str(target), 2)


@check(
    "unify.unmapped-owner",
    title="a file whose owner a mount does not know is not copied through that mount",
    attack="open(O_WRONLY) of root's shared file 0666 on an idmapped mount without root, in a context",
    expected=f"EACCES, {KEPT}",
    control=instead(lambda scene: _owned(scene, 1000), BROKEN, "an owner whom the mount knows"),
    vectors=["F40"],
)
def unmapped_owner(scene: Scene) -> Seen:
    """Write to a file of nobody."""
    return _owned(scene, 0)


def _inherited(scene: Scene, flags: int) -> Seen:
    """Write to a shared file of one project, on a file system whose root has another one."""
    with volume(options="", features="project") as made:
        place = Path(made.path("place"))
        place.mkdir()
        set_project(made.folder, ELSEWHERE, flags)
        set_project(str(place), HERE, PROJINHERIT)
        both = pair(place)
        before = state(both.own)
        seen = scene.attack(lambda: attempt(write_with(os.O_WRONLY), both.own), inside=True)
        return combined(seen, effect(both, before))


check(
    "unify.project-root",
    title="a file system whose root hands its project down lets files of other projects be copied",
    attack="open(O_WRONLY) of a shared file of project 8, below a root with project 7 and PROJINHERIT",
    expected=BROKEN,
    control=instead(lambda scene: _inherited(scene, 0), BROKEN, "a root that does not hand its project down"),
    vectors=["F41"],
)(lambda scene: _inherited(scene, PROJINHERIT))
