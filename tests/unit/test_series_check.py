# SPDX-License-Identifier: GPL-2.0-or-later
"""The check of a series: each rule notices what it is there for, and a good series passes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.series_fakes import EXIT, FORK, LINE, Bench, FakeTree

from cloison_forge.core import lines
from cloison_forge.core.errors import CheckError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.series import api, bisecting, building, checking, lint, rules
from cloison_forge.series.building import Config, Workshop
from cloison_forge.series.findings import FAILED, PASSED, SKIPPED, Check, Finding, Report, policy

CHECKPATCH = """#!/usr/bin/perl
# Complains about each added line that says BAD; prints as checkpatch --terse --show-types does.
my $bad = 0;
for my $file (grep { !/^--/ } @ARGV) {
    open(my $in, '<', $file) or exit 2;
    while (<$in>) { if (/^\\+.*BAD/) { print "$file:$.: WARNING:BADNESS: this is bad\\n"; $bad = 1; } }
}
exit $bad;
"""
KERNEL_DOC = """#!/bin/sh
shift
for file; do
    grep -n UNDOCUMENTED "$file" /dev/null | sed 's/^\\([^:]*:[0-9]*\\):.*/\\1: warning: not described/' >&2
done
"""
# As kbuild: works in O=, compiles ../src/FILE.c; W=1 adds warnings, C=2 runs a checker first.
MAKEFILE = """
MAKEFLAGS += -rR
goals := olddefconfig prepare linux $(filter %.o %/,$(MAKECMDGOALS))
.PHONY: $(goals)
$(goals):
\t@sh scripts/build.sh "$@" "$(O)" "$(CC)" "$(KCFLAGS)" "$(W)" "$(C)"
"""
BUILD = """
target=$1 cc=$3 flags=$4 checker=$6
[ -z "$5" ] || flags="$flags -Wextra -Wunused"
cd "$2" || exit 1
if grep -qs '^CONFIG_VSERVER=y' .config; then on=y flags="$flags -DCONFIG_VSERVER"; fi
one() {
    mkdir -p "$(dirname "$1")"
    [ -z "$checker" ] || sed -n "/SPARSE/{s|.*|../src/$1.c:7:1: warning: context imbalance|p}" "../src/$1.c"
    $cc $flags -c -o "$1.o" "../src/$1.c"
}
case $target in
*.o) one "${target%.o}" ;;
*/) [ "$on" != y ] || for file in $(cd ../src && find "$target" -name '*.c'); do
        if grep -q "$(basename "${file%.c}").o" "../src/$target/Makefile"; then one "${file%.c}" || exit 1; fi
    done ;;
linux) for file in $(cd ../src && find kernel -name '*.c'); do one "${file%.c}" || exit 1; done ;;
esac
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    project = Project(root=tmp_path, cache=tmp_path / "cache")
    monkeypatch.setattr(api, "project", lambda: project)
    monkeypatch.setattr(bisecting, "project", lambda: project)
    monkeypatch.setattr(lines, "load", lambda: {"6.12": LINE})
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    (tmp_path / "kconfig/variants").mkdir(parents=True)
    (tmp_path / "kconfig/variants/on.config").write_text("CONFIG_VSERVER=y\n")
    bench = Bench(tmp_path).setup()
    scripts = bench.tree / "scripts"
    scripts.mkdir()
    (scripts / "checkpatch.pl").write_text(CHECKPATCH)
    (scripts / "kernel-doc").write_text(KERNEL_DOC)
    (scripts / "kernel-doc").chmod(0o755)
    (bench.tree / "Makefile").write_text(MAKEFILE)
    (scripts / "build.sh").write_text(BUILD)
    return bench


def normal(bench: Bench) -> Bench:
    """The series as an export writes it."""
    api.edit(LINE, FakeTree(bench.tree), fresh=True)
    api.export(LINE)
    return bench


