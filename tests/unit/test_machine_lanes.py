# SPDX-License-Identifier: GPL-2.0-or-later
"""The command lines that start machines, and what a lane refuses."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloison_forge.core.errors import MachineError, UsageError
from cloison_forge.machine import buildid, inputs, kvm, qemu, uml
from cloison_forge.machine.job import Job
from cloison_forge.machine.lane import MachineSpec, Wires
from cloison_forge.machine.outcome import Outcome
from cloison_forge.machine.qemu import Qemu
from cloison_forge.machine.uml import Uml
from cloison_forge.pipeline import Request


@dataclass(frozen=True)
class Kernel:
    image: Path
    arch: str
    release: str = "6.12.117-cloison"
    config: Path = Path("/config")
    variant: str = "on"


@dataclass(frozen=True)
class Disk:
    path: Path
    root_partuuid: str = "1234"


@pytest.fixture(name="wires")
def fixture_wires(tmp_path: Path) -> Wires:
    return Wires(tmp_path, tmp_path / "job.tar", 7)


def spec(arch: str, folder: Path, **more: object) -> MachineSpec:
    made = MachineSpec(Kernel(folder / "kernel", arch), Job("boot"), root=folder / "root, with comma.ext4")
    return replace(made, **more)  # type: ignore[arg-type]


def options(words: list[str], name: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == name]


def test_uml_never_writes_to_the_image_and_names_its_devices(tmp_path: Path, wires: Wires) -> None:
    words = list(Uml().launch(spec("um", tmp_path, append="vserver.mutate=X  loglevel=7"), wires).argv)
    assert words[0] == str(tmp_path / "kernel")
    assert f"ubd0=root.cow,{tmp_path}/root, with comma.ext4" in words
    assert f"ubd1r={tmp_path}/job.tar" in words
    assert "root=/dev/ubda" in words
    assert "ssl0=null,fd:7" in words
    assert "uml_dir=./" in words
    assert not any(word.startswith("ssl1=") for word in words)
    assert words[-2:] == ["vserver.mutate=X", "loglevel=7"]
    assert "ssl1=fd:9" in Uml().launch(spec("um", tmp_path), replace(wires, terminal=9)).argv


def test_uml_boots_the_whole_disk_too(tmp_path: Path, wires: Wires) -> None:
    words = Uml().launch(spec("um", tmp_path, root=None, disk=Disk(tmp_path / "disk.raw")), wires).argv
    assert "root=PARTUUID=1234" in words


def test_uml_keeps_its_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec("um", tmp_path)
    room = SimpleNamespace(free=10 << 30)
    flags = SimpleNamespace(f_flag=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    monkeypatch.setattr(os, "statvfs", lambda _: flags)
    assert uml._memory_folder(asked, tmp_path) == Path("/dev/shm")
    room.free = 64 << 20
    assert uml._memory_folder(asked, tmp_path) == tmp_path
    room.free, flags.f_flag = 10 << 30, os.ST_NOEXEC
    assert uml._memory_folder(asked, tmp_path) == tmp_path


def test_qemu_boots_the_kernel_directly_with_the_image_as_a_snapshot(
    tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    asked = spec("x86_64", tmp_path, accelerator="tcg", append="quiet")
    words = list(Qemu().launch(asked, wires).argv)
    drives = options(words, "-drive")
    assert drives[0].startswith(f"file={tmp_path}/root,, with comma.ext4,")
    assert "snapshot=on" in drives[0]
    assert "readonly=on" in drives[1]
    assert options(words, "-kernel") == [str(tmp_path / "kernel")]
    assert options(words, "-append")[0].startswith("root=/dev/vda rw ")
    assert options(words, "-append")[0].endswith(" quiet")
    assert options(words, "-accel") == ["tcg"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)
    assert options(words, "-add-fd") == ["fd=7,set=1"]
    assert any(word.startswith("virtio-rng") for word in options(words, "-device"))
    assert "-fsdev" not in words


def test_qemu_prefers_the_disk_and_shares_a_folder(
    tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    asked = spec("x86_64", tmp_path, accelerator="kvm", disk=Disk(tmp_path / "disk.raw"), share=tmp_path)
    words = list(Qemu().launch(asked, replace(wires, terminal=9)).argv)
    assert options(words, "-append")[0].startswith("root=PARTUUID=1234 ")
    assert options(words, "-fsdev") == [f"local,id=share,path={tmp_path},security_model=none"]
    assert "socket,id=terminal,fd=9" in options(words, "-chardev")
    assert options(words, "-accel") == ["kvm"]
    assert Qemu().share(tmp_path).source == "share"


@pytest.mark.parametrize("way", ["bios", "uefi"])
def test_qemu_boots_through_firmware_without_a_kernel_of_its_own(
    tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    monkeypatch.setattr(qemu, "_OVMF", tmp_path)
    (tmp_path / "OVMF_CODE_4M.fd").write_bytes(b"code")
    (tmp_path / "OVMF_VARS_4M.fd").write_bytes(b"variables")
    asked = MachineSpec(None, Job("boot"), disk=Disk(tmp_path / "disk.raw"), way=way)
    words = list(Qemu().launch(asked, wires).argv)
    assert "-kernel" not in words
    assert "virtio-blk-pci,drive=root,bootindex=0" in words
    pflash = [drive for drive in options(words, "-drive") if "pflash" in drive]
    assert len(pflash) == (2 if way == "uefi" else 0)
    assert (tmp_path / "uefi-variables.fd").exists() is (way == "uefi")
    with pytest.raises(UsageError, match="takes no words for the kernel"):
        Qemu().launch(replace(asked, append="quiet"), wires)


def test_a_microvm_has_no_pci(tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    asked = spec("x86_64", tmp_path, way="microvm", share=tmp_path)
    words = list(Qemu().launch(asked, replace(wires, terminal=9)).argv)
    assert options(words, "-machine") == ["microvm,acpi=off"]
    assert options(words, "-smp") == ["1"], "without ACPI the kernel learns of no other processor"
    assert options(words, "-kernel") == [str(tmp_path / "kernel")]
    virtio = [device for device in options(words, "-device") if device.startswith("virtio-")]
    assert len(virtio) == 5
    assert all(device.split(",")[0].endswith("-device") for device in virtio)


def test_what_is_missing_is_named(tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "require", lambda program, **_: program)
    monkeypatch.setattr(qemu, "_OVMF", tmp_path / "missing")
    nothing = MachineSpec(None, Job("boot"))
    for lane in (Uml(), Qemu()):
        with pytest.raises(MachineError, match=r"no root file system|no disk"):
            lane.launch(nothing, wires)
        with pytest.raises(MachineError, match="no kernel"):
            lane.launch(replace(nothing, root=tmp_path / "root"), wires)
    with pytest.raises(MachineError, match="no UEFI firmware"):
        Qemu().launch(replace(nothing, disk=Disk(tmp_path / "disk"), way="uefi"), wires)


def test_a_broken_kvm_is_told_from_a_broken_kernel(tmp_path: Path) -> None:
    asked = MachineSpec(None, Job("boot"), accelerator="kvm")
    lane = Qemu()
    assert lane.explain(asked, tmp_path) is None, "nothing was written yet"
    (tmp_path / "machine.log").write_text("", encoding="utf-8")
    (tmp_path / "console.log").write_text("Linux version", encoding="utf-8")
    assert lane.explain(asked, tmp_path) is None
    (tmp_path / "machine.log").write_text("KVM internal error. Suberror: 1\n", encoding="utf-8")
    assert lane.explain(asked, tmp_path) is Outcome.KVM_BROKEN
    assert lane.explain(replace(asked, accelerator="tcg"), tmp_path) is None
    (tmp_path / "machine.log").write_text("", encoding="utf-8")
    (tmp_path / "console.log").write_text("", encoding="utf-8")
    assert lane.explain(asked, tmp_path) is Outcome.KVM_BROKEN, "not one instruction"


def test_a_profile_for_another_lane_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloison_forge import pipeline

    monkeypatch.setattr(pipeline, "kernel", lambda request: Kernel(Path("/k"), "um"))
    with pytest.raises(UsageError, match="profile 'uml' builds a kernel for um, lane 'qemu' needs x86_64"):
        inputs.make(Request(profile="uml"), Qemu())


def test_lanes_boot_what_suits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloison_forge import pipeline

    asked: list[str] = []

    def kernel(request: Request) -> Kernel:
        asked.append(f"{request.profile} {request.variant}")
        return Kernel(Path("/k"), "um" if request.profile == "uml" else "x86_64")

    monkeypatch.setattr(pipeline, "kernel", kernel)
    monkeypatch.setattr(pipeline, "image", lambda _: Disk(Path("/disk")))
    monkeypatch.setattr(pipeline, "root", lambda _, name: SimpleNamespace(path=Path(f"/root-{name}")))
    assert inputs.make(Request(profile=""), Uml()).root == Path("/root-host")
    assert inputs.make(Request(profile=""), Qemu()).disk == Disk(Path("/disk"))
    assert inputs.make(Request(profile="", variant="off"), Qemu()).root == Path("/root-host")
    debug = inputs.make(Request(profile="debug"), Qemu())
    assert (debug.root, debug.memory_mib > 1000) == (Path("/root-host"), True)
    assert asked == ["uml on", "vm on", "vm off", "debug on"]


def test_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inputs.accelerator(Uml()) == ("", "")
    monkeypatch.setattr(kvm, "probe", lambda: kvm.Verdict(True, "good"))
    assert inputs.accelerator(Qemu()) == ("kvm", "")
    monkeypatch.setattr(kvm, "probe", lambda: kvm.Verdict(False, "KVM is present but unusable: x"))
    name, why = inputs.accelerator(Qemu())
    assert name == "tcg"
    assert "present but unusable" in why


def test_build_ids_are_read_from_elf_files_only(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    command = ["gcc", "-Wl,--build-id=0x00112233445566778899aabbccddeeff", "-o", str(tmp_path / "a"), "a.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert buildid.read(tmp_path / "a") == "00112233445566778899aabbccddeeff"
    for data in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100, b"MZ" * 1000):
        (tmp_path / "b").write_bytes(data)
        assert buildid.read(tmp_path / "b") == ""
    assert buildid.read(tmp_path / "missing") == ""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "obj").mkdir()
    (tmp_path / "artifacts" / "bzImage").write_bytes(b"MZ")
    (tmp_path / "a").rename(tmp_path / "obj" / "vmlinux")
    assert buildid.of_image(tmp_path / "artifacts" / "bzImage").startswith("0011")


def test_two_processors_are_the_threads_of_one_core(tmp_path: Path, wires: Wires) -> None:
    """Only such machines have core scheduling, which a check needs."""
    for number, topology in ((1, "1"), (2, "2,sockets=1,cores=1,threads=2"), (4, "4,sockets=1,cores=2,threads=2")):
        made = spec("x86_64", tmp_path, processors=number, accelerator="tcg")
        assert options(list(Qemu().launch(made, wires).argv), "-smp") == [topology]
