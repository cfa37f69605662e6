# SPDX-License-Identifier: GPL-2.0-or-later
"""mmdebstrap as seen from outside: what it is asked, and what becomes of its failures."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloison_forge.core.errors import BuildError, ForgeError, ToolMissingError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.image import ext4, lockfile, packages, recipe, rootfs
from cloison_forge.image.lockfile import Package

PLAN = recipe.load()
REAL = Path(__file__).resolve().parents[2] / "images"


class Place:
    """A checkout with one pinned package whose file is in the cache, and an mmdebstrap that does what `script` says."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.cache, self.programs = tmp_path / "root", tmp_path / "cache", tmp_path / "programs"
        (self.root / "images").mkdir(parents=True)
        self.programs.mkdir()
        (self.root / "images" / "finish-root.sh").write_bytes((REAL / "finish-root.sh").read_bytes())
        monkeypatch.setattr(rootfs, "project", lambda: Project(root=self.root, cache=self.cache))
        monkeypatch.setattr(rootfs, "mode", lambda: "fakechroot")
        monkeypatch.setattr(packages, "covers", lambda *_: [])
        monkeypatch.setenv("PATH", f"{self.programs}:/usr/bin:/bin:/usr/sbin:/sbin")
        self.deb()

    def deb(self) -> None:
        control = self.root / "tree" / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        text = "Package: tool\nVersion: 1:1.0\nArchitecture: all\nMaintainer: T <t@example.test>\nDescription: test\n"
        control.write_text(text, encoding="utf-8")
        deb = self.root / "tool.deb"
        subprocess.run(["dpkg-deb", "-b", control.parents[1], deb], check=True, capture_output=True)
        data = deb.read_bytes()
        self.package = Package("tool", "1:1.0", "all", len(data), hashlib.sha256(data).hexdigest())
        lockfile.write(self.root / "images" / "host.lock", [self.package])
        store = packages.Store(self.cache / "rootfs")
        store.debs.mkdir(parents=True)
        store.path(self.package).write_bytes(data)

    def mmdebstrap(self, script: str) -> None:
        path = self.programs / "mmdebstrap"
        path.write_text(f"#!/bin/sh\nfor last; do target=$source; source=$last; done\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.cache / "rootfs").glob("*.tar*")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


GOOD = """
folder=${source##*copy:}; folder=${folder%% *}
{ echo "$SOURCE_DATE_EPOCH"; ls "$folder"; cat "$folder/Packages"; printf '%s\\n' "$@"; } > "$target"
"""


def test_it_gets_exactly_the_verified_packages(place: Place) -> None:
    place.mmdebstrap(GOOD)
    tar = rootfs.ensure(PLAN, offline=True)
    said = tar.path.read_text(encoding="utf-8").splitlines()
    assert said[:3] == [str(PLAN.root.epoch), "Packages", "tool_1_1.0_all.deb"]
    assert f"SHA256: {place.package.sha256}" in said
    assert "--mode=fakechroot" in said
    assert f"--include={','.join(PLAN.root.packages)}" in said
    assert rootfs.ensure(PLAN, offline=True, locked=True) == tar


def test_the_tar_is_made_once(place: Place) -> None:
    place.mmdebstrap(GOOD)
    rootfs.ensure(PLAN, offline=True)
    place.mmdebstrap("exit 1")
    rootfs.ensure(PLAN, offline=True)


def test_a_failure_is_one_line_and_leaves_no_tar(place: Place) -> None:
    place.mmdebstrap("echo half > $target; echo 'I: going'; echo 'E: setup failed: no such thing'; exit 25")
    with pytest.raises(BuildError, match=r"^mmdebstrap failed: setup failed: no such thing$") as caught:
        rootfs.ensure(PLAN, offline=True)
    assert "mmdebstrap.log" in caught.value.hint
    assert place.leftovers() == []
    place.mmdebstrap(GOOD)
    rootfs.ensure(PLAN, offline=True)


def test_a_disk_that_fills_up_is_one_line(place: Place) -> None:
    place.mmdebstrap("echo 'dpkg: error: failed to write: No space left on device'; exit 1")
    with pytest.raises(BuildError, match="root file system: no space left on the disk of"):
        rootfs.ensure(PLAN, offline=True)


def test_a_full_disk_is_told_before_it_starts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mmdebstrap("exit 99")
    monkeypatch.setattr(rootfs, "free_bytes", lambda _: 10**6)
    with pytest.raises(BuildError, match="needs 900 MB: no space left"):
        rootfs.ensure(PLAN, offline=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_is_mounted_is_never_walked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "left"
    (tree / "proc").mkdir(parents=True)
    script = f"mount -t tmpfs none {tree}/proc && touch {tree}/proc/precious && {sys.executable} -c "
    code = f"from pathlib import Path; from cloison_forge.image.ext4 import remove_tree; remove_tree(Path('{tree}'))"
    words = ["unshare", "--mount", "sh", "-c", f'{script} "{code}" && ls {tree}/proc']
    tools = Path(__file__).resolve().parents[2] / "tools"
    result = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tools)})
    if "mount:" in result.stderr or "unshare:" in result.stderr:
        pytest.skip("this root may not mount")
    assert result.stdout == "precious\n"
    assert "something is mounted below it" in result.stderr
    ext4.remove_tree(tree)
    assert not tree.exists()


