# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems in which the kernel speaks: hidden entries of /proc, and who writes where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison import attributes
from cloison.context import Context, become_spectator
from cloison.flags import Change, ContextCaps, FileAttributes
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.process_stream import own_group as own_control_group
from cloison_verify.places import CLONE_NEWCGROUP, mounted, unhidden
from cloison_verify.scene import Scene, SceneError, Seen, attempt

ENTRY = "execdomains"
"""An entry of /proc that nothing here depends on."""


@contextmanager
def _entry(bits: FileAttributes) -> Iterator[Path]:
    """Give the entry these attributes for a while."""
    path = Path("/proc", ENTRY)
    every = int(FileAttributes.ADMIN | FileAttributes.WATCH | FileAttributes.HIDE)
    kernel = Vserver()
    before = attributes.get(kernel, path)
    attributes.change(kernel, path, Change(int(bits), every))
    try:
        yield path
    finally:
        attributes.change(kernel, path, Change(int(before.flags), every))


def _opened(path: str | Path, flags: int) -> str:
    return attempt(lambda: os.close(os.open(path, flags))).text


def _entry_seen(path: Path) -> Seen:
    """Open, look for and list the entry."""
    listed = path.name in os.listdir(path.parent)  # noqa: PTH208
    found = attempt(lambda: path.stat() and None).text
    return Seen(f"{_opened(path, os.O_RDONLY)}, {found}, {'listed' if listed else 'not listed'}")


def _hidden(bits: FileAttributes, *, inside: bool, warm: bool = False) -> Probe:
    def probe(scene: Scene) -> Seen:
        with _entry(bits) as path:
            if warm:
                path.stat()
            return scene.attack(lambda: _entry_seen(path), inside=inside)

    return probe


HIDDEN = FileAttributes.ADMIN | FileAttributes.HIDE

check(
    "files.hidden-entry",
    title="a hidden entry of /proc does not exist inside",
    attack="open(), stat() and getdents() of an entry with HIDE, of which the host has a cached name",
    expected="ENOENT, ENOENT, not listed",
    control=instead(_hidden(FileAttributes.ADMIN, inside=True), "ok, ok, listed", "without HIDE"),
)(_hidden(HIDDEN, inside=True, warm=True))

check(
    "files.hidden-entry-host",
    title="an entry is hidden from the host too, if it says so",
    attack="open(), stat() and getdents() of an entry with HIDE and without ADMIN",
    expected="ENOENT, ENOENT, not listed",
    control=instead(_hidden(HIDDEN, inside=False), "ok, ok, listed", "with ADMIN"),
)(lambda scene: scene.attack(lambda: _host_hidden(), inside=False))


def _host_hidden() -> Seen:
    """Hide the entry from the host; it is shown again by its descriptor, since its name is gone."""
    path = Path("/proc", ENTRY)
    kernel = Vserver()
    opened = os.open(path, os.O_RDONLY)
    before = attributes.get_open(kernel, opened)
    every = int(FileAttributes.ADMIN | FileAttributes.WATCH | FileAttributes.HIDE)
    attributes.change_open(kernel, opened, Change(int(FileAttributes.HIDE), every))
    try:
        return _entry_seen(path)
    finally:
        attributes.change_open(kernel, opened, Change(int(before.flags), every))


def _spectator(bits: FileAttributes) -> Probe:
    def probe(scene: Scene) -> Seen:
        def look() -> Seen:
            become_spectator(Vserver())
            return _entry_seen(path)

        with _entry(bits) as path:
            return scene.attack(look, inside=False)

    return probe


check(
    "files.hidden-entry-spectator",
    title="the spectator sees a hidden entry only with WATCH",
    attack="open(), stat() and getdents() of an entry with HIDE and ADMIN by a spectator",
    expected="ENOENT, ENOENT, not listed",
    control=instead(_spectator(HIDDEN | FileAttributes.WATCH), "ok, ok, listed", "with WATCH"),
)(_spectator(HIDDEN))

SECRETS = ("cmdline", "kallsyms", "kmsg", "keys", "sysrq-trigger", "timer_list", "vmallocinfo", "net/unix", "kcore")


def _defaults(scene: Scene, *, inside: bool) -> Seen:
    """Look for what nobody has unhidden; what a kernel does not have is left out."""
    present = [name for name in SECRETS if Path("/proc", name).exists()]

    def look() -> Seen:
        seen = {name: Path("/proc", name).exists() for name in present}
        links = all(Path("/proc", name).exists() for name in ("self", "thread-self", "mounts", "net"))
        return Seen(f"{sum(seen.values()) == len(present)}, {not any(seen.values())}, {links}")

    return scene.attack(look, inside=inside)


check(
    "files.proc-defaults",
    title="what /proc tells about the whole system is hidden inside, its links are not",
    attack="stat() of cmdline, kallsyms, kmsg, keys, … and of self, mounts, net",
    expected="False, True, True",
    control=instead(lambda scene: _defaults(scene, inside=False), "True, False, True", "on the host"),
)(lambda scene: _defaults(scene, inside=True))


def _writing(paths: tuple[str, ...]) -> str:
    """Open files of the kernel for writing, as far as they are there; say the sights, each once."""
    present = [path for path in paths if os.path.lexists(path)]
    if not present:
        raise SceneError("none of the files is there")
    return " and ".join(sorted({_opened(path, os.O_WRONLY) for path in present}))


def _writes(*paths: str, inside: bool, caps: ContextCaps | None = None) -> Probe:
    def probe(scene: Scene) -> Seen:
        if caps:
            Context(scene.xid, Vserver()).set_caps(Change(int(caps), int(caps)))
        tops = {Path("/proc", Path(path).parts[2]) for path in paths if path.startswith("/proc/")}
        with unhidden(*tops):
            return scene.attack(lambda: Seen(_writing(paths)), inside=inside)

    return probe


