# SPDX-License-Identifier: GPL-2.0-or-later
"""Where tags come from and who decides: mount options, inheritance, project ids, the tag of a task."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cloison.context import Context
from cloison.flags import Change, ContextCaps
from cloison.syscall import Vserver
from cloison_verify.acts import call, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.tag import SECONDS
from cloison_verify.mounting import grant
from cloison_verify.scene import Scene, SceneError, Seen, attempt
from cloison_verify.volumes import (
    OURS,
    PRJQUOTA,
    PROJINHERIT,
    Q_SETQUOTA,
    THEIRS,
    attacker_tag,
    get_project,
    link_descriptor,
    mount,
    prepare,
    quota_volume,
    set_project,
    unmount,
    volume,
    with_tag,
)

MS_REMOUNT = 32


def _touch(path: str) -> None:
    Path(path).touch()


def _inherited(scene: Scene, options: str) -> Seen:
    """Make files in a folder that hands down its project id, and one without a name; look after a new mount."""
    with volume(options=options) as place:
        folder = place.path("folder")
        Path(folder).mkdir()
        set_project(folder, 0 if options else 7, PROJINHERIT)

        def files() -> None:
            _touch(f"{folder}/file")
            Path(f"{folder}/sub").mkdir()
            descriptor = os.open(place.folder, os.O_TMPFILE | os.O_RDWR)
            link_descriptor(descriptor, place.path("unnamed"))

        made = with_tag(scene, THEIRS, files)
        if made.errno:
            return made
        place.again(options)
        seen = {get_project(place.path(name))[0] for name in ("folder/file", "folder/sub", "unnamed")}
    return Seen(", ".join(str(tag) for tag in sorted(seen)))


check(
    "tag.inherit",
    title="what a context makes has its tag, on the disk, whatever the folder hands down",
    attack="open(O_CREAT), mkdir, O_TMPFILE and linkat in a folder with PROJINHERIT, umount, mount",
    expected=str(THEIRS),
    control=instead(lambda scene: _inherited(scene, ""), "0, 7", "a mount without tags, where PROJINHERIT counts"),
    seconds=SECONDS,
)(lambda scene: _inherited(scene, "tag"))


def _change(scene: Scene, *, inside: bool, options: str = "tag") -> Seen:
    """Give an own file away, to the host and to somebody else."""
    with volume(options=options) as place:
        name = place.path("file")
        prepare(scene, lambda: _touch(name), tag=THEIRS)
        tag = THEIRS if inside else 0
        first = with_tag(scene, tag, lambda: set_project(name, OURS), inside=inside)
        second = with_tag(scene, tag, lambda: set_project(name, 0), inside=inside)
        left = get_project(name)[0]
    return Seen(f"{first.text}, {second.text}, {left}")


check(
    "tag.change-project",
    title="a context does not give its files away",
    attack="FS_IOC_FSSETXATTR with another project id, as owner and user 0",
    expected=f"EPERM, EPERM, {THEIRS}",
    control=instead(lambda scene: _change(scene, inside=False), "ok, ok, 0", "the host does it"),
    vectors=["F35"],
    seconds=SECONDS,
)(lambda scene: _change(scene, inside=True))
check(
    "tag.change-project-untagged",
    title="a context does not prepare tags where there are none yet",
    attack="FS_IOC_FSSETXATTR with a project id on a mount without tags",
    expected="EPERM, ok, 0",
    control=instead(lambda scene: _change(scene, inside=False, options=""), "ok, ok, 0", "the host does it"),
    seconds=SECONDS,
)(lambda scene: _change(scene, inside=True, options=""))


def _host_user(scene: Scene, options: str) -> Seen:
    """Let a plain user of the host change the project id of a file of his own."""
    with volume(options=options) as place:
        name = place.path("file")
        _touch(name)
        os.chown(name, 1000, 1000)

        def change() -> None:
            os.setresuid(1000, 1000, 1000)
            set_project(name, OURS)

        return scene.attack(lambda: attempt(change), inside=False)


check(
    "tag.change-project-user",
    title="no plain user of the host hands files to a context",
    attack="FS_IOC_FSSETXATTR by the owner, without CAP_SYS_ADMIN",
    expected="EPERM",
    control=instead(lambda scene: _host_user(scene, ""), "ok", "a mount without tags"),
    seconds=SECONDS,
)(lambda scene: _host_user(scene, "tag"))


def _quota(scene: Scene, *, inside: bool) -> Seen:
    """Set the quota of the own tag to nothing, and so to no limit, by a descriptor that needs no device."""
    with quota_volume() as place:
        data = (ctypes.c_uint64 * 9)()
        data[8] = 1
        if inside:
            grant(scene, ContextCaps.QUOTA_CTL)

        def change() -> None:
            folder = os.open(place.folder, os.O_RDONLY)
            try:
                call("quotactl_fd", folder, Q_SETQUOTA << 8 | PRJQUOTA, THEIRS, ctypes.addressof(data))
            finally:
                os.close(folder)

        return with_tag(scene, THEIRS, change, inside=inside)


check(
    "tag.quotactl",
    title="a context does not set the project quota of a tag",
    attack="quotactl_fd(Q_SETQUOTA, PRJQUOTA) with all capabilities and the context's right to quotas",
    expected="EPERM",
    control=instead(lambda scene: _quota(scene, inside=False), "ok", "the host does it"),
    seconds=SECONDS,
)(lambda scene: _quota(scene, inside=True))


def _read_with(scene: Scene, kind: str, options: str) -> Seen:
    """Read a file of no tag of its own on a mount with these options."""
    with volume(kind, options, features="") as place:
        Path(place.path("file")).write_text("secret", encoding="ascii")
        shown = [line for line in Path("/proc/mounts").read_text("utf-8").splitlines() if place.folder in line]
        told = "shown" if options and f",{options}" in shown[0] else "not shown"
        read = with_tag(scene, attacker_tag(scene), lambda: Path(place.path("file")).read_text("ascii") and None)
    return Seen(f"{read.text}, {told}")


for _kind in ("ext4", "tmpfs", "ramfs"):
    check(
        f"tag.tagid-{_kind}",
        title=f"with tagid= all of a file system belongs to one context ({_kind})",
        attack="open(O_RDONLY) on a mount with tagid= of another context",
        expected="EACCES, shown",
        control=same_context("ok, shown"),
        vectors=["F37"],
        seconds=SECONDS,
    )(partial(_read_with, kind=_kind, options=f"tagid={OURS}"))


def _tagged_file(scene: Scene, options: str) -> Seen:
    with volume("tmpfs", options) as place:
        prepare(scene, lambda: _touch(place.path("file")))
        return with_tag(scene, THEIRS, lambda: os.close(os.open(place.path("file"), os.O_RDONLY)))


check(
    "tag.checked",
    title="a tagged mount tests, unless it is told not to",
    attack="open(O_RDONLY) with another tag on a mount with tag",
    expected="EACCES",
    control=instead(lambda scene: _tagged_file(scene, "tag,notagcheck"), "ok", "a mount with tag,notagcheck"),
)(lambda scene: _tagged_file(scene, "tag"))


def _mounting(kind: str, features: str) -> Seen:
    """Mount with tags what has a place for them, or has none."""
    with volume(kind, features=features, mounted=False) as place:
        return attempt(place.mount, "tag")


def _refused(_scene: Scene) -> Seen:
    kinds = (("ext4", "^project,^quota"), ("xfs", ""), ("ramfs", ""))
    return Seen(", ".join(_mounting(*kind).text for kind in kinds))


def _accepted(_scene: Scene) -> Seen:
    kinds = (("ext4", "project"), ("ext4", "project,quota"), ("tmpfs", ""))
    return Seen(", ".join(_mounting(*kind).text for kind in kinds))


check(
    "tag.refused",
    title="a file system without a place for tags is not mounted with them",
    attack="mount -o tag of an ext4 without the feature project, of XFS, of ramfs",
    expected="ENOTSUP, ENOTSUP, ENOTSUP",
    control=instead(_accepted, "ok, ok, ok", "ext4 with project, and with quota too, and tmpfs"),
    seconds=SECONDS,
)(_refused)


def _remounted(changes: tuple[str, ...]) -> Seen:
    with volume(options="tag") as place:
        seen = [attempt(mount, "none", place.folder, "none", change, MS_REMOUNT).text for change in changes]
    return Seen(", ".join(seen))


check(
    "tag.remount",
    title="a remount does not change how files are tagged",
    attack="mount -o remount with notag, tagid=, notagcheck",
    expected="EINVAL, EINVAL, EINVAL",
    control=instead(lambda _scene: _remounted(("tag", "tagcheck", "")), "ok, ok, ok", "options that change nothing"),
    seconds=SECONDS,
)(lambda _scene: _remounted(("notag", "tagid=5", "notagcheck")))


def _mount_inside(scene: Scene, options: str) -> Seen:
    """Mount in a context that may mount."""
    may = int(ContextCaps.SECURE_MOUNT | ContextCaps.BINARY_MOUNT)
    Context(scene.xid, Vserver()).set_caps(Change(may, may))
    with volume("tmpfs", mounted=False) as place:
        return with_tag(scene, THEIRS, lambda: mount("none", place.folder, "tmpfs", options), private=True)


check(
    "tag.mount-inside",
    title="a context that mounts does not decide about tags",
    attack="mount -t tmpfs -o tagid=, in a context that may mount",
    expected="EPERM",
    control=instead(lambda scene: _mount_inside(scene, "mode=755"), "ok", "the same context, without tags"),
)(lambda scene: _mount_inside(scene, f"tagid={OURS}"))


def _second_mount(options: str) -> Seen:
    with volume(options="tag") as place:
        other = place.folder + "-again"
        Path(other).mkdir()
        seen = attempt(mount, place.device, other, "ext4", options)
        if seen.errno is None:
            unmount(other)
        Path(other).rmdir()
    return seen


check(
    "tag.second-mount",
    title="a second mount of a file system cannot differ in its tags",
    attack="mount -o tagid= of a device that is mounted with tag",
    expected="EBUSY",
    control=instead(lambda _scene: _second_mount("tag"), "ok", "the same options"),
    seconds=SECONDS,
)(lambda _scene: _second_mount("tagid=5"))


def _task_tag(scene: Scene) -> Seen:
    """Ask for the tag of the victim."""

    def begin() -> None:
        if scene.placement.name != "TOGETHER":
            Vserver().take_tag(OURS)

    aim = victim(scene, begin=begin)
    return scene.attack(lambda: attempt(Vserver().task_tag, aim.pid))


check(
    "tag.task-tag",
    title="the tag of a process outside is not told",
    attack="task_tag of a pid guessed right",
    expected="ESRCH",
    control=same_context("0"),
)(_task_tag)


def _migrate(scene: Scene, *, inside: bool) -> Seen:
    def take() -> str:
        kernel = Vserver()
        kernel.take_tag(0x10000 | OURS)
        child = os.fork()
        if child == 0:
            os._exit(0 if kernel.task_tag() == OURS else 1)
        return f"{kernel.task_tag()}, {'inherited' if os.waitpid(child, 0)[1] == 0 else 'lost'}"

    return scene.attack(lambda: attempt(take), inside=inside)


check(
    "tag.migrate",
    title="a member does not choose its tag",
    attack="tag_migrate inside",
    expected="EPERM",
    control=instead(lambda scene: _migrate(scene, inside=False), f"{OURS}, inherited", "the host does it"),
)(lambda scene: _migrate(scene, inside=True))


def _set_by_command(make: Callable[[str], object], _scene: Scene) -> Seen:
    """Tag a file by the command that is for it, and see that it is the disk that knows."""
    from cloison import tags

    kernel = Vserver()
    with volume() as place:
        name = place.path("file")
        make(name)
        before = tags.get(kernel, name)
        tags.put(kernel, name, OURS)
        place.again("tag")
        return Seen(f"{before}, {tags.get(kernel, name)}")


def _untagged(_scene: Scene) -> Seen:
    from cloison import tags

    kernel = Vserver()
    with volume("tmpfs", "") as place:
        _touch(place.path("file"))
        try:
            return Seen(f"{tags.get(kernel, place.path('file'))}, {attempt(tags.put, kernel, place.folder, 5).text}")
        except OSError as error:
            raise SceneError(errno.errorcode[error.errno or 0]) from error


_MAKERS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("file", _touch),
    ("folder", lambda path: Path(path).mkdir()),
    ("link", lambda path: Path(path).symlink_to("nowhere")),
    ("device", lambda path: os.mknod(path, 0o020600, os.makedev(1, 3))),
)
for _name, _make in _MAKERS:
    check(
        f"tag.set-{_name}",
        title=f"the host tags a {_name}",
        attack="set_iattr with a tag, umount, mount, get_iattr",
        expected=f"0, {OURS}",
        control=instead(_untagged, "None, EINVAL", "a mount without tags"),
        seconds=SECONDS,
    )(partial(_set_by_command, _make))
