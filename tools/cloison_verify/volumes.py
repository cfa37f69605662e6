# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems for the checks of tags and disk limits: made, mounted, and proven whole at the end."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cloison_verify import mounting
from cloison_verify.scene import Placement, Scene, SceneError, Seen, attempt

OURS, THEIRS = 301, 302
"""The tag of the files, and that of an attacker from elsewhere."""
MEGABYTE = 1 << 20
ROOM = 32 * MEGABYTE
"""Size of a volume."""
XFS_ROOM = 320 << 20
"""What mkfs.xfs wants at least; the image has holes where nothing is written."""
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
PROJINHERIT = 0x200
PRJQUOTA = 2
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
Q_GETQUOTA, Q_SETQUOTA = 0x800007, 0x800008
_FSXATTR = struct.Struct("=IIIII8x")
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: str) -> None:
    """Run a program that must succeed; raises `SceneError` with what it printed."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SceneError(f"{words[0]} ended with {done.returncode}: {done.stdout.decode(errors='replace').strip()}")


def mount(source: str, target: str, kind: str, options: str = "", flags: int = 0) -> None:
    """Call mount(2); raises OSError."""
    mounting.mount(source, target, kind, flags, options or None)


def unmount(target: str) -> None:
    """Call umount(2); raises `SceneError`, for something of the check is still in use."""
    if _libc.umount2(target.encode(), 0):
        raise SceneError(f"umount {target}: {os.strerror(ctypes.get_errno())}")


class Volume:
    """A mounted file system: its folder, and the device under it ('none' for tmpfs)."""

    def __init__(self, folder: str, device: str, kind: str) -> None:
        self.folder, self.device, self.kind = folder, device, kind

    def path(self, name: str) -> str:
        """Return the path of a file on it."""
        return f"{self.folder}/{name}"

    def mount(self, options: str = "") -> None:
        """Mount it; raises OSError."""
        room = f",size={ROOM}" if self.kind == "tmpfs" else ""
        mount(self.device, self.folder, self.kind, (options + room).lstrip(","))

    def again(self, options: str = "") -> None:
        """Unmount and mount it: what is in memory only is lost."""
        unmount(self.folder)
        self.mount(options)


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """Attach an image to a loop device."""
    done = subprocess.run(["losetup", "-f", "--show", str(image)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SceneError("no loop device is free")
    device = done.stdout.decode().strip()
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextmanager
def new_device(folder: Path, kind: str, features: str = "", extended: str = "") -> Iterator[str]:
    """Return a device with a new file system, which is checked at the end; "none" for one that lives in memory."""
    if kind in ("tmpfs", "ramfs"):
        yield "none"
        return
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(XFS_ROOM if kind == "xfs" else ROOM)
    if kind == "xfs":
        run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))
        with loop_device(image) as device:
            yield device
        run("xfs_repair", "-n", str(image))
        return
    words = ["-O", features] if features else []
    words += ["-E", extended] if extended else []
    run("mke2fs", "-q", "-F", "-t", kind, "-b", "4096", "-m", "0", *words, str(image))
    with loop_device(image) as device:
        yield device
    # Whatever the check has seen: a file system that needs repair is a failure of its own.
    run("e2fsck", "-f", "-n", str(image))


@contextmanager
def volume(
    kind: str = "ext4",
    options: str = "tag",
    features: str = "project",
    extended: str = "",
    *,
    mounted: bool = True,
    where: str = "/run",
) -> Iterator[Volume]:
    """Make and mount a file system; at the end it is unmounted and e2fsck finds nothing wrong."""
    folder = Path(tempfile.mkdtemp(prefix="volume-", dir=where))
    folder.chmod(0o711)
    try:
        with new_device(folder, kind, features, extended) as device:
            made = Volume(str(folder / "on"), device, kind)
            Path(made.folder).mkdir()
            if mounted:
                made.mount(options)
            try:
                yield made
            finally:
                if os.path.ismount(made.folder):
                    unmount(made.folder)
    finally:
        shutil.rmtree(folder)


def quota_volume() -> AbstractContextManager[Volume]:
    """Return a volume with project quota on."""
    return volume(options="tag,prjquota", features="project,quota", extended="quotatype=prjquota")


def take_tag(tag: int) -> None:
    """Give the calling process a file tag, on the host."""
    from cloison.syscall import Vserver

    Vserver().take_tag(tag)


def with_tag(
    scene: Scene, tag: int, operation: Callable[[], object], *, inside: bool = True, private: bool = False
) -> Seen:
    """Do the operation in a process with a tag, in the attacker's context or on the host.

    With `private` it has a mount namespace that shares nothing. The process ends before this returns, and so holds
    nothing of a volume.
    """
    xid = scene.xid if inside else 0

    def body() -> Seen:
        take_tag(tag)
        if private:
            mounting.own_mounts()
        if inside:
            scene.contexts.enter(xid)
        return _in_child(operation)

    return scene.attack(body, inside=False)


def _in_child(operation: Callable[[], object]) -> Seen:
    """Return what a child of the calling process saw."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seen = attempt(operation)
            os.write(writing, f"{seen.errno or ''}\n{seen.text}".encode())
        except BaseException as error:
            os.write(writing, f"!\n{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        name, _, text = pipe.read().decode().partition("\n")
    os.waitpid(child, 0)
    if name == "!":
        raise SceneError(text)
    return Seen(text, name or None)


def attacker_tag(scene: Scene) -> int:
    """Return the attacker's tag: another one than the files', and in a control the same."""
    return OURS if scene.placement is Placement.TOGETHER else THEIRS


def prepare(scene: Scene, operation: Callable[[], object], tag: int = OURS) -> None:
    """Let a process of the host with a tag make files; everything has to succeed."""
    seen = with_tag(scene, tag, operation, inside=False)
    if seen.errno:
        raise SceneError(f"could not make the files: {seen.text}")


def get_project(path: str) -> tuple[int, int]:
    """Return the project id of a file or folder, which on a tagged ext4 is its tag, and the flags."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = bytearray(_FSXATTR.size)
        fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, data)
    finally:
        os.close(descriptor)
    flags, _, _, project, _ = _FSXATTR.unpack(data)
    return int(project), int(flags)


def set_project(path: str, project: int, flags: int = 0) -> None:
    """Set the project id and the flags of a file or folder; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, 0, 0, project, 0))
    finally:
        os.close(descriptor)


def quotactl(command: int, device: str, ident: int, data: ctypes.Array[ctypes.c_uint64] | None) -> None:
    """Call quotactl(2) about project quota; raises OSError."""
    if _libc.quotactl(ctypes.c_int(command << 8 | PRJQUOTA), device.encode(), ctypes.c_int(ident), data):
        raise OSError(ctypes.get_errno(), f"quotactl {device}")


def project_usage(device: str, project: int) -> tuple[int, int]:
    """Return the bytes and inodes that quota has counted for a project."""
    data = (ctypes.c_uint64 * 9)()
    quotactl(Q_GETQUOTA, device, project, data)
    return int(data[2]), int(data[5])


def link_descriptor(descriptor: int, path: str) -> None:
    """Give an open file a name, by its entry below /proc/self/fd; raises OSError."""
    source = f"/proc/self/fd/{descriptor}".encode()
    if _libc.linkat(AT_FDCWD, source, AT_FDCWD, path.encode(), AT_SYMLINK_FOLLOW):
        raise OSError(ctypes.get_errno(), f"linkat {path}")


def settle(path: str) -> None:
    """Write everything of a file system to its device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(descriptor):
            raise SceneError(f"syncfs: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
