# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins and reality, against a real apt and a repository signed with a throwaway key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.image_fakes import Repository

from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.image import packages, recipe
from cloison_forge.image.lockfile import Package
from cloison_forge.image.packages import Store
from cloison_forge.source.apt import PrivateApt

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("gpg", "apt-get", "dpkg-deb"))), reason="needs gpg, apt and dpkg-deb"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Give a repository to copy: making its key takes longer than all the rest."""
    made = Repository(tmp_path_factory.mktemp("pristine") / "repository")
    made.add("base", "1.0", essential=True)
    made.add("tool", "1.0", depends="library")
    made.add("library", "1:2.0")
    made.publish()
    yield made
    made.close()


class Place:
    """One test's repository, apt, cache and recipe."""

    def __init__(self, pristine: Repository, folder: Path) -> None:
        self.folder = folder
        self.repository = Repository.copy(pristine, folder / "repository")
        self.store = Store(folder / "cache")
        self.recipe = replace(recipe.load().root, packages=("tool",))

    def apt(self) -> PrivateApt:
        for stale in (self.folder / "cache" / "apt" / "cache").glob("*.bin"):
            stale.unlink()  # apt tells indexes apart by size and second: too coarse for a test
        return PrivateApt(self.folder / "cache" / "apt", machine=self.repository.machine(self.folder / "etc"))

    def pins(self) -> list[Package]:
        apt = self.apt()
        apt.update()
        return packages.resolve(self.recipe, [], apt)

    def ensure(self, pinned: list[Package], *, offline: bool = False, locked: bool = False) -> packages.Chosen:
        return packages.ensure(self.recipe, pinned, self.store, self.apt(), offline=offline, locked=locked)

    def renew(self) -> None:
        self.repository.add("library", "1:2.1", note="newer")
        self.repository.publish()


@pytest.fixture
def place(pristine: Repository, tmp_path: Path) -> Place:
    return Place(pristine, tmp_path)


def test_the_whole_closure_is_pinned_with_its_hashes(place: Place) -> None:
    pinned = place.pins()
    assert [(entry.name, entry.version) for entry in pinned] == [("base", "1.0"), ("library", "1:2.0"), ("tool", "1.0")]
    chosen = place.ensure(pinned)
    assert chosen.differences == ()
    assert place.store.missing(pinned) == []
    assert place.ensure(pinned, offline=True) == chosen


def test_offline_and_cold_names_what_is_missing(place: Place) -> None:
    pinned = place.pins()
    with pytest.raises(
        BuildError, match=r"offline, and the cache lacks 3 of the image's packages: base 1\.0, library 1:2\.0"
    ):
        place.ensure(pinned, offline=True)


def test_a_pin_that_is_offered_no_more_is_replaced_named_and_remembered(place: Place) -> None:
    pinned = place.pins()
    place.renew()
    with pytest.raises(BuildError, match=r"no longer offers library 1:2\.0, and --locked"):
        place.ensure(pinned, locked=True)
    chosen = place.ensure(pinned)
    assert chosen.differences == ("library 1:2.1 instead of 1:2.0",)
    assert [entry.version for entry in chosen.packages] == ["1.0", "1:2.1", "1.0"]
    assert packages.choose(place.recipe, pinned, place.store) == chosen
    assert place.ensure(pinned, offline=True) == chosen


def test_a_pin_that_is_still_in_the_cache_is_taken(place: Place) -> None:
    pinned = place.pins()
    place.ensure(pinned)
    place.renew()
    assert place.ensure(pinned).differences == ()
    assert place.ensure(pinned, locked=True).differences == ()


def test_a_damaged_file_in_the_cache_is_fetched_again(place: Place) -> None:
    pinned = place.pins()
    place.ensure(pinned)
    place.store.path(pinned[0]).write_bytes(b"x" * pinned[0].size)
    assert place.ensure(pinned).differences == ()
    assert place.store.missing(pinned) == []


def test_another_content_under_a_pinned_version_is_refused(place: Place) -> None:
    pinned = place.pins()
    forged = [replace(entry, sha256="0" * 64) if entry.name == "library" else entry for entry in pinned]
    with pytest.raises(BuildError, match=r"library 1:2\.0 is refused: the mirror's SHA-256 is not the pinned one"):
        place.ensure(forged)


def test_a_misspelt_package_is_one_line(place: Place) -> None:
    pinned = place.pins()
    place.recipe = replace(place.recipe, packages=("tool", "libary"))
    with pytest.raises(UsageError, match="Debian bookworm has no package 'libary'") as caught:
        place.ensure(pinned)
    assert "images/*.toml" in caught.value.hint


def test_a_package_that_the_pins_do_not_hold_is_added_or_refused(place: Place) -> None:
    pinned = place.pins()
    place.repository.add("extra", "3")
    place.repository.publish()
    place.recipe = replace(place.recipe, packages=("extra", "tool"))
    with pytest.raises(UsageError, match="the pins do not hold extra"):
        place.ensure(pinned, locked=True)
    assert place.ensure(pinned).differences == ("extra 3 not pinned",)


def test_what_does_not_fit_together_is_one_line(place: Place) -> None:
    place.repository.add("tool", "2.0", depends="library (>= 1:9)")
    place.repository.publish()
    apt = place.apt()
    apt.update()
    with pytest.raises(BuildError, match="no set of packages that fits together") as caught:
        packages.resolve(place.recipe, [], apt)
    assert "\n" not in caught.value.message


def test_a_mirror_that_lost_a_file_is_one_line(place: Place) -> None:
    pinned = place.pins()
    for path in (place.repository.folder / "pool").glob("library*"):
        path.unlink()
    with pytest.raises(BuildError, match="cannot be downloaded") as caught:
        place.ensure(pinned)
    assert "\n" not in caught.value.message


def test_a_file_that_was_tampered_with_is_never_taken_in(place: Place) -> None:
    pinned = place.pins()
    (deb,) = (place.repository.folder / "pool").glob("library*")
    deb.write_bytes(bytes(deb.stat().st_size))
    with pytest.raises(BuildError):
        place.ensure(pinned)
    assert not place.store.path(next(entry for entry in pinned if entry.name == "library")).exists()
