# SPDX-License-Identifier: GPL-2.0-or-later
"""Which origin serves a request: order, stand-ins, locked, offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.source_fakes import kernel_tar, line_for, live_in, sha256

from cloison_forge.core.errors import BuildError, ExitStatus, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.source import cache, selection
from cloison_forge.source.api import FetchOptions, fetch
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError, UnreachableError
from cloison_forge.source.versions import belongs_to, candidates, newest_first, numbers, upstream

TAR = kernel_tar("6.12.7")
LINE = line_for("6.12.7", TAR)


@dataclass
class World:
    """Origins that offer the versions in `offers`, newest first; one that is missing there cannot be reached."""

    offers: dict[str, list[str]] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def fetcher(self, name: str) -> Callable[[Line, str], Origin]:
        def ask(line: Line, value: str) -> Origin:
            self.asked.append((name, value))
            if name in self.refuses:
                raise RefusedError(f"{name} is tampered with")
            if name not in self.offers:
                raise UnreachableError(f"{name} does not answer")
            pinned = line.package_version if name == "debian" else line.version
            for version in candidates(self.offers[name], line.name, pinned, value):
                return kept(name, version)
            raise NotOfferedError(f"{name} has no {value or pinned}", hint="it has others")

        return ask


def kept(name: str, version: str) -> Origin:
    """Put a tarball into the cache as an origin would."""
    reference = name == "debian" and version == LINE.package_version
    data = TAR if reference else f"{name} {version}".encode()
    tar = cache.folder(LINE, name) / f"{version}.tar"
    tar.parent.mkdir(parents=True, exist_ok=True)
    tar.write_bytes(data)
    package = version if name == "debian" else ""
    return cache.store(Origin(name, upstream(version), package, tar, sha256(data), {"origin": name}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    live_in(tmp_path, monkeypatch)
    made = World()
    monkeypatch.setattr(selection, "fetcher", made.fetcher)
    return made


def test_auto_takes_the_reference_and_says_so(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.offers = {"debian": ["6.12.9-1", "6.12.7-1"], "kernelorg": ["6.12.7"]}
    origin = fetch(LINE, FetchOptions())
    assert (origin.name, origin.package_version) == ("debian", "6.12.7-1")
    assert "instead_of" not in origin.provenance
    assert "debian: 6.12.7-1, the pinned reference" in capsys.readouterr().err
    assert world.asked == [("debian", "")]


def test_auto_needs_no_network_when_the_reference_is_cached(world: World) -> None:
    kept("debian", "6.12.7-1")
    for options in (FetchOptions(), FetchOptions(locked=True), FetchOptions(offline=True), FetchOptions("debian")):
        assert fetch(LINE, options).tar_sha256 == LINE.tar_sha256
    assert world.asked == []


@pytest.mark.parametrize("debian", [None, ["6.12.9-1"]])
def test_the_same_version_elsewhere_comes_before_another_version(
    world: World, capsys: pytest.CaptureFixture[str], debian: list[str] | None
) -> None:
    world.offers = {"kernelorg": ["6.12.9", "6.12.7"], "orig": ["6.12.7"]} | ({"debian": debian} if debian else {})
    origin = fetch(LINE, FetchOptions())
    assert (origin.name, origin.version) == ("kernelorg", "6.12.7")
    assert origin.provenance["instead_of"] == "6.12.7-1"
    told = [line for line in capsys.readouterr().err.splitlines() if "cannot be had" in line]
    assert len(told) == 1
    assert "taking 6.12.7 from kernelorg instead" in told[0]


def test_the_newest_of_the_line_stands_in_for_what_is_offered_no_more(world: World) -> None:
    world.offers = {"debian": ["6.13.1-1", "6.12.9-1", "6.12.8-1"], "kernelorg": ["6.12.10"]}
    origin = fetch(LINE, FetchOptions())
    assert (origin.name, origin.package_version) == ("debian", "6.12.9-1")
    assert origin.provenance["instead_of"] == "6.12.7-1"
    assert world.asked == [("debian", ""), ("kernelorg", ""), ("orig", ""), ("debian", "newest")]


def test_locked_refuses_a_stand_in(world: World) -> None:
    world.offers = {"debian": ["6.12.9-1"], "kernelorg": ["6.12.7"], "orig": ["6.12.7"]}
    with pytest.raises(UnreachableError, match=r"no origin gives linux-source-6\.12 6\.12\.7-1") as caught:
        fetch(LINE, FetchOptions(locked=True))
    assert "--locked" in caught.value.hint
    assert world.asked == [("debian", "")]
    with pytest.raises(NotOfferedError) as caught_too:
        fetch(LINE, FetchOptions("debian", locked=True))
    assert "--locked" in caught_too.value.hint
    with pytest.raises(NotOfferedError, match=r"--locked: debian --value 6\.12\.9-1 is 6\.12\.9-1"):
        fetch(LINE, FetchOptions("debian", "6.12.9-1", locked=True))
    assert fetch(LINE, FetchOptions("kernelorg", locked=True)).version == "6.12.7"


def test_what_is_tampered_with_ends_the_search(world: World) -> None:
    world.refuses = {"debian"}
    world.offers = {"kernelorg": ["6.12.7"]}
    with pytest.raises(RefusedError, match="debian is tampered with"):
        fetch(LINE, FetchOptions())
    assert world.asked == [("debian", "")]


def test_a_cut_network_names_every_origin_in_one_line(world: World) -> None:
    with pytest.raises(UnreachableError) as caught:
        fetch(LINE, FetchOptions())
    for name in selection.SERVED:
        assert f"{name} does not answer" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.status == ExitStatus.BUILD


def test_a_named_origin_falls_back_to_its_newest_unless_a_version_was_named(world: World) -> None:
    world.offers = {"orig": ["6.12.5", "6.12.4"]}
    assert fetch(LINE, FetchOptions("orig")).provenance["instead_of"] == "6.12.7"
    assert fetch(LINE, FetchOptions("orig", "newest")).version == "6.12.5"
    assert fetch(LINE, FetchOptions("orig", "6.12.4")).version == "6.12.4"
    with pytest.raises(NotOfferedError):
        fetch(LINE, FetchOptions("orig", "6.12.3"))


def test_offline_uses_the_cache_and_names_what_is_missing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BuildError, match=r"offline, .*not in the cache: linux-source-6\.12 6\.12\.7-1") as caught:
        fetch(LINE, FetchOptions(offline=True))
    assert "./invoke fetch once with a network" in caught.value.hint
    with pytest.raises(BuildError, match=r"not in the cache: git v6\.12\.8"):
        fetch(LINE, FetchOptions("git", "v6.12.8", offline=True))
    kept("orig", "6.12.9")
    kept("kernelorg", "6.12.10")
    kept("debian", "6.12.10-1")
    with pytest.raises(BuildError, match=r"not in the cache: orig 6\.12\.11"):
        fetch(LINE, FetchOptions("orig", "6.12.11", offline=True))
    with pytest.raises(BuildError, match="not in the cache"):
        fetch(LINE, FetchOptions(offline=True, locked=True))
    origin = fetch(LINE, FetchOptions(offline=True))
    assert (origin.name, origin.version) == ("debian", "6.12.10")
    assert origin.provenance["instead_of"] == "6.12.7-1"
    assert fetch(LINE, FetchOptions("orig", offline=True)).version == "6.12.9"
    assert "taking 6.12.9 from orig instead" in capsys.readouterr().err
    assert world.asked == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (FetchOptions("debain"), "no origin 'debain'"),
        (FetchOptions("auto", "6.12.9"), "auto takes no value"),
        (FetchOptions("local", "/x", locked=True), "cannot be --locked"),
        (FetchOptions("orig", "newest", locked=True), "cannot be --locked"),
    ],
)
def test_requests_that_make_no_sense_are_usage_errors(world: World, options: FetchOptions, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        fetch(LINE, options)
    assert caught.value.hint
    assert caught.value.status == ExitStatus.USAGE


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 99}', '{"schema": 1, "name": 7}', "[]"])
def test_a_damaged_record_does_not_count(world: World, damage: str) -> None:
    origin = kept("debian", "6.12.7-1")
    origin.tar.with_name(origin.tar.name + ".origin.json").write_text(damage, encoding="ascii")
    assert cache.cached(LINE) == []


def test_a_full_or_forbidden_cache_is_one_line(world: World, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="ascii")
    with pytest.raises(BuildError, match="the cache of kernel sources: ") as caught:
        fetch(LINE, FetchOptions())
    assert "\n" not in caught.value.message


def test_versions_are_read_and_ordered() -> None:
    assert upstream("2:6.12.7-1~deb12u1") == "6.12.7"
    assert upstream("6.12.7") == "6.12.7"
    assert [belongs_to(v, "6.1") for v in ("6.1", "6.1.3", "6.12", "6.1-rc1")] == [True, True, False, True]
    assert sorted(["6.12.10", "6.12", "6.12-rc2", "6.12.9"], key=numbers) == ["6.12-rc2", "6.12", "6.12.9", "6.12.10"]
    ordered = ["6.12.10-1", "6.12.9-1", "6.12.9-1~deb12u1", "6.12.9-1~bpo12+1"]
    assert newest_first(reversed(ordered)) == ordered
