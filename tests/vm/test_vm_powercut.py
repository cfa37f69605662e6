# SPDX-License-Identifier: GPL-2.0-or-later
"""The power is cut while links of shared files are broken: each name has the old content or the new, whole.

The machine is killed, so that what its kernel has not written is lost. Each next boot lets the journal be
replayed and looks at every file; on the host e2fsck looks at a copy of the disk.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloison_forge.core import run
from cloison_forge.machine.inputs import Inputs

ROOT = Path(__file__).resolve().parents[2]
CUTS = {"uml": 12, "qemu": 6}
LIMIT = {"uml": 60.0, "qemu": 300.0}
"""Seconds from power on to the first broken link."""
INIT = '"mount -t ext4 {disk} /mnt && exec python3 /mnt/powercut_guest.py"'


def _command(lane: str, machine: Inputs, scratch: Path) -> list[str]:
    assert machine.kernel is not None
    root = machine.root or (machine.disk.path if machine.disk else Path())
    init = ["init=/bin/sh", "--", "-c"]
    if lane == "uml":
        words = [
            str(machine.kernel.image.resolve()),
            "mem=256M",
            f"ubd0=root.cow,{root.resolve()}",
            "ubd1=scratch.ext4",
        ]
        words += ["root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", "ssl=null", "uml_dir=./", "umid=uml"]
        return [*words, *init, INIT.format(disk="/dev/ubdb")]
    assert machine.disk is not None
    line = f"root=PARTUUID={machine.disk.root_partuuid} rw console=ttyS0 panic=-1"
    line = " ".join([line, *init, INIT.format(disk="/dev/vdb")])
    words = ["qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35"]
    words += ["-accel", "tcg", "-cpu", "max", "-m", "512", "-serial", "stdio"]
    words += ["-drive", f"file={machine.disk.path},format=raw,if=virtio,snapshot=on,file.locking=off"]
    words += ["-drive", f"file={scratch},format=raw,if=virtio,cache=writeback"]
    return [*words, "-kernel", str(machine.kernel.image.resolve()), "-append", line]


class Machine:
    """A machine that is only ever killed."""

    def __init__(self, words: list[str], folder: Path, limit: float) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.limit, self.seen = limit, b""

    def until(self, word: bytes) -> None:
        """Read the console until a line begins with `word`."""
        assert self.process.stdout is not None
        end = time.monotonic() + self.limit
        while not any(line.startswith(word) for line in self.seen.split(b"\n")[:-1]):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                pytest.fail(f"no {word!r} in time: {self.seen[-1500:].decode(errors='replace')}")
            data = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
            if not data:
                pytest.fail(f"the machine ended: {self.seen[-1500:].decode(errors='replace')}")
            self.seen += data.replace(b"\r", b"")

    def cut(self) -> None:
        """Take the power away from all processes of the machine at once.

        UML traces its guest's processes. Were it killed alone, they could run on for a moment, and the host would
        answer their system calls.
        """
        os.killpg(self.process.pid, signal.SIGKILL)
        rest, _ = self.process.communicate()
        self.seen += rest.replace(b"\r", b"")


def _checked(scratch: Path, copy: Path) -> None:
    """Replay the journal in a copy and let e2fsck look at everything."""
    shutil.copyfile(scratch, copy)
    done = subprocess.run(["e2fsck", "-fp", str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    again = subprocess.run(["e2fsck", "-fn", str(copy)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.parametrize("lane", ["uml", "qemu"])
def test_a_power_cut_leaves_the_old_file_or_the_new(machines: Callable[..., Inputs], lane: str, tmp_path: Path) -> None:
    run.require("e2fsck", package="e2fsprogs", why="to look at the disk after a cut")
    machine = machines(lane)
    content, scratch = tmp_path / "content", tmp_path / "scratch.ext4"
    content.mkdir()
    shutil.copy(ROOT / "tests/vm/powercut_guest.py", content)
    shutil.copy(ROOT / "tools/cloison/inode.py", content)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(content), str(scratch), "96M"], check=True)
    broken = 0
    for cut in range(CUTS[lane] + 1):
        there = Machine(_command(lane, machine, scratch), tmp_path, LIMIT[lane])
        try:
            there.until(b"verified")
            if cut < CUTS[lane]:
                there.until(b"ready")
                time.sleep(random.uniform(0.02, 1.5 if lane == "uml" else 6))
        finally:
            there.cut()
        (tmp_path / f"console-{cut}.log").write_bytes(there.seen)
        (tmp_path / "root.cow").unlink(missing_ok=True)
        assert not [line for line in there.seen.split(b"\n") if line.startswith(b"BROKEN")], f"after cut {cut}"
        counts = [int(line.split()[1]) for line in there.seen.split(b"\n") if line.startswith(b"count ")]
        broken += max(counts, default=0)
        _checked(scratch, tmp_path / "copy.ext4")
    assert broken > 0, "no link was broken before a cut"
