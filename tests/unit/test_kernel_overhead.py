# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison with a bare make really builds both ways, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernel_fakes import checkout, line, make_tree, write_profile

from cloison_forge.core.paths import project
from cloison_forge.kconfig import api as kconfig
from cloison_forge.kernel.overhead import Cost, Overhead, measure

pytestmark = pytest.mark.skipif(not shutil.which("ccache"), reason="needs ccache")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield checkout(tmp_path, monkeypatch)
    project.cache_clear()


def test_three_builds_and_their_costs(root: Path) -> None:
    write_profile(root)
    tree = make_tree(root / "build" / "6.12" / "source")
    makefile = tree.path / "Makefile"
    # a bare make gives no abs_srctree and no CC, as with the real kernel
    makefile.write_text("CC = gcc\nabs_srctree = $(CURDIR)\n" + makefile.read_text())
    found = measure(line(), tree, kconfig.configure(line(), tree, "vm"))
    assert tree.calls.count("bzImage") == 3
    assert found.objects == 4
    assert min(cost.processor for cost in (found.bare, found.cold, found.hot)) > 0
    assert not list((root / "build" / "6.12").glob(".overhead.*"))
    assert not (project().cache / "objects.json").exists()


def test_ratio_is_of_processor_time() -> None:
    found = Overhead(Cost(10, 20), Cost(30, 21), Cost(1, 1), 4)
    assert found.ratio == pytest.approx(1.05)
    assert found.as_json()["ratio_clock"] == 3
