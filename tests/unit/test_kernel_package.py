# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: which files come out, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernel_fakes import FakeTree, checkout, line, make_tree, write_profile

from cloison_forge.core.errors import BuildError, ToolMissingError, UsageError
from cloison_forge.core.paths import project
from cloison_forge.kconfig import api as kconfig
from cloison_forge.kernel import package

RECIPE = """
bindeb-pkg: vmlinux
\t@echo $(KDEB_PKGVERSION) > $(CURDIR)/version
\t@for p in linux-headers-x linux-image-x linux-libc-dev; do echo $$p > $(O)/../$${p}_$(KDEB_PKGVERSION)_amd64.deb; done
\t@touch $(O)/../linux-upstream_1_amd64.buildinfo
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(package, "TOOLS", {"make": "make"})
    yield checkout(tmp_path, monkeypatch)
    project.cache_clear()


@pytest.fixture
def tree(root: Path) -> FakeTree:
    write_profile(root)
    write_profile(root, "uml", arch="um")
    tree = make_tree(root / "build" / "6.12" / "source")
    with (tree.path / "Makefile").open("a") as makefile:
        makefile.write(RECIPE)
    return tree


def pack(tree: FakeTree, profile: str = "vm") -> list[Path]:
    return package.debian(line(), tree, kconfig.configure(line(), tree, profile))


def test_packages_stand_in_their_own_folder_the_image_first(root: Path, tree: FakeTree) -> None:
    made = pack(tree)
    folder = root / "build/6.12/kernel/vm/deb"
    assert [path.name.partition("_")[0] for path in made] == ["linux-image-x", "linux-headers-x", "linux-libc-dev"]
    assert {path.parent for path in made} == {folder}
    assert (tree.path / "version").read_text() == "6.12.1-1\n"
    (folder / "stale.deb").touch()
    assert sorted(pack(tree)) == sorted(folder.iterdir())
    assert not list(folder.parent.glob("linux-*"))


def test_a_kernel_that_is_a_process_has_no_package(tree: FakeTree) -> None:
    with pytest.raises(UsageError, match="runs as a process"):
        pack(tree, "uml")


def test_missing_tool_is_named_before_anything_is_built(
    root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "TOOLS", {"dh-none-such": "debhelper"})
    with pytest.raises(ToolMissingError, match="dh-none-such is not installed") as caught:
        pack(tree)
    assert "apt-get install debhelper" in caught.value.hint
    assert not (root / "build/6.12/kernel").exists()


def test_no_package_is_no_success(tree: FakeTree) -> None:
    makefile = tree.path / "Makefile"
    makefile.write_text(makefile.read_text().replace(RECIPE, "\nbindeb-pkg: vmlinux\n"))
    with pytest.raises(BuildError, match="made no package"):
        pack(tree)
