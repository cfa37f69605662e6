# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that misbehave, to test PID 1 and the runner in a real machine. Copied into a job as a suite of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, Seen, attempt


def _good(_: Scene) -> Seen:
    return Seen("ok")


_CONTROL = instead(_good, "ok", "nothing at all")


@check("self.a-hang", title="hangs", attack="sleep", expected="ok", control=_CONTROL, seconds=2)
def hang(_: Scene) -> Seen:
    """Hang, with a child that hangs too and ignores signals."""
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        Path("/tmp/hanging").write_text(str(os.getpid()), encoding="ascii")
    time.sleep(600)
    return Seen("ok")


@check("self.b-nothing-left", title="the hang is gone", attack="look", expected="gone", control=_CONTROL)
def nothing_left(_: Scene) -> Seen:
    """See that the child of the check before was killed."""
    try:
        os.kill(int(Path("/tmp/hanging").read_text(encoding="ascii")), 0)
    except ProcessLookupError:
        return Seen("gone")
    return Seen("still there")


@check("self.c-kills-runner", title="kills the runner", attack="kill the parent", expected="ok", control=_CONTROL)
def kill_runner(_: Scene) -> Seen:
    """Kill the runner itself."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return Seen("ok")


@check("self.d-after", title="the next check runs", attack="none", expected="ok", control=_CONTROL)
def after(_: Scene) -> Seen:
    """Run after the runner was started anew."""
    return Seen("ok")


@check("self.e-daemon", title="leaves a daemon", attack="double fork", expected="ok", control=_CONTROL)
def daemon(_: Scene) -> Seen:
    """Leave a daemon in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path("/tmp/daemon").write_text(str(os.getpid()), encoding="ascii")
            time.sleep(600)
        os._exit(0)
    while not Path("/tmp/daemon").exists():
        time.sleep(0.01)
    return Seen("ok")


@check("self.f-daemon-gone", title="the daemon is gone", attack="look", expected="gone", control=_CONTROL)
def daemon_gone(_: Scene) -> Seen:
    """See that the daemon of the check before was killed."""
    try:
        os.kill(int(Path("/tmp/daemon").read_text(encoding="ascii")), 0)
    except ProcessLookupError:
        return Seen("gone")
    return Seen("still there")


@check("self.g-forger", title="writes to the channel", attack="find the channel", expected="nowhere", control=_CONTROL)
def forger(scene: Scene) -> Seen:
    """Look for the result channel, the job disk or PID 1's socket among descriptors and names."""

    def look() -> Seen:
        links = []
        for number in range(256):
            with contextlib.suppress(OSError):
                links.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        names = ["/dev/ubdb", "/dev/vdb", *(str(path) for path in Path("/dev").glob("vport*"))]
        if Path("/dev/ubda").exists():
            names.append("/dev/ttyS0")
        found = [name for name in names if Path(name).exists() or name in links]
        # The link to the probe is the only socket that an attacker has; the probe itself has none.
        found += [link for link in links if link.startswith("socket:")][1 if os.getpid() != checker else 0 :]
        return Seen(" ".join(found) or "nowhere")

    checker = os.getpid()
    here = look()
    return here if here.text != "nowhere" else scene.attack(look)


@check("self.h-root", title="is root with the usual file systems", attack="mount", expected="ok", control=_CONTROL)
def surroundings(_: Scene) -> Seen:
    """Find what a check may rely on."""
    for path in ("/proc/self", "/sys/kernel", "/dev/null", "/dev/pts/ptmx", "/dev/shm", "/sys/fs/cgroup/cgroup.procs"):
        if not Path(path).exists():
            return Seen(f"no {path}")
    Path("/root/scratch").write_text("the root can be written to", encoding="ascii")
    return attempt(lambda: None) if os.getuid() == 0 else Seen("not root")


@check("self.i-kills-everything", title="kills all it can", attack="kill(-1)", expected="ok", control=_CONTROL)
def kill_everything(_: Scene) -> Seen:
    """Kill every process but PID 1, the runner included."""
    os.kill(-1, signal.SIGKILL)
    return Seen("ok")
