# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipe, the lock list and the choice of mirrors: what is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison_forge.core.errors import UsageError
from cloison_forge.core.paths import project
from cloison_forge.image import lockfile, packages, recipe, sources
from cloison_forge.image.lockfile import Package


def package(name: str, version: str = "1.0-1", sha: str = "a") -> Package:
    return Package(name, version, "amd64", 10, sha * 64)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (project().images / "host.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "host.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_the_projects_recipe_and_pins_fit_together() -> None:
    plan = recipe.load()
    pinned = lockfile.read(project().images / "host.lock")
    assert packages.covers(plan.root, pinned) == []
    assert {"python3", "libc6", "systemd"} <= {entry.name for entry in pinned}


def test_the_pins_name_no_host() -> None:
    text = (project().images / "host.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "debian.org" not in text


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"python3",', '"Python 3",', "'Python 3' is no name of a Debian package"),
        ("free_mib = 512", "free_mib = true", "root.free_mib is not a proper int"),
        ("free_mib = 512", "", "[root] lacks the setting 'free_mib'"),
        ("free_mib = 512", "free_mib = 512\nsiez = 1", "[root] has no setting 'siez'"),
        ("[disk]", "[disc]", "table [disk] is missing"),
        ("393dd0dc-af22", "393dd0dc", "is no UUID"),
        ("epoch = 1767225600", "epoch = 0", "before 1980"),
        ('"C1015040"', '"c101504"', "eight upper-case hexadecimal digits"),
        ("esp_mib = 128", "esp_mib = 8", "at least 34"),
        ('label = "cloison-root"', 'label = "a-label-far-too-long"', "longer than ext4's"),
        ("[root]", "[root", "host.toml"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load(changed(tmp_path, old, new))
    assert complaint in caught.value.message
    assert "\n" not in caught.value.message.strip()


def test_a_lock_list_survives_writing_and_reading(tmp_path: Path) -> None:
    pinned = [package("zlib1g", "1:1.2.13.dfsg-1"), package("bash")]
    lockfile.write(tmp_path / "x.lock", pinned)
    assert lockfile.read(tmp_path / "x.lock") == sorted(pinned)
    assert package("zlib1g", "1:1.2.13.dfsg-1").file == "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb"


@pytest.mark.parametrize(
    "line", ["bash 5.2 amd64 10", f"bash 5.2 amd64 ten {'a' * 64}", f"bash 5.2 amd64 10 {'A' * 64}", "<<<<<<< HEAD"]
)
def test_a_broken_lock_list_names_the_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"host\.lock:2: "):
        lockfile.parse(f"# comment\n{line}\n", "host.lock")


def test_a_package_pinned_twice_is_refused() -> None:
    text = f"{package('bash').line}\n{package('bash', '2').line}\n"
    with pytest.raises(UsageError, match="bash is pinned twice"):
        lockfile.parse(text, "host.lock")


def test_differences_name_each_package() -> None:
    old = [package("bash", "1"), package("gone"), package("same"), package("swapped")]
    new = [package("bash", "2"), package("fresh"), package("same"), package("swapped", sha="b")]
    assert lockfile.differences(old, new) == [
        "bash 2 instead of 1",
        "fresh 1.0-1 not pinned",
        "gone no longer needed",
        "swapped 1.0-1 with another content",
    ]


ONE_LINE = """\
deb [arch=amd64 signed-by=/x.gpg] http://mirror.test/debian bookworm main contrib # usual
deb http://mirror.test/security bookworm-security main
deb http://mirror.test/debian bookworm-backports main
deb http://vendor.test/apt bookworm stable
# deb http://off.test/debian bookworm main
"""
DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://a.test/debian
  http://b.test/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/x.gpg

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: trixie
Components: main
"""


def test_mirrors_are_read_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE, encoding="utf-8")
    (tmp_path / "sources.list.d" / "d.sources").write_text(DEB822, encoding="utf-8")
    found = sources.mirrors(tmp_path)
    assert sources.for_suite(found, "bookworm", "bookworm") == [
        sources.Mirror("http://mirror.test/debian", "bookworm"),
        sources.Mirror("http://mirror.test/security", "bookworm-security"),
    ]
    assert sources.for_suite(found, "trixie", "bookworm")[-1] == sources.Mirror(
        "http://b.test/debian", "bookworm-updates"
    )
    assert not [mirror for mirror in found if "off.test" in mirror.uri]


def test_no_mirror_is_one_line_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://vendor.test/apt noble universe\n", encoding="utf-8")
    with pytest.raises(UsageError, match="names no Debian mirror") as caught:
        sources.private_apt(tmp_path / "apt", "bookworm", machine=tmp_path, own="noble")
    assert caught.value.hint


def test_the_private_apt_sees_debian_only(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE, encoding="utf-8")
    sources.private_apt(tmp_path / "apt", "bookworm", machine=tmp_path, own="bookworm").prepare()
    text = (tmp_path / "apt" / "etc" / "sources.list.d" / "debian.sources").read_text(encoding="utf-8")
    assert text.count("URIs:") == 2
    assert "vendor" not in text
    assert "trusted" not in text.lower()
