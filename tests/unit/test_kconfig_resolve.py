# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to an audited configuration, on a small kernel tree: what is lost is named with its reason."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernel_fakes import FakeTree, checkout, line, make_tree, write_profile

from cloison_forge.core.errors import BuildError, CheckError, UsageError
from cloison_forge.core.paths import project
from cloison_forge.kconfig import api
from cloison_forge.kconfig.distro import distro_config


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    distro_config.cache_clear()
    yield checkout(tmp_path, monkeypatch)
    project.cache_clear()
    distro_config.cache_clear()


@pytest.fixture
def tree(root: Path) -> FakeTree:
    return make_tree(root / "build" / "6.12" / "source")


def configure(tree: FakeTree, variant: str = "on", profile: str = "vm") -> api.Configured:
    return api.configure(line(), tree, profile, variant)


def failure(tree: FakeTree, variant: str = "on") -> str:
    with pytest.raises((BuildError, UsageError)) as caught:
        configure(tree, variant)
    assert "Traceback" not in caught.value.message
    return caught.value.message


def test_request_comes_out_and_the_rest_is_off(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment='CONFIG_NET=y\nCONFIG_LOCALVERSION="-x"\nCONFIG_COUNT=4\nCONFIG_MODE_B=y\n')
    text = configure(tree).path.read_text()
    for wanted in ("CONFIG_NET=y", 'CONFIG_LOCALVERSION="-x"', "CONFIG_COUNT=4", "CONFIG_VSERVER=y"):
        assert f"{wanted}\n" in text
    assert "# CONFIG_INET is not set" in text
    assert "# from kconfig/profiles/vm.config:1" in (root / "build/6.12/kconfig/vm/request.config").read_text()


def test_variants_lie_apart_and_differ_in_vserver(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="CONFIG_NET=y\nCONFIG_SECURITY=y\n")
    on, off, absent = (configure(tree, v).path for v in ("on", "off", "absent"))
    assert [p.parent.name for p in (on, off, absent)] == ["vm", "vm-off", "vm-absent"]
    assert set(on.read_text().splitlines()) ^ set(off.read_text().splitlines()) == {
        "CONFIG_VSERVER=y",
        "# CONFIG_VSERVER is not set",
    }


def test_only_variants_that_differ_in_vserver_alone_may_be_compared(root: Path, tree: FakeTree) -> None:
    fragment = write_profile(root, fragment="CONFIG_NET=y\nCONFIG_SECURITY=y\n")
    api.require_comparable(*(configure(tree, variant) for variant in ("on", "off", "absent")))
    fragment.write_text("CONFIG_NET=y\n")  # now only VSERVER selects it
    on, off = (configure(tree, variant) for variant in ("on", "off"))
    with pytest.raises(CheckError, match="variants on and off of vm differ in more than VSERVER: SECURITY"):
        api.require_comparable(on, off)


def test_lost_option_names_its_need_with_value_and_both_places(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="# CONFIG_NET is not set\nCONFIG_INET=y\n")
    assert (
        "INET lost: needs NET, which is n, set at kconfig/profiles/vm.config:1; set at kconfig/profiles/vm.config:2"
        in failure(tree)
    )


def test_lost_option_names_an_unmet_alternative(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="CONFIG_NET=y\nCONFIG_NETFILTER=y\n")
    assert "NETFILTER lost: needs INET || EXPERT (EXPERT is n, INET is n)" in failure(tree)


def test_other_losses_have_their_reasons(root: Path, tree: FakeTree) -> None:
    write_profile(
        root,
        fragment="CONFIG_NET=y\nCONFIG_QUIET=y\nCONFIG_NF_CORE=y\nCONFIG_FORCER=y\n# CONFIG_SECURITY is not set\n"
        "CONFIG_COUNT=99\nCONFIG_MODE_A=y\n# CONFIG_MODE_B is not set\n",
    )
    text = failure(tree)
    assert "QUIET lost: needs NET off, which is y, set at kconfig/profiles/vm.config:1" in text
    assert "NF_CORE lost: it has no prompt" in text
    assert "SECURITY is y although it is to be off: selected by FORCER (set at kconfig/profiles/vm.config:4)" in text
    assert "COUNT" in text
    assert "its range is 1 to 8" in text
    assert "MODE" not in text


def test_the_member_of_a_choice_that_was_not_taken_is_explained(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="CONFIG_MODE_A=y\nCONFIG_MODE_B=y\n")
    assert "MODE_A lost: the choice fell on MODE_B (set at kconfig/profiles/vm.config:2)" in failure(tree)


def test_waiver_lets_a_loss_pass_and_records_it(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="# waiver: the fake has no network\nCONFIG_INET=y\n")
    audit = json.loads(configure(tree).audit.read_text())
    assert audit["losses"] == []
    assert audit["waived"][0]["symbol"] == "INET"
    assert audit["waived"][0]["waiver"] == "the fake has no network"
    assert "needs NET" in audit["waived"][0]["reason"]