def check(bench: Bench, *, reference: bool = True) -> Report:
    """The report without builds, also of a series that fails."""
    subject = checking.Subject(
        "6.12",
        api.series_of(LINE),
        {},
        FakeTree(bench.tree, reference=reference),
        api.placement_of(LINE, FakeTree(bench.tree)),
        policy(bench.root / "patches/check.toml"),
        bench.root / "cache/verdicts",
    )
    return checking.examine(subject, None)


def one(report: Report, name: str) -> Check:
    [found] = [each for each in report.checks if each.name == name]
    return found


def failing(report: Report) -> set[str]:
    return {each.name for each in report.checks if each.status == FAILED}


def test_a_good_series_passes(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    normal(bench.standard())
    report = api.check(LINE, FakeTree(bench.tree), build=False, json=str(tmp_path / "report.json"))
    assert report.passed
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["passed"] is True
    assert [entry["status"] for entry in value["checks"]] == [PASSED] * 10 + [SKIPPED] * 3
    assert value["footprint"]["existing_files"] == 1
    assert value["footprint"]["files"] == {"kernel/fork.c": {"added": 1, "removed": 0}}
    assert value["footprint"]["own_lines"] == {"code": 2}
    shown = capsys.readouterr().out
    assert "1 of 70 files, 1 of 550 lines" in shown


def test_a_failing_series_raises_and_still_writes_the_report(bench: Bench, tmp_path: Path) -> None:
    bench.standard()  # not in the form of an export
    with pytest.raises(CheckError, match=r"the series of 6\.12 fails: stable bytes"):
        api.check(LINE, FakeTree(bench.tree), build=False, json=str(tmp_path / "report.json"))
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["passed"] is False


def test_a_patch_that_does_not_fit_leaves_the_rest_unjudged(bench: Bench) -> None:
    normal(bench.standard())
    (bench.tree / "kernel/fork.c").write_text("gone\n")
    report = check(bench)
    assert failing(report) == {"fuzz 0"}
    assert one(report, "fuzz 0").findings[0].where == "hook-fork.patch"
    assert one(report, "ownership").status == SKIPPED


def test_offsets_fail_on_the_reference_only(bench: Bench) -> None:
    normal(bench.standard())
    (bench.tree / "kernel/fork.c").write_text("/* new */\n" + FORK)
    assert "offset 0" in failing(check(bench))
    other = one(check(bench, reference=False), "offset 0")
    assert (other.status, other.detail.split(";")[0]) == (SKIPPED, "1 hunks at an offset")


def test_a_shared_patch_must_not_touch_the_kernel(bench: Bench) -> None:
    bench.add("common/core.patch", {"kernel/vserver/core.c": "int a;\n", "kernel/exit.c": EXIT + "int vs;\n"})
    [finding] = one(check(bench), "ownership").findings
    assert finding.where == "common/core.patch"
    assert "kernel/exit.c" in finding.text


def test_a_shared_patch_must_not_touch_what_a_line_owns(bench: Bench) -> None:
    bench.add("compat.patch", {"kernel/vserver/compat.h": "#define OLD 1\n"})
    bench.add("common/core.patch", {"kernel/vserver/compat.h": "#define OLD 2\n"})
    [finding] = one(check(bench), "ownership").findings
    assert finding.where == "common/core.patch"
    assert "compat.patch owns" in finding.text


def test_names_and_strays(bench: Bench) -> None:
    bench.standard()
    bench.add("Fix_It.patch", {"kernel/exit.c": EXIT + "int vs;\n"})
    (bench.series / "hook-forgotten.patch").write_text("x")
    findings = {finding.where: finding.text for finding in one(check(bench), "names").findings}
    assert set(findings) == {"Fix_It.patch", "hook-forgotten.patch"}
    assert "in no series" in findings["hook-forgotten.patch"]


def test_hooks_have_the_same_names_on_every_line(bench: Bench) -> None:
    bench.standard()
    series = api.series_of(LINE)
    other = replace(series, patches=series.patches[:1])
    assert [str(f) for f in rules.names(series, {"6.18": other})] == [
        "hook-fork.patch: is not in the series of 6.18",
    ]
    assert not list(rules.names(series, {"6.18": series}))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("From: Ada Kern <ada@example.org>\n", "", "no From: header"),
        ("Date: Thu, 1 Oct 2026 12:00:00 +0000\n", "", "no Date: header"),
        ("Subject: [PATCH] vserver: do core", "Subject: vserver: do core", "does not start with [PATCH]"),
        ("vserver: do core\n\n", "vserver: " + "do " * 30 + "core\n\n", "characters; 75 are"),
        ("vserver: do core\n\n", "vserver: do core.\n\n", "full stop"),
        ("Signed-off-by: Ada Kern <ada@example.org>", "Signed-off-by: Bob <bob@example.org>", "no Signed-off-by: of"),
        ("Why: vserver: do core is needed.\n", "", "does not say why"),
        ("vserver: do core", "vserver: do hook-fork", "same subject"),
    ],
)
def test_mail(bench: Bench, old: str, new: str, said: str) -> None:
    bench.standard()
    path = bench.series / "common/core.patch"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    findings = [f.text for f in one(check(bench), "mail").findings if f.where == "common/core.patch"]
    assert any(said in finding for finding in findings), findings


