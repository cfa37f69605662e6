# SPDX-License-Identifier: GPL-2.0-or-later
"""The feature catalogue, the series and the docs say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloison_forge.core import lines
from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import Project, project
from cloison_forge.kconfig import catalogue, profiles
from cloison_forge.series.reading import Patch, read


def patches(line: str) -> tuple[Patch, ...]:
    return tuple(read(project().patches / lines.get(line).series).patches)


@pytest.mark.parametrize("line", lines.load())
def test_series_contains_what_the_catalogue_renders(line: str) -> None:
    wrong = catalogue.check(catalogue.load(), patches(line))
    assert not wrong, "\n".join(wrong)


def test_docs_table_is_what_the_catalogue_renders() -> None:
    text = (project().root / "docs" / "features.md").read_text()
    assert text == catalogue.docs_text(catalogue.load()), "run ./invoke kconfig.features"


def test_vserver_selects_the_call_points() -> None:
    (vserver,) = (feature for feature in catalogue.load() if feature.symbol == "VSERVER")
    assert {target.split()[0] for target in vserver.select} >= {"SECURITY", "SECURITY_NETWORK", "SECURITY_PATH"}


def test_symbols_in_profiles_and_variants_are_in_the_catalogue() -> None:
    known = {feature.symbol for feature in catalogue.load()}
    for name in profiles.names():
        asked = {symbol for symbol in profiles.get(name).settings("on") if symbol.startswith("VSERVER")}
        assert asked <= known


def test_a_difference_of_one_word_is_found() -> None:
    features = catalogue.load()
    changed = [replace(features[0], prompt="Something else"), *features[1:]]
    (wrong,) = catalogue.check(changed, patches("6.12"))
    assert '-\tbool "Context isolation (vserver)"' in wrong
    assert '+\tbool "Something else"' in wrong


def test_symbols_and_patches_that_do_not_match_are_found() -> None:
    features = catalogue.load()
    future = replace(features[0], symbol="VSERVER_FUTURE", patch="common/none.patch")
    moved = replace(features[1], patch="common/none.patch")
    text = "\n".join(catalogue.check([features[0], future, moved], patches("6.12")))
    assert "VSERVER_FUTURE: no patch of the series introduces it" in text
    assert f"{moved.symbol}: {features[1].patch} introduces it, not common/none.patch" in text
    assert f"{features[2].symbol}: {features[2].patch} introduces it, the catalogue does not know it" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "features.toml"),
        ('[[feature]]\nsymbol = "A"\n', "A: prompt is missing"),
        ('[[feature]]\nsymbol = "A"\npromt = "x"\n', "A: unknown key 'promt', did you mean prompt"),
        (
            '[[feature]]\nsymbol="A"\nprompt="a"\nhelp="h"\npatch="p"\nsummary="s"\naudience="cats"\n',
            "audience is one of",
        ),
        (
            f'[[feature]]\nsymbol="A"\nprompt="a"\nhelp="{"h" * 90}"\npatch="p"\nsummary="s"\naudience="users"\n',
            "longer than",
        ),
    ],
)
def test_mistakes_in_the_catalogue_end_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "features.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        catalogue.load(file)


def test_write_brings_docs_and_open_work_areas_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    area = tmp_path / "build/6.12/edit" / catalogue.KCONFIG
    area.parent.mkdir(parents=True)
    area.write_text("old\n")
    place = Project(root=tmp_path, cache=tmp_path / "cache")
    features = catalogue.load()
    assert catalogue.write(features, place) == [tmp_path / "docs/features.md", area]
    assert area.read_text() == catalogue.kconfig_text(features)
    assert catalogue.write(features, place) == []
