# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments and profiles: what is read, what is refused, and that the refusal names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_forge.kconfig import fragments, profiles
from cloison_forge.kconfig.tree import modern_syntax


def test_values_and_places() -> None:
    text = '# words\nCONFIG_A=y\n# CONFIG_B is not set\n\nCONFIG_C="x y"\nCONFIG_D=0x1f\n'
    settings = fragments.parse(text, "f.config")
    assert [(s.symbol, s.value, s.place) for s in settings] == [
        ("A", "y", "f.config:2"),
        ("B", "n", "f.config:3"),
        ("C", '"x y"', "f.config:5"),
        ("D", "0x1f", "f.config:6"),
    ]
    assert fragments.read_config(fragments.render(settings)) == {"A": "y", "B": "n", "C": '"x y"', "D": "0x1f"}


@pytest.mark.parametrize("line", ["CONFIG_A", "CONFIG_A = y", "A=y", "CONFIG_A=yes", 'CONFIG_A="x', "CONFIG_A=y # why"])
def test_what_is_no_setting_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(UsageError, match=r"f\.config:2: not a setting"):
        fragments.parse(f"CONFIG_OK=y\n{line}\n", "f.config")


def test_contradiction_names_both_places() -> None:
    settings = fragments.parse("CONFIG_A=y\n", "one.config") + fragments.parse(
        "\n# CONFIG_A is not set\n", "two.config"
    )
    with pytest.raises(UsageError) as caught:
        fragments.merge(settings)
    assert "A is y at one.config:1 and n at two.config:2" in caught.value.message


def test_override_with_a_reason_replaces_and_the_same_value_twice_is_fine() -> None:
    settings = fragments.parse("CONFIG_A=y\nCONFIG_B=y\n", "one.config")
    settings += fragments.parse("# override: slower but exact\n# CONFIG_A is not set\nCONFIG_B=y\n", "two.config")
    merged = fragments.merge(settings)
    assert merged["A"].value == "n"
    assert merged["A"].override == "slower but exact"
    assert merged["B"].place == "two.config:3"


def test_waiver_speaks_of_the_next_setting_only_and_of_its_profiles() -> None:
    text = "# waiver(uml, x): not there\n# and more words\nCONFIG_A=y\nCONFIG_B=y\n# waiver: whatever\nCONFIG_C=y\n"
    first, second, third = fragments.parse(text, "f.config")
    assert first.waived_in(["uml"])
    assert first.waived_in(["x"])
    assert not first.waived_in(["vm"])
    assert not second.waived_in(["uml"])
    assert third.waived_in(["vm"])


@pytest.mark.parametrize("text", ["# waiver:\nCONFIG_A=y\n", "# waiver: why\n", "# override: why\n\nCONFIG_A=y\n"])
def test_waiver_without_reason_or_setting_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        fragments.parse(text, "f.config")


def test_misspelt_profile_gets_a_close_match() -> None:
    with pytest.raises(UsageError) as caught:
        profiles.get("ulm")
    assert "no profile 'ulm', did you mean uml?" in caught.value.message
    assert "vm" in caught.value.hint


def test_profile_files_with_mistakes_are_refused(tmp_path: Path) -> None:
    for text, message in (
        ("arch = ", "Invalid value"),
        ('arch = "vax"', "arch must be one of"),
        ('arch = "um"\nfragment = []', "unknown key 'fragment', did you mean fragments"),
        ('arch = "um"\nfragments = ["none.config"]', "no fragment none.config"),
        ('extends = "p"', "extends itself"),
    ):
        (tmp_path / "p.toml").write_text(text)
        with pytest.raises(UsageError, match=message):
            profiles.get("p", tmp_path)


def test_extended_profile_has_both_fragments(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_text("CONFIG_A=y\n")
    (tmp_path / "b.config").write_text("CONFIG_B=y\n")
    (tmp_path / "a.toml").write_text('arch = "um"\nfragments = ["a.config"]\n')
    (tmp_path / "c.config").write_text("CONFIG_C=y\n")
    (tmp_path / "b.toml").write_text('extends = "a"\nfragments = ["b.config"]\nfragments_on = ["c.config"]\n')
    profile = profiles.get("b", tmp_path)
    assert profile.arch == "um"
    assert list(profile.settings("absent", tmp_path)) == ["A", "B"]
    assert profile.lineage == ("b", "a")
    (tmp_path / "kconfig/variants").mkdir(parents=True)
    (tmp_path / "kconfig/variants/on.config").write_text("")
    (tmp_path / "kconfig/variants/off.config").write_text("")
    assert list(profile.settings("on", tmp_path)) == ["A", "B", "C"]
    assert list(profile.settings("off", tmp_path)) == ["A", "B"]


@pytest.mark.parametrize("name", profiles.names())
@pytest.mark.parametrize("variant", profiles.VARIANTS)
def test_the_projects_own_profiles_read_without_contradiction(name: str, variant: str) -> None:
    settings = profiles.get(name).settings(variant)
    if variant in profiles.WITHOUT_SERIES:
        assert "VSERVER" not in settings
    else:
        assert settings["VSERVER"].value in "yn"


def test_variants_of_small_profiles_differ_in_nothing_but_vserver() -> None:
    for name in ("uml", "vm"):
        on, off, absent, placebo = (
            {s.symbol: s.value for s in profiles.get(name).settings(v).values()} for v in profiles.VARIANTS
        )
        assert {k: v for k, v in on.items() if not k.startswith("VSERVER")} == absent
        assert {k: v for k, v in off.items() if not k.startswith("VSERVER")} == absent
        assert placebo == absent
        assert all(absent[s] == "y" for s in ("SECURITY", "SECURITY_NETWORK", "SECURITY_PATH"))


def test_keywords_that_kconfiglib_does_not_know_are_rewritten_only_as_whole_lines() -> None:
    text = "config M\n\tbool\n\tmodules\n\ttransitional\n\thelp\n\t  about modules\n"
    assert modern_syntax(text) == "config M\n\tbool\n\toption modules\n\n\thelp\n\t  about modules\n"


def test_the_variants_folder_is_the_projects() -> None:
    assert {path.stem for path in (project().kconfig / "variants").glob("*.config")} == {"on", "off"}
