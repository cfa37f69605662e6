# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP is believed only when it is plainly good."""

from __future__ import annotations

import pytest

from cloison_forge.report import ktap

KUNIT = """\
[    0.611000] KTAP version 1
[    0.611001] 1..2
[    0.612000]     KTAP version 1
[    0.612001]     # Subtest: vserver_ids
[    0.612002]     # module: vserver
[    0.612003]     1..3
[    0.612004]     ok 1 parse_word
[    0.612005]         KTAP version 1
[    0.612006]         # Subtest: stray_bits
[    0.612007]         ok 1 bit 12
[    0.612008]         ok 2 bit 31
[    0.612009]     # stray_bits: pass:2 fail:0 skip:0 total:2
[    0.612010]     ok 2 stray_bits
[    0.612011]     ok 3 wide # SKIP only on 32 bit
[    0.612012] # vserver_ids: pass:2 fail:0 skip:1 total:3
[    0.612013] ok 1 vserver_ids
[    0.613000]     KTAP version 1
[    0.613001]     # Subtest: vserver_masks
[    0.613002]     1..1
[    0.613003]     ok 1 widen
[    0.613004] ok 2 vserver_masks
[    0.614000] reboot: System halted
"""

KSELFTEST = """\
TAP version 13
1..2
# Starting 2 tests from 1 test cases.
ok 1 global.version
ok 2 global.nobody # SKIP needs root
# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:1 error:0
"""


def test_kunit_with_subtests_and_parameters_passes() -> None:
    result = ktap.parse(KUNIT)
    assert result.status == "passed", result.all_problems()
    assert [leaf.status for leaf in result.leaves()] == ["passed", "passed", "passed", "skipped", "passed"]
    assert [child.name for child in result.children] == ["vserver_ids", "vserver_masks"]
    assert ktap.passed([result])


def test_kselftest_passes() -> None:
    result = ktap.parse(KSELFTEST)
    assert result.status == "passed", result.all_problems()


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("", "nothing ran"),
        ("ok 1 alone\n", "nothing ran"),
        (KUNIT.replace("KTAP version 1\n[    0.611001] 1..2", "KTAP version 1"), "no plan"),
        (KUNIT.replace("ok 2 bit 31", "not ok 2 bit 31"), "not ok"),
        (KUNIT.replace("    ok 1 widen", "    not ok 1 widen"), "a test below failed"),
        (KUNIT.split("[    0.612010]")[0], "without a result of its own"),
        (KUNIT.replace("[    0.613004] ok 2 vserver_masks\n", ""), "without a result of its own"),
        (KUNIT.replace("    ok 2 stray_bits", "    ok 3 stray_bits"), "result 3 where 2 was due"),
        (KUNIT.replace("    1..1\n", "    1..0\n"), "1 reported"),
        (KSELFTEST.replace("1..2", "1..3"), "3 planned, 2 reported"),
        (KSELFTEST.replace("ok 1 global.version", "Bail out! no root"), "Bail out!"),
        (KSELFTEST.replace("ok 1 global.version", "ok 1 global.version # TODO"), "marked TODO"),
        ("TAP version 13\n1..0\n", "proves nothing"),
    ],
)
def test_what_is_not_plainly_good_fails(document: str, why: str) -> None:
    result = ktap.parse(document)
    assert result.status == "failed"
    assert why in " | ".join(result.all_problems())
    assert not ktap.passed([result])


def test_all_skipped_is_no_success() -> None:
    result = ktap.parse("TAP version 13\n1..1\nok 1 a # SKIP no\n")
    assert result.status == "skipped"
    assert not ktap.passed([result])
    assert not ktap.passed([])
