# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel builds on a small tree with the real make, compiler and compiler cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.kernel_fakes import FakeTree, checkout, line, make_tree, write_profile

from cloison_forge.core.errors import CommandError
from cloison_forge.core.paths import project
from cloison_forge.kconfig import api as kconfig
from cloison_forge.kernel import api
from cloison_forge.kernel.progress import Follower, Totals, is_object, planned

pytestmark = pytest.mark.skipif(not shutil.which("ccache"), reason="needs ccache")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield checkout(tmp_path, monkeypatch)
    project.cache_clear()


@pytest.fixture
def tree(root: Path) -> FakeTree:
    write_profile(root)
    return make_tree(root / "build" / "6.12" / "source")


def build(tree: FakeTree, variant: str = "on") -> api.Kernel:
    configured = kconfig.configure(line(), tree, "vm", variant)
    return api.build(line(), tree, configured, jobs=2)


def test_kernel_lies_with_its_provenance(root: Path, tree: FakeTree) -> None:
    kernel = build(tree)
    assert kernel.image == root / "build/6.12/kernel/vm/artifacts/bzImage"
    assert kernel.image.stat().st_mode & 0o111
    assert kernel.release == "6.12.1-test"
    assert (kernel.arch, kernel.variant, kernel.profile) == ("x86_64", "on", "vm")
    assert "CONFIG_NET=y" in kernel.config.read_text()
    assert kernel.symbols.stat().st_size > 0
    said = json.loads(kernel.provenance_path.read_text())
    assert said == kernel.provenance
    assert said["image_sha256"] == kernel.key
    assert said["series"]["patches"] == ["fake.patch"]
    assert "gcc" in said["compiler"]
    assert str(root) not in json.dumps(said)


def test_nothing_to_do_calls_no_make(tree: FakeTree) -> None:
    first = build(tree)
    calls = len(tree.calls)
    assert build(tree) == first
    assert len(tree.calls) == calls


@pytest.mark.parametrize("name", ["bzImage", "provenance.json", "config"])
def test_an_artifact_that_was_removed_comes_back(tree: FakeTree, name: str) -> None:
    first = build(tree)
    first.image.with_name(name).unlink()
    assert build(tree) == first
    assert first.image.with_name(name).is_file()


def test_a_changed_file_is_compiled_and_only_that(tree: FakeTree, capfd: pytest.CaptureFixture[str]) -> None:
    first = build(tree)
    time.sleep(0.01)
    (tree.path / "main.c").write_text("int main(void) { return 1; }\n")
    tree.key = "tree-2"
    capfd.readouterr()
    second = build(tree)
    assert "1 objects compiled" in capfd.readouterr().err
    assert second.key != first.key


def test_the_same_inputs_give_the_same_bytes_elsewhere(
    root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tree)
    other = root / "quite" / "another" / "place"
    monkeypatch.setenv("CLOISON_BUILD", str(other))
    monkeypatch.setenv("KCPPFLAGS", "-DOF_THE_USER")  # the user's shell has no say
    monkeypatch.setenv("MAKEFLAGS", "-n")
    copy = make_tree(other / "6.12" / "source")
    second = build(copy)
    assert second.image != first.image
    assert second.image.read_bytes() == first.image.read_bytes()
    assert str(root).encode() not in second.image.read_bytes()
    stats = subprocess.run(
        ["ccache", "--print-stats"], env={**os.environ, "CCACHE_DIR": str(project().ccache)}, capture_output=True
    )
    hits = dict(row.split("\t") for row in stats.stdout.decode().splitlines())
    assert int(hits["direct_cache_hit"]) == 4
    assert int(hits["cache_miss"]) == 4


def test_a_second_profile_begins_with_the_first_one_s_objects(
    root: Path, tree: FakeTree, capfd: pytest.CaptureFixture[str]
) -> None:
    first = build(tree)
    write_profile(root, "other", "CONFIG_NET=y\n# nothing else\n")
    configured = kconfig.configure(line(), tree, "other", "on")
    second = api.build(line(), tree, configured, jobs=2)
    assert "other: begins with the objects of vm" in capfd.readouterr().err
    assert second.image.read_bytes() == first.image.read_bytes()
    assert second.profile == "other"


def test_same_configuration_does_not_touch_the_object_folder(root: Path, tree: FakeTree) -> None:
    build(tree)
    config = root / "build/6.12/kernel/vm/obj/.config"
    before = config.stat().st_mtime_ns
    tree.key = "tree-2"
    build(tree)
    assert config.stat().st_mtime_ns == before


def test_compile_error_shows_the_compilers_line_and_the_log_and_the_next_run_succeeds(tree: FakeTree) -> None:
    good = (tree.path / "pid.c").read_text()
    (tree.path / "pid.c").write_text("int pid(void) { return undeclared; }\n")
    with pytest.raises(CommandError) as caught:
        build(tree)
    assert "the kernel does not compile: ../src/pid.c:1:" in caught.value.message
    assert "undeclared" in caught.value.message
    assert Path(caught.value.log).read_text().count("undeclared") >= 1
    assert caught.value.log in caught.value.hint
    (tree.path / "pid.c").write_text(good)
    tree.key = "tree-2"
    assert build(tree).image.is_file()


def test_error_in_a_header_that_prepare_meets_is_shown_the_same_way(tree: FakeTree) -> None:
    text = (tree.path / "Makefile").read_text()
    broken = "prepare:\n\t@echo '../src/sched.h:7:1: error: unknown type name'; false\n"
    (tree.path / "Makefile").write_text(text.replace("prepare:\n", broken, 1))
    with pytest.raises(CommandError, match=r"the kernel does not compile: \.\./src/sched.h:7:1: error: unknown type"):
        build(tree)


