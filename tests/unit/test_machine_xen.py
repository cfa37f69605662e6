# SPDX-License-Identifier: GPL-2.0-or-later
"""Lane xen: the hypervisor's command line, the guest's job within the first domain's, and what carries its results."""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.test_machine_lanes import Disk, Kernel, options

from cloison_forge.core.errors import BuildError, MachineError, UsageError
from cloison_forge.image import hypervisor
from cloison_forge.machine import qemu, xen_guest
from cloison_forge.machine.job import Job
from cloison_forge.machine.lane import MachineSpec, Wires
from cloison_forge.machine.xen import GUESTS, Xen


@pytest.fixture(name="wires")
def fixture_wires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wires:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    return Wires(tmp_path, tmp_path / "job.tar", 7)


def spec(folder: Path) -> MachineSpec:
    kernel = Kernel(folder / "bzImage", "x86_64")
    return MachineSpec(kernel, Job("boot"), disk=Disk(folder / "disk.raw"), hypervisor=folder / "xen")


def job_text(path: Path) -> str:
    with tarfile.open(path) as archive:
        member = archive.extractfile("cloison-job")
        assert member is not None
        return member.read().decode()


def test_our_kernel_is_the_first_module_of_the_hypervisor(tmp_path: Path, wires: Wires) -> None:
    words = list(Xen().launch(replace(spec(tmp_path), append="a=1,2"), wires).argv)
    assert options(words, "-kernel") == [str(tmp_path / "xen")]
    [module] = options(words, "-initrd")
    assert module.startswith(f"{tmp_path}/bzImage root=PARTUUID=1234 rw ")
    assert module.endswith(" a=1,,2"), "QEMU takes a comma for the end of a module"
    assert "console=hvc0" in module
    assert "dom0_mem=512M" in options(words, "-append")[0]
    assert int(options(words, "-m")[0]) > 512
    assert len(options(words, "-drive")) == 2


@pytest.mark.parametrize("way", GUESTS)
def test_a_guest_has_the_job_and_the_first_domain_carries_it(tmp_path: Path, wires: Wires, way: str) -> None:
    asked = replace(spec(tmp_path), way=way, append="quiet")
    words = list(Xen().launch(asked, wires).argv)
    assert len(options(words, "-drive")) == 4
    inner, outer = job_text(tmp_path / "guest-job.tar"), job_text(wires.job_disk)
    assert "mode boot\nchannel /dev/xvdc\nending poweroff" in inner
    assert f"mode relay\nchannel {Xen.channel}\nending reboot" in outer
    with tarfile.open(wires.job_disk) as archive:
        assert {"relay.py", "relay.arguments"} <= set(archive.getnames())
        arguments = archive.extractfile("relay.arguments")
        assert arguments is not None
        kind, line = arguments.read().decode().split("\n", 1)
    assert kind == way
    assert line.endswith(" quiet")
    assert "quiet" not in options(words, "-initrd")[0]


def test_what_is_missing_or_cannot_be_is_named(tmp_path: Path, wires: Wires) -> None:
    asked = spec(tmp_path)
    for less in (replace(asked, kernel=None), replace(asked, disk=None), replace(asked, hypervisor=None)):
        with pytest.raises(MachineError, match="no kernel, disk or hypervisor"):
            Xen().launch(less, wires)
    with pytest.raises(UsageError, match="neither shell nor shared folder"):
        Xen().launch(replace(asked, way="pv", job=Job("shell")), wires)
    with pytest.raises(UsageError, match="comma"):
        Xen().launch(replace(asked, kernel=Kernel(tmp_path / "a,b", "x86_64")), wires)


def test_the_guests_configuration_names_its_disks() -> None:
    values: dict[str, object] = {}
    exec(xen_guest.configuration("pv", "root=x rw"), values)  # xl's format is a subset of Python's
    assert values["type"] == "pv"
    assert values["cmdline"] == "root=x rw"
    disks = values["disk"]
    assert isinstance(disks, list)
    assert [disk.split("vdev=")[1].split(",")[0] for disk in disks] == ["xvda", "xvdb", "xvdc"]
    assert values["on_reboot"] == values["on_crash"] == "destroy", "a guest that starts again would never end"


def test_the_channel_is_followed_up_to_what_has_been_written(tmp_path: Path) -> None:
    path = tmp_path / "channel"
    path.write_bytes(bytes(100000))
    got: list[bytes] = []
    with path.open("r+b", buffering=0) as file:
        tail = xen_guest.Tail(file.fileno(), got.append)
        assert tail.follow() is False
        os.pwrite(file.fileno(), b"one\ntw", 0)
        assert tail.follow() is True
        os.pwrite(file.fileno(), b"o\n", 6)
        assert tail.follow() is True
        assert tail.follow() is False
        os.pwrite(file.fileno(), b"x" * 99992, 8)
        while tail.follow():
            pass
    assert b"".join(got) == b"one\ntwo\n" + b"x" * 99992


def test_the_guest_is_served_to_its_end_without_a_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "channel"
    path.write_bytes(b"last words\n" + bytes(10))
    got: list[bytes] = []
    monkeypatch.setattr(xen_guest, "_console", lambda: None)
    monkeypatch.setattr(xen_guest, "_POLL", 0.01)
    with path.open("rb") as file:
        process = subprocess.Popen(["sh", "-c", "sleep 0.1; exit 4"])
        assert xen_guest.serve(process, xen_guest.Tail(file.fileno(), got.append)) == 4
    assert b"".join(got) == b"last words\n"


def test_the_newest_hypervisor_is_taken() -> None:
    entries = ["xen-4.9-amd64.gz", "xen-4.17-amd64.gz", "xen-4.17-amd64.efi", "xen-4.17-amd64.config"]
    listing = "\n".join(f"/{number}/100644/0/0/{name}/7/" for number, name in enumerate(entries))
    assert hypervisor.newest(f"\n{listing}\n") == "xen-4.17-amd64.gz"
    with pytest.raises(BuildError, match="holds no hypervisor"):
        hypervisor.newest("/1/040755/0/0/.//\n")
