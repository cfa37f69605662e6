# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of host packages: read by the launcher's shell and by Python, with the same result."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cloison_forge.core import hostpackages
from cloison_forge.core.errors import ToolMissingError, UsageError
from cloison_forge.core.paths import project

ROOT = project().root


def checkout(tmp_path: Path, packages: str) -> Path:
    """A folder that holds what the launcher needs before there is a Python."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "host-packages.txt").write_text(packages)
    shutil.copy(ROOT / "invoke", tmp_path / "invoke")
    (tmp_path / "requirements.lock").write_text("")
    return tmp_path


def launch(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "CLOISON_INSTALL")}
    return subprocess.run(
        ["./invoke", "--list"], cwd=folder, env={**environment, **env}, text=True, capture_output=True, timeout=60
    )


def test_every_line_names_package_probe_and_reason() -> None:
    packages = hostpackages.load()
    assert len(packages) > 20
    names = [package.package for package in packages]
    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# comment\nmake | make\n")
    with pytest.raises(UsageError, match=r"list:2: not 'package \| probe \| why'"):
        hostpackages.load(tmp_path / "list")


def test_probes_are_commands_or_patterns(tmp_path: Path) -> None:
    (tmp_path / "python3.11").mkdir()
    assert hostpackages.HostPackage("x", f"{tmp_path}/python3*", "y").found() == f"{tmp_path}/python3.11"
    assert hostpackages.HostPackage("x", f"{tmp_path}/perl*", "y").found() == ""
    assert hostpackages.HostPackage("x", "sh", "y").found().endswith("/sh")
    assert hostpackages.HostPackage("x", "cloison-none", "y").found() == ""


def test_launcher_names_what_is_missing_and_why_and_obeys_no(tmp_path: Path) -> None:
    folder = checkout(
        tmp_path,
        "# comment\nbash      | sh                 | is there\n"
        "one-thing | cloison-none       | to test it\nanother | /nowhere/at*all | more words here\n",
    )
    result = launch(folder, CLOISON_INSTALL="no")
    assert result.returncode == 4
    assert "one-thing                to test it" in result.stderr
    assert "another                  more words here" in result.stderr
    assert "is there" not in result.stderr
    assert "hint      apt-get install another one-thing" in result.stderr
    assert not (folder / ".venv").exists()


def test_what_is_needed_on_demand_is_named_only_where_it_is_needed(tmp_path: Path) -> None:
    text = "sometimes | cloison-none | lane x: a screen | on demand\nshell | sh | lane x | on demand\n"
    folder = checkout(tmp_path, text + "always | cloison-none | to test it\n")
    usual = launch(folder, CLOISON_INSTALL="no").stderr
    assert "always" in usual
    assert "sometimes" not in usual
    (folder / "invoke").write_text(
        (folder / "invoke").read_text().replace("yes | all)", "yes) ;;\n\tall) die stop stop")
    )
    everything = launch(folder, CLOISON_INSTALL="all").stderr
    assert "  sometimes                lane x: a screen\n" in everything
    with pytest.raises(ToolMissingError, match="lane x needs what is not installed: sometimes"):
        hostpackages.demand("lane x", folder / "tools" / "host-packages.txt")
    hostpackages.demand("lane y", folder / "tools" / "host-packages.txt")
    (tmp_path / "list").write_text("make | make | why | perhaps\n")
    with pytest.raises(UsageError, match="list:1"):
        hostpackages.load(tmp_path / "list")


def test_every_purpose_on_demand_is_one_that_something_asks_for() -> None:
    assert {entry.purpose for entry in hostpackages.load() if entry.on_demand} == {"lane bochs", "compare"}


def test_launcher_stops_on_an_unknown_distribution(tmp_path: Path) -> None:
    folder = checkout(tmp_path, "one-thing | cloison-none | to test it\n")
    script = (folder / "invoke").read_text().replace("/etc/os-release", str(tmp_path / "os-release"))
    (folder / "invoke").write_text(script)
    (tmp_path / "os-release").write_text("ID=plan9\n")
    result = launch(folder, CLOISON_INSTALL="yes")
    assert result.returncode == 4
    assert "this is no Debian" in result.stderr
    assert "one-thing" in result.stderr