def test_failed_build_leaves_no_stamp_and_the_old_artifacts(tree: FakeTree) -> None:
    first = build(tree)
    (tree.path / "pid.c").write_text("broken\n")
    tree.key = "tree-2"
    for _ in range(2):
        with pytest.raises(CommandError):
            build(tree)
    assert first.image.is_file()


def test_a_failure_that_is_not_the_compilers_shows_makes_last_lines(tree: FakeTree) -> None:
    with (tree.path / "Makefile").open("a") as makefile:
        makefile.write("\nlinux bzImage: broken_link\nbroken_link: vmlinux\n\t@echo no room for this; exit 3\n")
    with pytest.raises(CommandError, match="no room for this"):
        build(tree)


def test_warnings_are_counted(tree: FakeTree, capfd: pytest.CaptureFixture[str]) -> None:
    (tree.path / "pid.c").write_text("int pid(void) { int unused; return 0; }\n")
    build(tree)
    assert "1 warnings, see" in capfd.readouterr().err


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from cloison_forge.core import paths
paths.find_root = lambda _: Path({root!r})
from cloison_forge.kconfig import api as kconfig
from cloison_forge.kernel import api
from tests.unit.kernel_fakes import FakeTree, line
tree = FakeTree(Path({tree!r}))
kernel = api.build(line(), tree, kconfig.configure(line(), tree, "vm", "on"), jobs=1)
print(kernel.key)
"""


def start(root: Path, tree: FakeTree) -> subprocess.Popen[bytes]:
    here = Path(__file__).resolve().parents[2]
    script = SCRIPT.format(paths=[str(here / "tools"), str(here)], root=str(root), tree=str(tree.path))
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(path: Path) -> None:
    for _ in range(400):
        if path.exists():
            return
        time.sleep(0.025)
    pytest.fail(f"{path} did not appear")


def test_killed_build_goes_on_where_it_was(
    root: Path, tree: FakeTree, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kconfig.configure(line(), tree, "vm", "on")
    (tree.path / "slow").write_text("0.4")
    process = start(root, tree)
    objects = root / "build/6.12/kernel/vm/obj"
    wait_for(objects / "init.o")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (tree.path / "slow").unlink()
    time.sleep(0.6)  # an orphaned make may still finish its object
    assert not (objects.parent / "artifacts").exists()
    capfd.readouterr()
    kernel = build(tree)
    assert kernel.image.is_file()
    compiled = capfd.readouterr().err.rsplit(" objects compiled", 1)[0].rsplit(None, 1)[-1]
    assert int(compiled) < 4


def test_two_builds_at_once_wait_for_each_other(root: Path, tree: FakeTree) -> None:
    kconfig.configure(line(), tree, "vm", "on")
    (tree.path / "slow").write_text("0.2")
    processes = [start(root, tree), start(root, tree)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert tree.calls.count("bzImage") == 1
    assert any(b"waiting for it to finish" in errors for _, errors in answers)


def test_another_extraction_of_the_tree_drops_the_objects(tree: FakeTree, capfd: pytest.CaptureFixture[str]) -> None:
    stamp = tree.path / ".cloison-source.json"
    stamp.write_text(json.dumps({"made": "first"}))
    first = build(tree)
    (tree.path / "main.c").write_text("int main(void) { return 3; }\n")
    os.utime(tree.path / "main.c", (1_000_000, 1_000_000))  # as old as in a tarball
    stamp.write_text(json.dumps({"made": "second"}))
    tree.key = "tree-2"
    assert build(tree).key != first.key


def test_variant_off_and_absent_have_their_own_folders(tree: FakeTree) -> None:
    images = [build(tree, variant).image.parts[-3] for variant in ("on", "off", "absent")]
    assert images == ["vm", "vm-off", "vm-absent"]


def test_the_bar_counts_what_make_will_compile(tree: FakeTree) -> None:
    kernel = build(tree)
    configured = kconfig.configure(line(), tree, "vm", "on")
    assert Totals(project().cache / "objects.json").get(configured.key) == 4
    assert kernel.provenance["objects"] == 4
    obj = kernel.image.parent.parent / "obj"
    for name in ("init", "fork"):
        (obj / f"{name}.o").unlink()
    from cloison_forge.kernel.identity import make_words

    assert planned(make_words(tree.path, obj, "x86_64"), "bzImage", {}) == 2


def test_lines_of_kbuild() -> None:
    assert is_object("  CC      kernel/fork.o") == "kernel/fork.o"
    assert is_object("  CC [M]  net/x.o") == "net/x.o"
    assert is_object("  AS      arch/x86/entry/entry_64.o") == "arch/x86/entry/entry_64.o"
    for line_text in ("  LD      vmlinux.o", "  CC      kernel/bounds.s", "  HOSTCC  scripts/basic/fixdep", "x CC y.o"):
        assert is_object(line_text) == ""


def test_follower_sorts_messages() -> None:
    follower = Follower("objects", 2, 0)
    for text in ("  CC      a.o", "a.c:1:2: warning: unused", "a.c:1:2: error: wrong", "make[1]: *** [a.o] Error 1"):
        follower.line(text)
    assert follower.compiled == 1
    assert len(follower.warnings) == 1
    assert len(follower.errors) == 2


def test_totals_survive_a_broken_file(tmp_path: Path) -> None:
    totals = Totals(tmp_path / "objects.json")
    (tmp_path / "objects.json").write_text("{")
    assert totals.get("a") == 0
    totals.put("a", 7)
    assert Totals(tmp_path / "objects.json").get("a") == 7
