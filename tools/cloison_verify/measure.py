# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures one row of `./invoke compare` in one surrounding: plain, in a context, or in a container.

The same code runs in the machines (the runner's role "measure") and on the build host. What is told is the line of
``tools/cloison_compare/work.c``: JSON with nanoseconds of this machine's clock, or with an ``error``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WORK = Path("/run/cloison/work")
SURROUNDINGS = ("plain", "context", "bubblewrap", "crun")
MEMINFO = Path("/proc/meminfo")
SETTLING = 0.5  # seconds until what was begun or ended has its memory, or has given it back
_LONGEST = 200  # characters of a reason
_PACKAGES = {"bwrap": "bubblewrap", "crun": "crun"}  # what is missing where a program is


def _error(reason: str) -> str:
    return json.dumps({"error": " ".join(reason.split())[:_LONGEST]})


def _missing(program: str) -> str:
    return _error(f"{program} is not installed here (package {_PACKAGES.get(program, 'unknown')})")


def bubblewrap(words: Sequence[str]) -> list[str]:
    """Return the command that runs `words` in new namespaces of all kinds, over a read-only view of the files."""
    files = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    return ["bwrap", "--unshare-all", "--die-with-parent", *files, *words]


def bundle(words: Sequence[str]) -> dict[str, object]:
    """Return the OCI configuration of a container that runs `words` in new namespaces, as root, with this /usr.

    The program itself, the first of `words`, is seen as /work there.
    """
    kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup")
    capabilities = ["CAP_NET_ADMIN", "CAP_KILL", "CAP_DAC_OVERRIDE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    fresh = [("proc", "/proc"), ("tmpfs", "/tmp"), ("tmpfs", "/dev"), ("tmpfs", "/dev/shm")]
    mounts: list[dict[str, object]] = [{"destination": at, "type": kind, "source": kind} for kind, at in fresh]
    for source, at in (("/usr", "/usr"), (words[0], "/work")):
        mounts.append({"destination": at, "type": "bind", "source": source, "options": ["rbind", "ro"]})
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/work", *words[1:]],
            "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"],
            "capabilities": sets,
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }


def command(surrounding: str, words: Sequence[str], place: Path) -> list[str]:
    """Return the command that runs the program's `words` in a surrounding; `place` is a scratch folder."""
    if surrounding == "plain":
        return list(words)
    if surrounding == "context":
        return [*words, "context"]
    if surrounding == "bubblewrap":
        return bubblewrap(words)
    root = place / "rootfs"
    root.mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (place / "config.json").write_text(json.dumps(bundle(words)), encoding="utf-8")
    state = ["--root", str(place / "state"), "--cgroup-manager", "disabled"]
    return ["crun", *state, "run", "--bundle", str(place), f"cloison-{place.name}"]


def used(meminfo: str) -> int:
    """Return the memory in use, in KiB, without caches that the kernel would give back."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    kib = {name: int(value.split()[0]) for name, value in fields.items() if value.split()}
    return kib["MemTotal"] - sum(kib.get(name, 0) for name in ("MemFree", "Buffers", "Cached", "SReclaimable"))


def _settled() -> int:
    time.sleep(SETTLING)
    return used(MEMINFO.read_text(encoding="ascii"))


def idle(surrounding: str, count: int, work: Path = WORK) -> str:
    """Start `count` instances that do nothing; return as JSON the KiB of memory by which more is in use."""
    work.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as places:
        try:
            before = _settled()
            for number in range(count):
                place = places.enter_context(tempfile.TemporaryDirectory(prefix="cloison-compare-"))
                words = command(surrounding, [str(work), "idle", str(number)], Path(place))
                if shutil.which(words[0]) is None:
                    return _missing(words[0])
                process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                started.append(process)
                assert process.stdout is not None
                line = process.stdout.readline().decode(errors="replace").strip()
                if line != "ready":
                    return _error(f"instance {number + 1} of {count}: {line or 'no word'}")
            more = _settled() - before
            return json.dumps({"kib": more}) if more > 0 else _error("others gave back more memory meanwhile")
        finally:
            for process in started:
                assert process.stdin is not None
                process.stdin.close()
            for process in started:
                assert process.stdout is not None
                process.stdout.close()
                process.wait()


def measure(surrounding: str, row: str, milliseconds: int, work: Path = WORK, seconds: float = 600) -> str:
    """Run one row and return what the program says; whatever goes wrong is an ``error`` in the same form.

    Row ``idleN`` is the memory of N idle instances.
    """
    if row.startswith("idle"):
        return idle(surrounding, int(row.removeprefix("idle")), work)
    work.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="cloison-compare-") as folder:
        words = command(surrounding, [str(work), row, str(milliseconds)], Path(folder))
        if shutil.which(words[0]) is None:
            return _missing(words[0])
        try:
            result = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return _error(f"no end within {seconds:.0f} s")
    line = (result.stdout.strip().splitlines() or [""])[-1]
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if isinstance(told, dict) and ("error" in told or "median" in told):
        return json.dumps(told)
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    return _error(f"{words[0]} ended with status {result.returncode}: {last}")