SYSCTLS = tuple(
    f"/proc/sys/{name}"
    for name in ("kernel/modprobe", "kernel/poweroff_cmd", "kernel/hotplug", "kernel/cad_pid", "vm/drop_caches")
)

for _name, _title, _paths, _vectors in (
    ("core-pattern", "core_pattern is not written inside", ("/proc/sys/kernel/core_pattern",), ["F52"]),
    ("helper-paths", "paths of helpers and other sysctls are not written inside", SYSCTLS, ["F53"]),
    ("sysrq", "sysrq-trigger is not written inside, even unhidden", ("/proc/sysrq-trigger",), ["K37"]),
    (
        "sysfs-write",
        "sysfs is not written inside",
        ("/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/kernel/profiling", "/sys/power/state"),
        ["F53", "F55"],
    ),
):
    check(
        f"files.{_name}",
        title=_title,
        attack=f"open({', '.join(_paths)}, O_WRONLY)",
        expected="EACCES",
        control=instead(_writes(*_paths, inside=False), "ok", "on the host"),
        vectors=_vectors,
    )(_writes(*_paths, inside=True))

check(
    "files.sysctl-granted",
    title="the host can grant writing to sysctls",
    attack="open(/proc/sys/kernel/core_pattern, O_WRONLY) with GRANT_SYSCTL",
    expected="ok",
    control=instead(_writes("/proc/sys/kernel/core_pattern", inside=True), "EACCES", "without the grant"),
)(_writes("/proc/sys/kernel/core_pattern", inside=True, caps=ContextCaps.GRANT_SYSCTL))


def _own_writes(scene: Scene, *, inside: bool) -> Seen:
    def write() -> Seen:
        return Seen(_writing(("/proc/self/comm", "/proc/thread-self/comm", "/proc/self/coredump_filter")))

    return scene.attack(write, inside=inside)


check(
    "files.proc-own",
    title="a member writes to the files of its own processes",
    attack="open(/proc/self/comm, O_WRONLY) and others inside",
    expected="ok",
    control=instead(lambda scene: _own_writes(scene, inside=False), "ok", "on the host"),
)(lambda scene: _own_writes(scene, inside=True))


def _modes(*, inside: bool) -> Probe:
    """Change modes to what they are."""

    def mode(path: str) -> Callable[[], None]:
        return lambda: Path(path).chmod(Path(path).stat().st_mode & 0o7777)

    def probe(scene: Scene) -> Seen:
        paths = ("/proc/uptime", "/sys/kernel/mm", "/sys/fs/cgroup/cgroup.procs")
        return scene.attack(lambda: Seen(", ".join(attempt(mode(path)).text for path in paths)), inside=inside)

    return probe


check(
    "files.kernel-modes",
    title="modes in the file systems of the kernel are not changed inside",
    attack="chmod() in /proc, /sys and /sys/fs/cgroup",
    expected="EPERM, EPERM, EPERM",
    control=instead(_modes(inside=False), "ok, ok, ok", "on the host"),
    vectors=["F55"],
)(_modes(inside=True))


def _groups(scene: Scene, *, inside: bool, own: bool) -> Seen:
    """Write to control groups, in a cgroup namespace of the caller's own or in the host's."""
    context = Context(scene.xid, Vserver())
    top = own_control_group()
    target = top / f"below-{os.getpid()}"
    target.mkdir()

    def write() -> Seen:
        if own:
            System().unshare(CLONE_NEWCGROUP)
        if inside:
            context.enter()
        below = attempt(lambda: os.close(os.open(target / "cgroup.procs", os.O_WRONLY))).text
        made = attempt((target / "made").mkdir).text
        outside = "/sys/fs/cgroup/cgroup.procs"
        return Seen(f"{below}, {made}, {_opened(outside, os.O_WRONLY)}")

    try:
        return scene.attack(write, inside=False)
    finally:
        scene.close()
        if (target / "made").exists():
            (target / "made").rmdir()
        target.rmdir()


check(
    "files.cgroup-foreign",
    title="no member writes to control groups of the host",
    attack="open(cgroup.procs, O_WRONLY) and mkdir() in the host's cgroup namespace",
    expected="EACCES, EACCES, EACCES",
    control=instead(lambda scene: _groups(scene, inside=False, own=False), "ok, ok, ok", "on the host"),
    vectors=["F59"],
)(lambda scene: _groups(scene, inside=True, own=False))

check(
    "files.cgroup-own",
    title="a member rules below the root of its own cgroup namespace, and not above",
    attack="open(cgroup.procs, O_WRONLY) and mkdir() below the namespace's root, and above",
    expected="ok, ok, EACCES",
    control=instead(lambda scene: _groups(scene, inside=False, own=True), "ok, ok, ok", "on the host"),
    vectors=["F59"],
)(lambda scene: _groups(scene, inside=True, own=True))


def _release(scene: Scene, *, inside: bool) -> Seen:
    with mounted("cgroup", "release", "none,name=cloison") as top:
        paths = (top / "release_agent", top / "notify_on_release")
        return scene.attack(
            lambda: Seen(", ".join(_opened(path, os.O_WRONLY) for path in paths)),
            inside=inside,
        )


check(
    "files.release-agent",
    title="no member names the program that a control group starts at its end",
    attack="open(release_agent, O_WRONLY) and open(notify_on_release, O_WRONLY) of a hierarchy of version 1",
    expected="EACCES, EACCES",
    control=instead(lambda scene: _release(scene, inside=False), "ok, ok", "on the host"),
    vectors=["F58"],
)(lambda scene: _release(scene, inside=True))
