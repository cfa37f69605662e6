# SPDX-License-Identifier: GPL-2.0-or-later
"""The host image in a machine: by BIOS and by UEFI to the login prompt, and to the root shell of the boot menu."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison_forge import pipeline
from cloison_forge.image.api import Disk

OVMF = Path("/usr/share/OVMF")
LIMIT = 300.0
"""Seconds that a machine may take, emulated and on a busy host."""

pytestmark = [pytest.mark.vm, pytest.mark.timeout(4 * LIMIT)]


@pytest.fixture(scope="module")
def disk() -> Disk:
    return pipeline.image(pipeline.Request())


class Machine:
    """A PC without anything but the disk, which is never written to, and one serial port."""

    def __init__(self, disk: Path, firmware: str, folder: Path) -> None:
        words = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "512", "-nodefaults", "-no-reboot"]
        words += ["-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"]
        words += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
        if firmware == "uefi":
            shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", folder / "vars.fd")
            for name, more in ((OVMF / "OVMF_CODE_4M.fd", ",readonly=on"), (folder / "vars.fd", "")):
                words += ["-drive", f"if=pflash,format=raw,file={name}{more}"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.seen = b""
        self.end = time.monotonic() + LIMIT

    def until(self, pattern: str) -> str:
        """Read the console up to `pattern` and return what came, without colours."""
        assert self.process.stdout is not None
        while True:
            plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.seen)
            found = re.search(pattern.encode(), plain)
            if found:
                self.seen = plain[found.end() :]
                return plain[: found.end()].decode(errors="replace")
            left = self.end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                pytest.fail(f"no '{pattern}' within {LIMIT:.0f} s; last: {plain[-800:].decode(errors='replace')}")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                pytest.fail(f"the machine ended before '{pattern}': {plain[-800:].decode(errors='replace')}")
            self.seen += data

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()


@pytest.fixture
def machine(disk: Disk, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine(disk.path, request.param, tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.parametrize("machine", ["bios", "uefi"], indirect=True)
def test_it_boots_to_the_login_prompt(machine: Machine, disk: Disk) -> None:
    machine.until("GRUB")
    text = machine.until("cloison login: ")
    assert f"Linux version {disk.release}" in text
    assert "/usr/lib/cloison/init" in text
    assert "Reached target multi-user.target" in text
    assert "Failed to start" not in text
    assert "Kernel panic" not in text
    machine.type("root\n")
    machine.until("Password: ")
    machine.type("\n")
    machine.until("Login incorrect")


@pytest.mark.parametrize("machine", ["bios"], indirect=True)
def test_the_second_entry_gives_a_root_shell_on_a_clean_system(machine: Machine, disk: Disk) -> None:
    machine.until("executed automatically")
    machine.type("\x1b[B\r")
    machine.until(r"root@cloison:/# ")
    machine.type("systemctl is-system-running --wait; systemctl --failed --no-legend | wc -l\n")
    assert "running" in machine.until(r"[\r\n]0[\r\n]")
    machine.type("findmnt -no SOURCE,FSTYPE,OPTIONS /; blkid -o value -s PARTUUID $(findmnt -no SOURCE /)\n")
    text = machine.until(disk.root_partuuid)
    assert re.search(r"/dev/vda3 +ext4 +rw", text)
    machine.type(
        "cloison --help > /dev/null && python3 -c 'import ctypes, cloison; print(\"imported\")'; poweroff -f\n"
    )
    machine.until(r"[\r\n]imported")
    assert machine.process.wait(60) == 0
