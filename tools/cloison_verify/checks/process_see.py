# SPDX-License-Identifier: GPL-2.0-or-later
"""What /proc shows: own processes, and nothing of a process outside, by listing, by number, by an old descriptor."""

from __future__ import annotations

import os
from collections.abc import Callable

from cloison.flags import ContextFlags
from cloison.launch import Creation, creation_steps
from cloison_verify.acts import KILL, aimed, answering, ask, combined, expect_ready, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.process_life import free_context
from cloison_verify.scene import Link, Scene, SceneError, Seen, attempt

SECRETS = (
    *("mem", "maps", "environ", "cmdline", "auxv", "stack", "syscall", "wchan", "pagemap", "io", "smaps"),
    *("timers", "fdinfo", "status", "stat", "statm", "limits", "cgroup", "mountinfo", "oom_score", "task", "ns", "net"),
)
LINKS = ("exe", "cwd", "root", "fd/0", "ns/pid")


@check(
    "process.listing",
    title="/proc lists nobody outside",
    attack="getdents(/proc)",
    expected="nobody else",
    control=same_context("the victim"),
    vectors=["P01"],
)
def listing(scene: Scene) -> Seen:
    """List /proc and say whom it has."""
    aim = victim(scene)

    def body() -> Seen:
        found = {int(name) for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208
        found.discard(os.getpid())
        strangers = sorted(found - {aim.pid})
        if strangers:
            return Seen(f"{len(strangers)} strangers, such as {strangers[:3]}")
        return Seen("the victim" if found else "nobody else")

    return scene.attack(body)


aimed(
    "process.by-number",
    ["P02"],
    title="/proc/PID of a process outside does not exist",
    attack="open(/proc/PID)",
    operation=lambda pid: os.close(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)),
    expected="ENOENT",
)
aimed(
    "process.by-number-thread",
    ["P02"],
    title="a thread outside is not found among one's own",
    attack="open(/proc/self/task/../../PID/task/PID)",
    operation=lambda pid: os.close(os.open(f"/proc/self/../{pid}/task/{pid}", os.O_RDONLY | os.O_DIRECTORY)),
    expected="ENOENT",
)


def _each(names: tuple[str, ...], look: Callable[[str], object], folder: str) -> str:
    """Return the set of outcomes of looking at each of the files that this kernel has."""
    known = [name for name in names if os.path.lexists(f"/proc/self/{name}")]
    if len(known) < len(names) / 2:
        raise SceneError(f"this kernel shows only {known}")
    seen = {attempt(look, f"{folder}/{name}").text for name in known}
    return ", ".join(sorted(seen))


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _readlink(path: str) -> None:
    os.readlink(path)  # noqa: PTH115


@check(
    "process.secrets",
    title="every file of a process outside is absent",
    attack="open(/proc/PID/{mem,maps,environ,…}) of a pid guessed right",
    expected="ENOENT",
    control=same_context("ok"),
    vectors=["P04", "P02"],
)
def secrets(scene: Scene) -> Seen:
    """Open every file of the victim."""
    aim = victim(scene)
    return scene.attack(lambda: Seen(_each(SECRETS, _open, f"/proc/{aim.pid}")))


@check(
    "process.magic-links",
    title="the links of a process outside lead nowhere",
    attack="readlink and open of /proc/PID/{exe,cwd,root,fd/0,ns/pid}",
    expected="ENOENT",
    control=same_context("ok"),
    vectors=["P04", "F08"],
)
def magic_links(scene: Scene) -> Seen:
    """Follow every link of the victim."""
    aim = victim(scene)
    return scene.attack(lambda: Seen(_each(LINKS, _readlink, f"/proc/{aim.pid}")))


def _passed(scene: Scene, path: str, flags: int) -> int:
    """Return a descriptor that the victim opened in its own /proc/self."""

    def body(link: Link) -> None:
        link.send("take", [os.open(path, flags)])
        answering()(link)

    aim = scene.victim(body)
    _, descriptors = aim.link.receive_with_descriptors()
    expect_ready(aim)
    return descriptors[0]


@check(
    "process.stale-folder",
    title="a /proc/PID descriptor from outside shows nothing inside",
    attack="openat(descriptor of a foreign /proc/PID, status)",
    expected=("ENOENT", "ESRCH"),
    control=same_context("ok"),
    vectors=["P05"],
)
def stale_folder(scene: Scene) -> Seen:
    """Look through a folder that was opened outside."""
    folder = _passed(scene, "/proc/self/", os.O_RDONLY | os.O_DIRECTORY)
    return scene.attack(lambda: attempt(lambda: os.close(os.open("status", os.O_RDONLY, dir_fd=folder))), keep=[folder])


@check(
    "process.stale-listing",
    title="a /proc/PID descriptor from outside lists nothing inside",
    attack="getdents(descriptor of a foreign /proc/PID/fd)",
    expected=("nothing", "ENOENT", "ESRCH"),
    control=same_context("entries"),
    vectors=["P05"],
)
def stale_listing(scene: Scene) -> Seen:
    """List a folder that was opened outside."""
    folder = _passed(scene, "/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)

    def operation() -> str:
        return "entries" if os.listdir(folder) else "nothing"  # noqa: PTH208

    return scene.attack(lambda: attempt(operation), keep=[folder])


@check(
    "process.stale-file",
    title="a file of a foreign /proc/PID opened outside cannot be read inside",
    attack="read(descriptor of a foreign /proc/PID/environ or status)",
    expected="ESRCH",
    control=same_context("text"),
    vectors=["P05"],
)
def stale_file(scene: Scene) -> Seen:
    """Read a file that was opened outside."""
    status = _passed(scene, "/proc/self/status", os.O_RDONLY)
    return scene.attack(lambda: attempt(lambda: "text" if os.read(status, 64) else "nothing"), keep=[status])


def _lent_init(scene: Scene, *, inside: bool) -> Seen:
    """Stand in /proc/1 while somebody looks at it who has no init yet, and is lent the host's."""

    def stand() -> None:
        os.chdir("/proc/1")

    def where() -> str:
        return attempt(os.getcwd).text

    host = expect_ready(scene.outsider(answering({"where": where}, stand)))
    context = free_context()

    def body() -> Seen:
        if inside:
            for _name, action in creation_steps(Creation(ContextFlags.INFO_INIT), context):
                action()
        seen = attempt(lambda: os.stat("/proc/1") and None)  # noqa: PTH116
        return combined(seen, attempt(lambda: os.stat("/proc/1/status") and None).text)  # noqa: PTH116

    try:
        return combined(scene.attack(body, inside=False), f"the host in {ask(host, 'where')}")
    finally:
        if inside:
            context.kill(KILL, 0)


check(
    "process.lent-init",
    title="a look at the init that the host lends takes no name from the host",
    attack="stat(/proc/1/status) in a context that has no init yet, while a process outside is in /proc/1",
    expected=("ok, ENOENT, the host in /proc/1", "ok, ESRCH, the host in /proc/1"),
    control=instead(
        lambda scene: _lent_init(scene, inside=False), "ok, ok, the host in /proc/1", "the same on the host"
    ),
    vectors=["P02"],
)(lambda scene: _lent_init(scene, inside=True))
