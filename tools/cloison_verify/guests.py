# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for the checks of whole servers: a root directory each, a context each, made by the ``cloison`` command.

A guest's root is an overlay over that of the machine, with everything that it writes in memory; so each has the
configuration and data folders that Debian's packages expect. Their addresses lie on the loopback interface of the
test machine: no packet leaves it.
"""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloison_verify import mounting
from cloison_verify.checks.tool import COMMAND, cloison, environment
from cloison_verify.scene import SceneError
from cloison_verify.volumes import run as succeed

MNT_DETACH = 2
ROOM = "/run/guests"
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where something runs: a guest with its addresses, or the host."""

    name: str
    addresses: tuple[str, ...] = ()


HOST = Place("host")
RED = Place("red", ("192.0.2.1", "2001:db8::1"))
BLUE = Place("blue", ("192.0.2.2", "2001:db8::2"))
GREY = Place("grey")
"""A guest without an address."""


@dataclass(frozen=True)
class Done:
    """How a script ended: its exit status, and what it printed, errors included."""

    status: int
    output: str


Scripts = Mapping[Place, str]


class House:
    """The guests of one probe: their roots, and scripts that run in several places at once."""

    def __init__(self, folder: Path, guests: Sequence[Place]) -> None:
        self.folder, self.guests = folder, tuple(guests)

    def path(self, place: Place, path: str) -> Path:
        """Return the path on the host of a file in a place; `path` is absolute."""
        return Path(path) if place == HOST else self.folder / place.name / "root" / path.lstrip("/")

    def write(self, place: Place, files: Mapping[str, str]) -> None:
        """Write files in a place, with the folders that they need."""
        for path, text in files.items():
            target = self.path(place, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def run(self, scripts: Scripts) -> dict[Place, Done]:
        """Run shell scripts as root, all at once, each in its place; return how each ended.

        What a script leaves running keeps no pipe: the output goes to a file.
        """
        started = {}
        for place, script in scripts.items():
            inside = (*COMMAND, "exec", place.name, "--root", str(self.path(place, "/")), "--")
            words = [*(() if place == HOST else inside), "sh", "-c", script]
            out = self.folder / f"{place.name}.{next(_numbers)}.out"
            with out.open("wb") as sink:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment(), cwd="/"
                )
            started[place] = (process, out)
        return {
            place: Done(process.wait(), out.read_text(encoding="utf-8", errors="replace"))
            for place, (process, out) in started.items()
        }

    def must(self, scripts: Scripts) -> dict[Place, str]:
        """Run scripts that have to succeed; return what each printed."""
        done = self.run(scripts)
        for place, end in done.items():
            if end.status:
                raise SceneError(f"in {place.name}, status {end.status}: {end.output[-300:].strip()}")
        return {place: end.output for place, end in done.items()}


def addresses() -> None:
    """Give the machine the addresses of all guests, on its loopback interface."""
    succeed("ip", "link", "set", "lo", "up")
    for address in (*RED.addresses, *BLUE.addresses):
        if ":" in address:
            succeed("ip", "address", "replace", f"{address}/128", "dev", "lo", "nodad")
        else:
            succeed("ip", "address", "replace", f"{address}/32", "dev", "lo")


def _build_root(folder: Path) -> None:
    """Make a guest's root directory, `root` in its folder."""
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for path in (root, upper, work):
        path.mkdir(parents=True)
    mounting.mount("overlay", str(root), "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    for name in ("run", "tmp", "dev"):
        mounting.mount("tmpfs", str(root / name), "tmpfs", 0, "mode=0755")
    mounting.mount("proc", str(root / "proc"), "proc")
    devices, shared = root / "dev", root / "dev" / "shm"
    shared.mkdir()
    for name, (major, minor) in NODES.items():
        os.mknod(devices / name, stat.S_IFCHR, os.makedev(major, minor))
        (devices / name).chmod(0o666)
    (devices / "fd").symlink_to("/proc/self/fd")
    for path in (root / "tmp", shared):
        path.chmod(0o1777)


@contextmanager
def house(*guests: Place, networks: bool = True) -> Iterator[House]:
    """Make guests, each a context with its addresses; at the end everything in them is killed.

    Without `networks` they are contexts all the same, in the network of the host.
    """
    addresses()
    mounting.unshare(mounting.CLONE_NEWNS)
    mounting.mount("none", "/", None, mounting.MS_REC | mounting.MS_PRIVATE)
    Path(ROOM).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=ROOM))
    folder.chmod(0o755)
    mounting.mount("guests", str(folder), "tmpfs", 0, "mode=0755")
    made: list[Callable[[], object]] = []
    try:
        for guest in guests:
            _build_root(folder / guest.name)
            status, out = cloison("create", guest.name, *(_network(guest) if networks else ()))
            if status:
                raise SceneError(out)
            made.append(lambda name=guest.name: cloison("remove", name, "--force", "--grace", "0"))  # type: ignore[misc]
        yield House(folder, guests)
    finally:
        for remove in made:
            remove()
        mounting.unmount(str(folder), MNT_DETACH)
        folder.rmdir()


def _network(guest: Place) -> list[str]:
    if not guest.addresses:
        return ["--no-address"]
    return [word for address in guest.addresses for word in ("--address", address)]