def test_a_patch_in_another_form_is_named_with_the_line(bench: Bench) -> None:
    normal(bench.standard())
    path = bench.series / "hook-fork.patch"
    path.write_bytes(path.read_bytes() + b"-- \n2.47.1\n\n")
    [finding] = one(check(bench), "stable bytes").findings
    assert finding.where == "hook-fork.patch"


def test_blanks_where_none_should_be_are_named(bench: Bench) -> None:
    bench.add("common/core.patch", {"kernel/vserver/core.c": "int a;\n", "kernel/vserver/b.c": "int b; \nint c;\n\n"})
    bench.add("common/more.patch", {"kernel/vserver/core.c": "int a;\n \tint d;\n"})
    page = "Testing\n=======\n\ntext\n"
    bench.add("common/docs.patch", {"Documentation/v.rst": page, "Documentation/w.rst": page + "<<<<<<< ours\n"})
    assert [(finding.where, finding.text) for finding in one(check(bench), "whitespace").findings] == [
        ("common/core.patch", "kernel/vserver/b.c:1: trailing whitespace."),
        ("common/core.patch", "kernel/vserver/b.c:3: new blank line at EOF."),
        ("common/more.patch", "kernel/vserver/core.c:2: space before tab in indent."),
        ("common/docs.patch", "Documentation/w.rst:5: leftover conflict marker"),
    ]


def test_the_footprint_has_a_gate(bench: Bench) -> None:
    bench.standard()
    (bench.root / "patches/check.toml").write_text("[footprint]\nfiles = 1\nlines = 3\n")
    assert "footprint" not in failing(check(bench))
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT.replace("/* exit line 20 */", "vs(20);") + "int vs;\n"})
    findings = [finding.text for finding in one(check(bench), "footprint").findings]
    assert findings == [
        "touches 2 of the kernel's files; the limit is 1",
        "touches 4 lines of the kernel's files; the limit is 3",
    ]


def test_a_line_that_two_patches_change_counts_once(bench: Bench) -> None:
    bench.add("hook-a.patch", {"kernel/exit.c": EXIT.replace("/* exit line 20 */", "vs(1);")})
    bench.add("hook-b.patch", {"kernel/exit.c": EXIT.replace("/* exit line 20 */", "vs(2);")})
    assert check(bench).footprint.files == {"kernel/exit.c": (1, 1)}


