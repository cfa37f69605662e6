# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the distribution's configuration comes from, in which order, and what is refused."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernel_fakes import checkout, line

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_forge.kconfig import distro
from cloison_forge.source.model import UnreachableError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv(distro.VARIABLE, raising=False)
    distro.distro_config.cache_clear()
    yield checkout(tmp_path, monkeypatch)
    project.cache_clear()
    distro.distro_config.cache_clear()


def unreachable(*_: object) -> None:
    raise UnreachableError("no network")


def test_named_file_comes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "my.config").write_text("CONFIG_A=y\n")
    monkeypatch.setenv(distro.VARIABLE, str(root / "my.config"))
    assert distro.distro_config(line(), "x86_64", root).text == "CONFIG_A=y\n"


def test_named_file_that_is_missing_or_none_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(distro.VARIABLE, str(root / "none"))
    with pytest.raises(UsageError, match="does not exist"):
        distro.distro_config(line(), "x86_64", root)
    (root / "none").write_text("words\n")
    with pytest.raises(UsageError, match="sets nothing"):
        distro.distro_config(line(), "x86_64", root)


def test_installed_package_is_unpacked(root: Path) -> None:
    path = distro.packaged("6.12", "x86_64", root)
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.compress(b"CONFIG_B=m\n"))
    assert distro.distro_config(line(), "x86_64", root).text == "CONFIG_B=m\n"


def test_cached_download_needs_no_network_and_the_pinned_one_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloison_forge.source.apt.PrivateApt.update", unreachable)
    folder = project().downloads / "config"
    folder.mkdir(parents=True)
    (folder / "linux-config-6.12_6.12.9-1_x86_64.config").write_text("CONFIG_NEW=y\n")
    (folder / "linux-config-6.12_6.12.1-1_x86_64.config").write_text("CONFIG_PINNED=y\n")
    assert distro.distro_config(line(), "x86_64", root).text == "CONFIG_PINNED=y\n"


def test_without_network_an_installed_kernel_serves_and_without_that_the_hint_says_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cloison_forge.source.apt.PrivateApt.update", unreachable)
    with pytest.raises(UsageError, match="no network") as caught:
        distro.distro_config(line(), "x86_64", root)
    assert "apt-get install linux-config-6.12" in caught.value.hint
    with pytest.raises(UsageError, match="--offline: the cache holds no linux-config"):
        distro.distro_config(line(), "x86_64", root, offline=True)
    (root / "boot").mkdir()
    (root / "boot" / "config-6.12.3-amd64").write_text("CONFIG_C=y\n")
    (root / "boot" / "config-6.1.0-amd64").write_text("CONFIG_OLD=y\n")
    assert distro.distro_config(line(), "x86_64", root).text == "CONFIG_C=y\n"
    assert "no network" in capsys.readouterr().err