def test_waiver_of_another_profile_does_not_count(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="# waiver(uml): not there\nCONFIG_INET=y\n")
    assert "INET lost" in failure(tree)


def test_misspelt_symbol_is_refused_even_when_asked_off(root: Path, tree: FakeTree) -> None:
    for text in ("CONFIG_NETFLITER=y\n", "# CONFIG_NETFLITER is not set\n"):
        write_profile(root, fragment=text)
        assert "NETFLITER at kconfig/profiles/vm.config:1, did you mean NETFILTER?" in failure(tree)


def test_series_without_the_option_is_named(root: Path, tree: FakeTree) -> None:
    write_profile(root)
    (tree.path / "kernel/vserver/Kconfig").write_text("")
    assert "VSERVER at kconfig/variants/on.config:1" in failure(tree)
    assert configure(tree, "absent").path.is_file()


def test_contradictory_fragments_are_refused(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="CONFIG_NET=y\n# CONFIG_NET is not set\n")
    assert "NET is y at kconfig/profiles/vm.config:1 and n at kconfig/profiles/vm.config:2" in failure(tree)


def test_failed_audit_leaves_the_good_configuration_alone_and_the_next_run_succeeds(root: Path, tree: FakeTree) -> None:
    fragment = write_profile(root)
    good = configure(tree)
    fragment.write_text("CONFIG_INET=y\n")
    failure(tree)
    assert good.path.read_text().count("CONFIG_NET=y") == 1
    assert api.rejected(good.path.parent).is_file()
    fragment.write_text("CONFIG_NET=y\nCONFIG_INET=y\n")
    assert "CONFIG_INET=y" in configure(tree).path.read_text()
    assert not api.rejected(good.path.parent).exists()


def test_nothing_to_do_starts_no_program(root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(root)
    first = configure(tree)
    monkeypatch.setattr(api, "_make", lambda *_: pytest.fail("resolved again"))
    assert configure(tree) == first


def test_change_outside_kconfig_does_not_resolve_and_a_change_inside_does(
    root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(root)
    configure(tree)
    made: list[str] = []
    original = api._make

    def counted(*arguments: object) -> None:
        made.append("again")
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "_make", counted)
    tree.key = "tree-2"
    configure(tree)
    assert made == []
    (tree.path / "kernel/vserver/Kconfig").write_text('config VSERVER\n\tbool "other"\n')
    tree.key = "tree-3"
    configure(tree)
    assert made == ["again"]


def test_olddefconfig_on_top_of_the_distributions_file(
    root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = root / "debian.config"
    base.write_text("CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_COUNT=7\n")
    monkeypatch.setenv("CLOISON_DISTRO_CONFIG", str(base))
    write_profile(root, fragment="# CONFIG_INET is not set\n", base="distro")
    text = configure(tree).path.read_text()
    assert "CONFIG_COUNT=7" in text
    assert "CONFIG_NET=y" in text
    assert "# CONFIG_INET is not set" in text
    assert os.environ.get("KCONFIG_CONFIG") is None


def test_what_the_base_loses_is_recorded(root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "debian.config"
    base.write_text("CONFIG_INET=y\nCONFIG_COUNT=7\n")
    monkeypatch.setenv("CLOISON_DISTRO_CONFIG", str(base))
    write_profile(root, fragment="# CONFIG_NET is not set\n", base="distro")
    assert json.loads(configure(tree).audit.read_text())["base_changes"] == ["INET: y became n"]


def test_explain_tells_value_place_needs_and_selectors(
    root: Path, tree: FakeTree, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile(root, fragment="CONFIG_NET=y\nCONFIG_FORCER=y\n")
    found = api.explain(line(), tree, "vm", "CONFIG_SECURITY", json="-")
    answer = json.loads(capsys.readouterr().out)
    assert answer["value"] == "y"
    assert answer["asked"] == ""
    assert set(answer["selectors"]) == {"FORCER", "VSERVER"}
    assert "FORCER (set at kconfig/profiles/vm.config:2)" in found.selected_by
    inet = api.explain(line(), tree, "vm", "inet")
    assert inet.value == "n"
    assert [(need.expression, need.value) for need in inet.needs] == [("NET", "y")]
    assert "NET is y, set at kconfig/profiles/vm.config:1" in inet.text
    assert "Kconfig:" in inet.defined_at[0]


def test_explain_works_on_a_configuration_that_failed(root: Path, tree: FakeTree) -> None:
    write_profile(root, fragment="CONFIG_INET=y\n")
    found = api.explain(line(), tree, "vm", "INET")
    assert found.reason == "needs NET, which is n"
    assert "✗ NET = n" in found.text


def test_explain_of_a_misspelt_symbol_has_close_matches(root: Path, tree: FakeTree) -> None:
    write_profile(root)
    with pytest.raises(UsageError, match="no symbol 'NETFLITER' in this kernel, did you mean NETFILTER"):
        api.explain(line(), tree, "vm", "NETFLITER")
