# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``cloison`` command on a real kernel: a context's life as an administrator drives it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cloison_verify.catalogue import check, instead
from cloison_verify.checks.process_stream import libc_mount
from cloison_verify.scene import Scene, SceneError, Seen

MS_BIND = 4096

COMMAND = (sys.executable, "-P", "-S", "-m", "cloison")
SECONDS = 180
"""Each check starts Python several times, which takes seconds on an emulated machine."""


def environment() -> dict[str, str]:
    """Let Python keep what it compiles: the second start of the command is three times as fast."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": "/run/cloison/pycache"}


def cloison(*words: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run the command; return its exit status and what it printed, errors included."""
    done = subprocess.run(
        [*COMMAND, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode()


def started(*words: str) -> subprocess.Popen[bytes]:
    """Start the command and leave it running."""
    return subprocess.Popen([*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment())


@contextmanager
def context(name: str, *options: str) -> Iterator[int]:
    """Make a context by the command, and remove it by force at the end; its xid."""
    status, out = cloison("create", name, "--json", *options)
    if status:
        raise SceneError(out)
    try:
        yield int(json.loads(out)["xid"])
    finally:
        cloison("remove", name, "--force", "--grace", "0")


def _listed() -> dict[str, int]:
    status, out = cloison("list", "--json")
    if status:
        raise SceneError(out)
    return {entry["name"]: entry["tasks"] for entry in json.loads(out)}


def _absent(_scene: Scene) -> Seen:
    return Seen(str(cloison("show", "nobody-is-called-this")[0]))


@check(
    "tool.create-remove",
    title="a context is made, listed, and removed",
    attack="cloison create, list, remove, list",
    expected="listed with 0 tasks, removed, gone",
    control=instead(_absent, "3", "a name that nobody has"),
    seconds=SECONDS,
)
def create_remove(_scene: Scene) -> Seen:
    """Take a context through its life without a process in it."""
    with context("life"):
        tasks = _listed()["life"]
        status, _ = cloison("remove", "life")
        left = "life" in _listed()
    return Seen(f"listed with {tasks} tasks, {'removed' if status == 0 else status}, {'left' if left else 'gone'}")


@check(
    "tool.exec",
    title="a command in a context returns its status and its output",
    attack="cloison exec NAME -- sh -c 'cat; exit 7', and one that kills itself",
    expected="7 hello, 143, 127, 126",
    control=instead(lambda _scene: Seen(f"{cloison('exec', 'nobody', '--', 'true')[0]}"), "3", "no such context"),
    seconds=SECONDS,
)
def execute(_scene: Scene) -> Seen:
    """Run commands that end in every way."""
    with context("exec"):
        status, out = cloison("exec", "exec", "--", "sh", "-c", "cat; exit 7", stdin=b"hello")
        killed, _ = cloison("exec", "exec", "--", "sh", "-c", "kill -TERM $$")
        missing, _ = cloison("exec", "exec", "--", "no-such-program")
        refused, _ = cloison("exec", "exec", "--", "/etc/passwd")
    return Seen(f"{status} {out}, {killed}, {missing}, {refused}")


def _inherited(*, by_tool: bool) -> Seen:
    """Count the descriptors that a command finds besides the standard streams and the folder it lists."""
    spare = os.open("/", os.O_RDONLY)
    os.set_inheritable(spare, True)
    look = ("sh", "-c", "ls /proc/self/fd | wc -l")
    with context("descriptors"):
        words = (*COMMAND, "exec", "descriptors", "--", *look) if by_tool else look
        out = subprocess.run(words, stdout=subprocess.PIPE, close_fds=False, check=True).stdout
    os.close(spare)
    return Seen("some" if int(out) > 4 else "none")


check(
    "tool.no-descriptors",
    title="no descriptor of the host goes in",
    attack="cloison exec with an inheritable descriptor of the host's root directory",
    expected="none",
    control=instead(lambda _scene: _inherited(by_tool=False), "some", "the same command without cloison"),
    vectors=["F11"],
    seconds=SECONDS,
)(lambda _scene: _inherited(by_tool=True))


def _on_terminal(words: tuple[str, ...]) -> tuple[str, str]:
    """Run words on a terminal; return its name and what was printed there."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    printed = b""
    until = time.monotonic() + 60
    while select.select([master], [], [], max(0.0, until - time.monotonic()))[0]:
        try:
            printed += os.read(master, 65536)
        except OSError:
            break
    process.wait(timeout=30)
    os.close(master)
    return name, printed.decode()


def _terminal(*, by_tool: bool) -> Seen:
    look = ("sh", "-c", "tty; tty <&1; tty <&2")
    with context("terminal"):
        outer, printed = _on_terminal((*COMMAND, "exec", "terminal", "--", *look) if by_tool else look)
    names = {line.strip() for line in printed.splitlines() if line.startswith("/dev/")}
    if not names:
        raise SceneError(printed)
    return Seen("the host's terminal" if outer in names else "a terminal of its own")


check(
    "tool.own-terminal",
    title="the host's terminal does not go in",
    attack="cloison exec on a terminal",
    expected="a terminal of its own",
    control=instead(lambda _scene: _terminal(by_tool=False), "the host's terminal", "the same command without cloison"),
    vectors=["D07"],
    seconds=SECONDS,
)(lambda _scene: _terminal(by_tool=True))


@contextmanager
def _other_root() -> Iterator[str]:
    """Make a root directory: the machine's own files, with a mark in /mnt that the host does not have there."""
    folder = f"/run/cloison/root-{os.getpid()}"
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    libc_mount(b"/", folder.encode(), None, MS_BIND)
    libc_mount(b"proc", f"{folder}/proc".encode(), b"proc")
    libc_mount(b"mark", f"{folder}/mnt".encode(), b"tmpfs")
    os.mkdir(f"{folder}/mnt/inside")  # noqa: PTH102
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", f"{folder}/mnt", f"{folder}/proc", folder], check=False)


def _root(*, known: bool) -> Seen:
    """Run a command below a root of its own and another in the same context, which is not told of the root."""
    with _other_root() as folder:
        options = ("--root", folder, "--unshare", "mount,uts,ipc") if known else ()
        process = started("run", "--name", "guest", *options, "--", "sh", "-c", "echo ready; sleep 60")
        assert process.stdout is not None
        process.stdout.readline()
        _, out = cloison("exec", "guest", "--", "ls", "/mnt")
        cloison("kill", "guest", "-s", "KILL")
        process.wait(timeout=20)
    return Seen("the guest's root" if "inside" in out else "the host's root")


check(
    "tool.exec-root",
    title="a later command gets the root and the namespaces of the context",
    attack="cloison run --root DIR --unshare mount,uts,ipc, then cloison exec without --root",
    expected="the guest's root",
    control=instead(lambda _scene: _root(known=False), "the host's root", "a context without a root of its own"),
    seconds=SECONDS,
)(lambda _scene: _root(known=True))


def _init(_scene: Scene, *options: str) -> Seen:
    status, out = cloison("run", *options, "--", "sh", "-c", "echo $$")
    if status:
        raise SceneError(out)
    return Seen("process 1" if out.strip() == "1" else "another process")


check(
    "tool.run-init",
    title="the command of cloison run --init is process 1 of its context",
    attack="cloison run --init -- sh -c 'echo $$'",
    expected="process 1",
    control=instead(_init, "another process", "without --init"),
    seconds=SECONDS,
)(lambda scene: _init(scene, "--init"))


@check(
    "tool.ps",
    title="the processes of a context are shown by cloison ps, and nobody else",
    attack="cloison ps NAME",
    expected="the command",
    control=instead(
        lambda _scene: Seen("more" if len(json.loads(cloison("ps", "--json")[1])) > 1 else "the command"),
        "more",
        "cloison ps without a name",
    ),
    seconds=SECONDS,
)
def processes(_scene: Scene) -> Seen:
    """Look at a context with one process."""
    with context("ps") as xid:
        started("exec", "ps", "--", "sleep", "60")
        expected = [(xid, "sleep 60")]
        until = time.monotonic() + 20
        while True:  # for a moment, the process is there and has not become the command yet
            seen = [(each["xid"], each["command"]) for each in json.loads(cloison("ps", "ps", "--json")[1])]
            if seen == expected or time.monotonic() > until:
                return Seen("the command" if seen == expected else repr(seen))
            time.sleep(0.1)


@check(
    "tool.wait",
    title="cloison wait returns when the context has ended, and says how",
    attack="cloison run in the background, cloison wait",
    expected="0 ended: last process exited with 5",
    control=instead(lambda _scene: _wait_too_short(), "4", "a wait with too short a time"),
    seconds=SECONDS,
)
def wait_for_end(_scene: Scene) -> Seen:
    """Wait for a context whose only command runs until `cloison wait`, however slow its start, has begun."""
    begun = time.monotonic()
    cloison("list")
    seconds = 2 + 3 * int(time.monotonic() - begun + 1)
    process = started("run", "--name", "wait", "--", "sh", "-c", f"echo ready; sleep {seconds}; exit 5")
    assert process.stdout is not None
    process.stdout.readline()
    status, out = cloison("wait", "wait")
    process.wait(timeout=60)
    return Seen(f"{status} {out.strip()}")


def _wait_too_short() -> Seen:
    with context("patience"):
        return Seen(str(cloison("wait", "patience", "--timeout", "0.3")[0]))


@check(
    "tool.remove-force",
    title="remove --force ends a context that keeps forking, and refuses without it",
    attack="cloison remove, cloison remove --force on a shell that forks for ever",
    expected="1, 0, gone",
    control=instead(_absent, "3", "a name that nobody has"),
    seconds=SECONDS,
)
def remove_force(_scene: Scene) -> Seen:
    """Remove a context whose processes multiply and ignore SIGTERM."""
    with context("stubborn"):
        script = "trap '' TERM; echo ready; while :; do (sleep 0.01); done"
        process = started("exec", "stubborn", "--", "sh", "-c", script)
        assert process.stdout is not None
        process.stdout.readline()
        refused, _ = cloison("remove", "stubborn")
        removed, _ = cloison("remove", "stubborn", "--force", "--grace", "0.2")
        process.wait(timeout=20)
        left = "stubborn" in _listed()
    return Seen(f"{refused}, {removed}, {'left' if left else 'gone'}")


def _flags(*, private: bool) -> Seen:
    with context("flags"):
        if private:
            cloison("flags", "flags", "private")
        return Seen(str(cloison("exec", "flags", "--", "true")[0]))


check(
    "tool.private",
    title="nobody enters a private context",
    attack="cloison flags NAME private, cloison exec NAME",
    expected="125",
    control=instead(lambda _scene: _flags(private=False), "0", "a context without the flag"),
    seconds=SECONDS,
)(lambda _scene: _flags(private=True))
