# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane bochs: what it is started with, how its end is read, and the terminals that it writes to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.test_machine_lanes import Disk

from cloison_forge.core.errors import MachineError, UsageError
from cloison_forge.machine import bochs, bochs_terminals
from cloison_forge.machine.bochs import Bochs
from cloison_forge.machine.job import Job
from cloison_forge.machine.lane import Launch, MachineSpec, Wires

CYLINDER = 16 * 63 * 512


@pytest.fixture(name="wires")
def fixture_wires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wires:
    monkeypatch.setattr(bochs, "require", lambda program, **_: program)
    for name in ("_BIOS", "_VGA_BIOS"):
        monkeypatch.setattr(bochs, name, tmp_path / name)
        (tmp_path / name).touch()
    (tmp_path / "job.tar").write_bytes(b"x" * 10240)
    return Wires(tmp_path, tmp_path / "job.tar", 7)


def spec(folder: Path) -> MachineSpec:
    return MachineSpec(None, Job("boot"), disk=Disk(folder / "disk.raw"))


def test_its_configuration_names_the_disks_and_writes_to_none(tmp_path: Path, wires: Wires) -> None:
    launch = Bochs().launch(spec(tmp_path), wires)
    lines = (tmp_path / "bochsrc").read_text(encoding="utf-8").splitlines()
    disks = [line for line in lines if "type=disk" in line]
    assert len(disks) == 2
    assert all("mode=volatile" in line for line in disks)
    assert f'path="{tmp_path}/disk.raw"' in disks[0]
    assert f'path="{tmp_path}/job.tar"' in disks[1]
    assert wires.job_disk.stat().st_size == CYLINDER, "Bochs has no geometry for less"
    assert "com1: enabled=1, mode=file, dev=$CLOISON_CONSOLE" in lines
    assert "com2: enabled=1, mode=file, dev=$CLOISON_RESULTS" in lines
    assert list(launch.argv[-7:]) == ["7", "bochs-bin", "-q", "-f", "bochsrc", "-rc", "commands"]
    assert (tmp_path / "commands").read_text(encoding="ascii") == "c\n"


def test_what_it_cannot_do_is_refused(tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec(tmp_path)
    with pytest.raises(UsageError, match="no words for the kernel"):
        Bochs().launch(replace(asked, append="quiet"), wires)
    with pytest.raises(MachineError, match="no disk"):
        Bochs().launch(replace(asked, disk=None), wires)
    with pytest.raises(UsageError, match="shares no folder"):
        Bochs().share(tmp_path)
    with pytest.raises(UsageError, match="cannot open"):
        Bochs().launch(replace(asked, disk=Disk(tmp_path / 'a"b')), wires)
    monkeypatch.setattr(bochs, "_BIOS", tmp_path / "missing")
    with pytest.raises(MachineError, match="no missing for Bochs"):
        Bochs().launch(asked, wires)


@pytest.mark.parametrize(
    ("log", "status", "expected"),
    [
        (">>PANIC<< ACPI control: soft power off", 1, 0),
        (">>PANIC<< ACPI control: soft power off", 2, 2),
        (">>PANIC<< ata0-0: could not open hard drive image file", 1, 1),
        ("", 0, 1),
    ],
)
def test_only_a_guest_that_powered_off_is_a_good_end(tmp_path: Path, log: str, status: int, expected: int) -> None:
    (tmp_path / "bochs.log").write_text(log + "\n", encoding="utf-8")
    words = ["/bin/sh", "-c", bochs._SCRIPT, "bochs", "sh", "-c", f"exit {status}"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == expected
    assert ("PANIC" in result.stderr) is ("PANIC" in log and expected != 0)


def played(folder: Path, script: str) -> tuple[int, bytes, bytes]:
    """Run a script as Bochs is run; return its status, and what came out as console and as results."""
    reading, writing = os.pipe()
    words = [sys.executable, "-I", bochs_terminals.__file__, str(writing), "/bin/sh", "-c", script]
    result = subprocess.run(words, cwd=folder, capture_output=True, pass_fds=[writing], check=False, timeout=60)
    os.close(writing)
    with os.fdopen(reading, "rb") as results:
        return result.returncode, result.stdout, results.read()


def test_serial_ports_are_carried_unchanged_and_to_the_last_byte(tmp_path: Path) -> None:
    script = "test -t 1 && printf 'a\\nb' > $CLOISON_CONSOLE; printf '1\\n2\\n' > $CLOISON_RESULTS; echo screen; exit 3"
    assert played(tmp_path, script) == (3, b"a\nb", b"1\n2\n")


def test_much_is_carried_too(tmp_path: Path) -> None:
    script = "head -c 20000 /dev/zero > $CLOISON_RESULTS; seq 20000 > $CLOISON_CONSOLE"
    status, console, results = played(tmp_path, script)
    assert (status, len(results)) == (0, 20000)
    assert console == "".join(f"{number}\n" for number in range(1, 20001)).encode()


def test_a_signal_is_no_success(tmp_path: Path) -> None:
    assert played(tmp_path, "kill -SEGV $$")[0] == 128 + 11


def test_the_lane_is_complete(tmp_path: Path, wires: Wires) -> None:
    lane = Bochs()
    assert isinstance(lane.launch(spec(tmp_path), wires), Launch)
    assert lane.explain(spec(tmp_path), tmp_path) is None
    assert lane.limits(spec(tmp_path)).firmware >= 120
