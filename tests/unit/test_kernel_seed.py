# SPDX-License-Identifier: GPL-2.0-or-later
"""A second profile of the same tree begins with the objects of the first, and only if they may serve."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloison_forge.kernel import seed

HEAD = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/um 6.12.117 Kernel Configuration\n#\n"


def folder(root: Path, name: str, config: str, *, whole: bool = True, mark: str = "tree 1") -> Path:
    """Make a folder of objects as a build leaves it."""
    obj = root / name / "obj"
    (obj / "kernel").mkdir(parents=True)
    (obj / ".config").write_text(HEAD + config)
    (obj / ".cloison-source").write_text(mark)
    (obj / "kernel" / "fork.o").write_text("object")
    (obj / "kernel" / ".fork.o.cmd").write_text(f"savedcmd_kernel/fork.o := gcc -ffile-prefix-map={obj}/=\n")
    (root / name / "src").symlink_to("../source")
    if whole:
        (obj / "vmlinux").touch()
        (root / name / ".stamp.json").touch()
    return obj


def new(root: Path, config: str) -> tuple[Path, Path]:
    """Return an object folder that is not there yet, and the configuration wanted for it."""
    wanted = root / "wanted.config"
    wanted.write_text(HEAD + config)
    return root / "new" / "obj", wanted


def test_the_nearest_is_taken(tmp_path: Path) -> None:
    folder(tmp_path, "far", "CONFIG_A=y\nCONFIG_X=y\nCONFIG_Y=y\n")
    near = folder(tmp_path, "near", "CONFIG_A=y\n# CONFIG_B is not set\n")
    obj, wanted = new(tmp_path, "CONFIG_A=y\nCONFIG_B=y\n")
    assert seed.nearest(obj, wanted, tmp_path / "source", "tree 1") == near


@pytest.mark.parametrize(
    ("config", "whole", "mark"),
    [
        ("".join(f"CONFIG_OTHER_{number}=y\n" for number in range(60)), True, "tree 1"),
        ("CONFIG_A=y\n", False, "tree 1"),
        ("CONFIG_A=y\n", True, "tree 0"),
    ],
)
def test_what_is_far_or_half_or_of_another_tree_is_not(tmp_path: Path, config: str, whole: bool, mark: str) -> None:
    folder(tmp_path, "other", config, whole=whole, mark=mark)
    obj, wanted = new(tmp_path, "CONFIG_A=y\n")
    assert seed.nearest(obj, wanted, tmp_path / "source", "tree 1") is None


def test_another_tree_is_not_even_with_the_same_stamp(tmp_path: Path) -> None:
    folder(tmp_path, "vm", "CONFIG_A=y\n")
    obj, wanted = new(tmp_path, "CONFIG_A=y\n")
    assert seed.nearest(obj, wanted, tmp_path / "absent", "tree 1") is None


def test_another_architecture_is_not(tmp_path: Path) -> None:
    other = folder(tmp_path, "other", "CONFIG_A=y\n")
    (other / ".config").write_text(HEAD.replace("Linux/um", "Linux/x86") + "CONFIG_A=y\n")
    obj, wanted = new(tmp_path, "CONFIG_A=y\n")
    assert seed.nearest(obj, wanted, tmp_path / "source", "tree 1") is None


def test_objects_keep_their_times_and_commands_get_the_new_place(tmp_path: Path) -> None:
    source = folder(tmp_path, "uml", "CONFIG_A=y\n")
    os.utime(source / "kernel" / "fork.o", ns=(10**18 + 1, 10**18 + 7))
    target = tmp_path / "mutate" / "obj"
    target.mkdir(parents=True)
    (target / ".cloison-source").write_text("tree 1")
    seed.plant(source, target)
    assert (target / "kernel" / "fork.o").stat().st_mtime_ns == 10**18 + 7
    assert f"{target}/=" in (target / "kernel" / ".fork.o.cmd").read_text()
    assert str(source) not in (target / "kernel" / ".fork.o.cmd").read_text()
    assert not (target / ".config").exists()
    assert (source / ".config").exists()
    assert not (target.parent / ".seed").exists()