def test_checkpatch_counts_and_waivers_need_a_reason_and_a_use(bench: Bench) -> None:
    bench.add("common/core.patch", {"kernel/vserver/core.c": "int a; /* BAD */\n"})
    found = one(check(bench), "checkpatch")
    assert [(f.where, f.kind) for f in found.findings] == [("common/core.patch", "BADNESS")]
    file = bench.root / "patches/check.toml"
    file.write_text('[[waiver]]\ntool = "checkpatch"\ntype = "BADNESS"\nreason = "wanted"\n')
    found = one(check(bench), "checkpatch")
    assert (found.status, found.detail) == (PASSED, "--strict, each patch; 1 waived with a reason")
    file.write_text(file.read_text() + '[[waiver]]\ntool = "checkpatch"\ntype = "OTHER"\nreason = "old"\n')
    [finding] = one(check(bench), "checkpatch").findings
    assert "does not need the waiver 'OTHER'" in finding.text
    for text in (
        'tool = "checkpatch"\ntype = "X"',
        'tool = "lint"\ntype = "X"\nreason = "r"',
        'tool = "sparse"\nreason = "r"',
    ):
        file.write_text(f"[[waiver]]\n{text}\n")
        with pytest.raises(UsageError, match="waiver 1 is not complete"):
            check(bench)
    file.write_text("[footprnt]\nfiles = 1\n")
    with pytest.raises(UsageError, match="unknown 'footprnt'"):
        check(bench)


def test_what_checkpatch_said_is_remembered_for_the_same_patch(bench: Bench) -> None:
    bench.add("common/core.patch", {"kernel/vserver/core.c": "int a; /* BAD */\n"})
    bench.add("common/more.patch", {"kernel/vserver/more.c": "int b; /* BAD */\n"})
    first = one(check(bench), "checkpatch").findings
    assert [f.where for f in first] == ["common/core.patch", "common/more.patch"]
    log = bench.root / "runs"
    script = bench.tree / "scripts/checkpatch.pl"
    assert one(check(bench), "checkpatch").findings == first
    script.write_text(CHECKPATCH.replace("my $bad = 0;", f"my $bad = 0; open(L, '>>', '{log}'); print L 'x';"))
    assert one(check(bench), "checkpatch").findings == first
    assert log.read_text() == "xx"  # another checkpatch is asked again
    assert one(check(bench), "checkpatch").findings == first
    assert log.read_text() == "xx"
    path = bench.series / "common/more.patch"
    path.write_text(path.read_text().replace("BAD", "good"))
    assert [f.where for f in one(check(bench), "checkpatch").findings] == ["common/core.patch"]
    assert log.read_text() == "xxx"


def test_a_checkpatch_that_does_not_run_is_no_pass(bench: Bench) -> None:
    bench.standard()
    (bench.tree / "scripts/checkpatch.pl").write_text("syntax error here;")
    with pytest.raises(Exception, match="checkpatch did not do its work"):
        check(bench)


def test_kernel_doc_compares_with_the_pristine_file(bench: Bench) -> None:
    (bench.tree / "kernel/exit.c").write_text(EXIT + "/* UNDOCUMENTED */\n")
    bench.files["kernel/exit.c"] = EXIT + "/* UNDOCUMENTED */\n"
    bench.add("hook-exit.patch", {"kernel/exit.c": "int vs;\n" + EXIT + "/* UNDOCUMENTED */\n"})
    assert one(check(bench), "kernel-doc").status == PASSED
    bench.add("common/doc.patch", {"kernel/vserver/doc.h": "int a;\n/* UNDOCUMENTED */\n"})
    [finding] = one(check(bench), "kernel-doc").findings
    assert (finding.where, finding.text) == ("kernel/vserver/doc.h", "warning: not described")


def test_messages_are_compared_without_numbers_and_counted() -> None:
    before = lint.messages(["../src/kernel/a.c:10:5: warning: unused 'x7' [-Wunused]", "noise"], "../src/")
    moved = lint.messages(["../src/kernel/a.c:99:5: warning: unused 'x7' [-Wunused]"], "../src/")
    assert lint.new_messages(before, moved, {"kernel/a.c"}) == []
    twice = moved + moved
    assert lint.new_messages(before, twice, {"kernel/a.c"}) == [
        Finding("kernel/a.c", "warning: unused 'x7' [-Wunused] (1 more)", "unused")
    ]
    assert lint.new_messages(before, twice, {"kernel/b.c"}) == []
    header = lint.messages(["./include/v.h:3:1: warning: odd"] * 5, "../src/")
    assert lint.new_messages(before, header, {"include/v.h"}) == [Finding("include/v.h", "warning: odd")]
    assert lint.new_messages(lint.messages(["./include/v.h:9:1: warning: odd"], ""), header, {"include/v.h"}) == []


