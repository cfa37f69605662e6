# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue: every check can fail, has a control, and names rows that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloison_verify import catalogue, vectors
from cloison_verify.catalogue import CatalogueError, Check, check, instead, kernel_without, same_context
from cloison_verify.scene import Scene, Seen

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def probe(_: Scene) -> Seen:
    return Seen("ok")


def declare(**more: Any) -> Check:
    fields: dict[str, Any] = {
        "id": "suite.name",
        "title": "t",
        "attack": "a",
        "expected": ("ESRCH",),
        "control": same_context("ok"),
        "probe": probe,
        **more,
    }
    return Check(**fields)


def test_all_checks_are_sound_and_claim_rows_that_exist() -> None:
    checks = catalogue.load()
    assert list(checks) == sorted(checks)
    assert "abi.version" in checks
    for found in checks.values():
        found.validate()
        assert found.title
        assert found.attack
    vectors.check_references(checks.values(), vectors.load())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"id": "name"}, "no identifier"),
        ({"id": "Suite.name"}, "no identifier"),
        ({"id": "suite.two words"}, "no identifier"),
        ({"expected": ()}, "could not fail"),
        ({"control": same_context(())}, "could not fail"),
        ({"expected": ("ok",)}, "proves nothing"),
        ({"expected": ("ENOSYS",), "control": kernel_without("ENOSYS")}, "proves nothing"),
        ({"not_on": {"vmware": "x"}}, "known one"),
        ({"not_on": {"uml": ""}}, "with a reason"),
        ({"seconds": 0}, "time limit"),
    ],
)
def test_a_check_that_cannot_be_right_is_refused(fields: dict[str, Any], why: str) -> None:
    declare().validate()
    with pytest.raises(CatalogueError, match=why):
        declare(**fields).validate()


def test_an_identifier_is_declared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_checks", {})
    words: dict[str, Any] = {"title": "t", "attack": "a", "expected": "x", "control": instead(probe, "ok", "as root")}
    check("suite.once", **words)(probe)
    with pytest.raises(CatalogueError, match="twice"):
        check("suite.once", **words)(probe)


def test_unproven_rows_are_those_that_no_check_claims() -> None:
    rows = vectors.load()
    assert len(rows) == 263
    assert rows["P07"].must_happen == "ESRCH"
    missing = vectors.unproven([declare(vectors=("P07", "P08"))], rows)
    assert len(missing) == len(rows) - 2
    assert "P07" not in {row.id for row in missing}
    with pytest.raises(CatalogueError, match="P99"):
        vectors.check_references([declare(vectors=("P99",))], rows)


def test_a_catalogue_that_names_a_row_twice_is_refused(tmp_path: Path) -> None:
    lines = (TOOLS / "cloison_verify" / "vectors.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vectors.csv").write_text("\n".join([*lines[:3], lines[1]]), encoding="utf-8")
    with pytest.raises(CatalogueError, match="twice"):
        vectors.load(tmp_path / "vectors.csv")


def test_the_machine_side_needs_nothing_but_the_standard_library() -> None:
    code = "import cloison_verify.runner, cloison_verify.catalogue as c; c.load()"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(TOOLS)!r}); {code}"]
    subprocess.run(command, check=True)
