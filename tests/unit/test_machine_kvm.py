# SPDX-License-Identifier: GPL-2.0-or-later
"""A KVM that opens is no KVM that works."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloison_forge.core.paths import Project
from cloison_forge.machine import kvm

Program = Callable[[str], Path]


@pytest.fixture(name="program")
def fixture_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Return a function that installs a script as QEMU, with an accelerator device that exists."""
    monkeypatch.setattr(kvm, "project", lambda: Project(tmp_path, tmp_path / "cache"))
    monkeypatch.setattr(kvm, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(kvm, "SECONDS", 1)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def install(script: str) -> Path:
        path = tmp_path / kvm.PROGRAM
        path.write_text(f"#!/bin/sh\necho run >> '{tmp_path}/runs'\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return tmp_path / "runs"

    return install


def test_a_guest_that_runs_is_the_proof_and_is_remembered(program: Program) -> None:
    runs = program("exit 33")
    assert kvm.probe().usable
    assert kvm.probe().usable
    assert runs.read_text(encoding="utf-8") == "run\n"
    program("sleep 0; exit 1")
    assert not kvm.probe().usable, "another QEMU asks for another probe"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'KVM internal error. Suberror: 1' >&2; exit 1", "KVM internal error"),
        ("echo 'qemu: error: failed to set MSR 0x10a to 0x69' >&2; kill -6 $$", "failed to set MSR 0x10a"),
        ("echo 'something else' >&2; exit 1", "something else"),
        ("exit 0", "status 0"),
        ("exec sleep 60", "nothing within 1 s"),
    ],
)
def test_everything_else_is_none(program: Program, script: str, why: str) -> None:
    program(script)
    verdict = kvm.probe()
    assert not verdict.usable
    assert why in verdict.reason


def test_a_damaged_memory_is_no_verdict(program: Program, tmp_path: Path) -> None:
    program("exit 33")
    path = tmp_path / "cache" / "verdicts" / "kvm.json"
    path.parent.mkdir(parents=True)
    for text in ("", "[]", "{}", '{"for": 1}'):
        path.write_text(text, encoding="utf-8")
        assert kvm.probe().usable


def test_a_later_failure_overrules_the_probe(program: Program) -> None:
    program("exit 33")
    assert kvm.probe().usable
    kvm.remember(kvm.Verdict(False, "a kernel did not start"))
    assert not kvm.probe().usable


def test_no_device_and_no_program(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "missing")
    assert "does not exist" in kvm.probe().reason
    monkeypatch.setattr(kvm, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(kvm, "PROGRAM", "qemu-that-is-not-installed")
    assert "not installed" in kvm.probe().reason