def test_as_root_mounts_and_processes_are_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def record(words: Sequence[str], *_: object) -> None:
        seen.append(tuple(words))

    monkeypatch.setattr(rootfs, "mode", lambda: "root")
    monkeypatch.setattr(rootfs, "_mmdebstrap", record)
    place.mmdebstrap("exit 1")
    rootfs.ensure(PLAN, offline=True)
    before = seen[0][: seen[0].index("mmdebstrap")]
    assert {"--mount", "--pid", "--kill-child", "--pdeathsig"} <= set(before)


def test_a_missing_mmdebstrap_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloison_forge.core.run.shutil.which", lambda name, **_: None)
    with pytest.raises(ToolMissingError, match="mmdebstrap is not installed"):
        rootfs.ensure(PLAN, offline=True)


def test_a_changed_cache_file_is_not_used_offline(place: Place) -> None:
    place.mmdebstrap(GOOD)
    path = packages.Store(place.cache / "rootfs").path(place.package)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(BuildError, match=r"offline, and the cache lacks 1 of the image's packages: tool 1:1\.0"):
        rootfs.ensure(PLAN, offline=True)


def test_another_architecture_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mmdebstrap(GOOD)
    native = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout
    dpkg = place.programs / "dpkg"
    dpkg.write_text("#!/bin/sh\necho s390x\n", encoding="utf-8")
    dpkg.chmod(0o755)
    with pytest.raises(UsageError, match=f"the host image is {native.strip()}, this machine s390x"):
        rootfs.ensure(PLAN, offline=True)


def test_two_at_once_make_it_once(place: Place) -> None:
    place.mmdebstrap(f"sleep 1; echo run >> {place.root}/runs\n{GOOD}")
    failures: list[ForgeError] = []

    def work() -> None:
        try:
            rootfs.ensure(PLAN, offline=True)
        except ForgeError as error:  # pragma: no cover
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert failures == []
    assert (place.root / "runs").read_text(encoding="utf-8") == "run\n"


def test_only_a_few_old_tars_are_kept(place: Place) -> None:
    (place.cache / "rootfs" / f"{rootfs.WORK}-killed" / "tree").mkdir(parents=True)
    (place.cache / "rootfs" / ".x.tar.killed").touch()
    for number in range(6):
        (place.cache / "rootfs" / f"{number}.tar").touch()
    place.mmdebstrap(GOOD)
    tar = rootfs.ensure(PLAN, offline=True)
    assert len(place.leftovers()) == rootfs.KEEP
    assert not list((place.cache / "rootfs").glob("*killed"))
    assert tar.path.name in place.leftovers()