def workshop(bench: Bench) -> tuple[Workshop, Config]:
    tree = FakeTree(bench.tree)
    folder = bench.tree.parent
    config = bench.root / "uml.config"
    config.write_text("CONFIG_VSERVER=y\nCONFIG_NET=y\n")
    shop = Workshop(folder / "check", tree, api.placement_of(LINE, tree), folder / "logs")
    return shop, Config(config, "um", "uml")


def build_all(bench: Bench, *, full: bool = False) -> list[tuple[str, str]]:
    shop, config = workshop(bench)
    found, _ = bisecting.each_patch(shop, api.series_of(LINE), config, config, full=full)
    return [(finding.where, finding.text) for finding in found]


def makefile(bench: Bench) -> Bench:
    bench.add(
        "common/make.patch", {"kernel/vserver/Makefile": "obj-y := core.o\n", "kernel/vserver/core.c": "int a;\n"}
    )
    return bench


def test_each_patch_is_built_on_and_off_and_remembered(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    makefile(bench).standard()
    assert build_all(bench) == []
    assert capsys.readouterr().err.count(" …") == 1 + 8 + 2  # a copy; four patches on and off; the last one linked
    assert build_all(bench) == []
    assert " …" not in capsys.readouterr().err
    assert build_all(bench, full=True) == []
    assert capsys.readouterr().err.count(" …") == 6
    assert (bench.tree / "kernel/fork.c").read_text() == FORK  # the ordinary tree is left alone


@pytest.mark.parametrize(
    ("after", "patch", "said"),
    [
        ({"kernel/exit.c": EXIT + "int x = missing;\n"}, "hook-bad.patch", ["on", "off"]),
        ({"kernel/exit.c": EXIT + "#ifndef CONFIG_VSERVER\nint x = missing;\n#endif\n"}, "hook-bad.patch", ["off"]),
        ({"kernel/exit.c": EXIT + "#ifdef CONFIG_VSERVER\nint x = missing;\n#endif\n"}, "hook-bad.patch", ["on"]),
        ({"kernel/vserver/core.c": "int x = missing;\n"}, "common/bad.patch", ["on"]),
        ({"kernel/exit.c": EXIT + '#include "missing"\n'}, "hook-bad.patch", ["on", "off"]),
    ],
)
def test_a_patch_that_does_not_build_is_named(
    bench: Bench, after: dict[str, str | None], patch: str, said: list[str]
) -> None:
    makefile(bench)
    good = {name: bench.files.get(name) for name in after}
    bench.add(patch, after)
    bench.add(patch.replace("bad", "mend"), good)
    found = build_all(bench)
    assert [where for where, _ in found] == [patch] * len(said)
    for word, (_, text) in zip(said, found, strict=True):
        assert text.startswith(f"does not build with VSERVER {word}: ../src/kernel/")
        assert "missing" in text
    assert build_all(bench) == found  # what failed is not remembered as good


def test_a_function_that_comes_with_a_later_patch_is_noticed(bench: Bench) -> None:
    makefile(bench)
    call = "#ifdef CONFIG_VSERVER\nvoid vs_later(void);\nvoid leave(void) { vs_later(); }\n#endif\n"
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + call})
    bench.add("common/later.patch", {"kernel/vserver/core.c": "int a;\nvoid vs_later(void) {}\n"})
    assert build_all(bench) == [("hook-exit.patch", "with VSERVER on 'vs_later' is used and not defined")]


def test_a_leftover_of_a_later_state_does_not_hide_what_is_missing(bench: Bench) -> None:
    makefile(bench)
    call = "#ifdef CONFIG_VSERVER\nvoid vs_later(void);\nvoid leave(void) { vs_later(); }\n#endif\n"
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + call})
    later: dict[str, str | None] = {
        "kernel/vserver/later.c": "void vs_later(void) {}\n",
        "kernel/vserver/Makefile": "obj-y := core.o later.o\n",
    }
    bench.add("common/later.patch", later)
    first = build_all(bench)
    assert [where for where, _ in first] == ["hook-exit.patch"]
    shutil.rmtree(bench.root / "cache/verdicts")
    assert build_all(bench) == first


def test_a_file_whose_option_is_not_chosen_is_left_out_and_named(bench: Bench) -> None:
    makefile(bench)
    bench.add("common/tests.patch", {"kernel/vserver/kunit.c": "int x = missing;\n"})
    bench.add("common/mended.patch", {"kernel/vserver/kunit.c": "int x;\n"})
    shop, config = workshop(bench)
    found, left = bisecting.each_patch(shop, api.series_of(LINE), config, config, full=False)
    assert found == []
    assert left == ["kernel/vserver/kunit.c"]


def test_a_hook_that_is_not_compiled_to_nothing_is_noticed(bench: Bench) -> None:
    makefile(bench)
    bench.add("common/later.patch", {"kernel/vserver/core.c": "int a;\nvoid vs_later(void) {}\n"})
    call = "void vs_later(void);\nvoid leave(void) { vs_later(); }\n"
    bench.add("hook-exit.patch", {"kernel/exit.c": EXIT + call})
    assert build_all(bench) == [("hook-exit.patch", "with VSERVER off 'vs_later' is used and not defined")]


def test_new_warnings_are_found_and_old_ones_are_not(bench: Bench) -> None:
    old = EXIT + "static int never_used; /* SPARSE */\n"
    (bench.tree / "kernel/exit.c").write_text(old)
    bench.files["kernel/exit.c"] = old
    bench.add("hook-exit.patch", {"kernel/exit.c": "int vs_exit;\n" + old})
    bench.add(
        "common/new.patch", {"kernel/vserver/new.c": "static int ours; /* SPARSE */\n", "arch/arm/v.c": "int v;\n"}
    )
    shop, config = workshop(bench)
    sparse, compiler, looked = building.warnings(shop, api.series_of(LINE), config)
    assert [(f.where, f.text) for f in sparse] == [("kernel/vserver/new.c", "warning: context imbalance")]
    assert [(f.where, f.kind) for f in compiler] == [("kernel/vserver/new.c", "unused-variable")]
    assert looked == "2 files; not compiled in uml: arch/arm/v.c"


def test_the_copy_follows_the_source(bench: Bench) -> None:
    bench.standard()
    api.apply(LINE, FakeTree(bench.tree))
    shop, _ = workshop(bench)
    shop.open()
    assert (shop.tree.path / "kernel/fork.c").read_text() == FORK
    assert not (shop.tree.path / "kernel/vserver").exists()
    (shop.tree.path / "mark").write_text("")
    shop.open()
    assert (shop.tree.path / "mark").exists()
    newer = FakeTree(bench.tree, "tree-2")
    again = Workshop(shop.folder, newer, api.placement_of(LINE, newer), shop.logs)
    again.open()
    assert not (shop.tree.path / "mark").exists()


def test_the_kinds_of_our_own_files() -> None:
    kinds = {
        "Documentation/admin-guide/vserver/index.rst": "documentation",
        "tools/testing/selftests/vserver/run.c": "tests",
        "kernel/vserver/context_test.c": "tests",
        "kernel/vserver/context.c": "code",
        "include/uapi/linux/vserver.h": "code",
    }
    assert {name: rules.kind_of(name) for name in kinds} == kinds


def test_git_am_that_refuses_is_a_finding(bench: Bench) -> None:
    bench.standard()
    path = bench.series / "common/core.patch"
    path.write_text(path.read_text().replace("From: Ada Kern <ada@example.org>\n", "From: \n"))
    assert {"mail", "stable bytes"} <= failing(check(bench))
