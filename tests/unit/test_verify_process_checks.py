# SPDX-License-Identifier: GPL-2.0-or-later
"""The process checks as a catalogue: nothing of group P is left out, and what a lane cannot run says why."""

from __future__ import annotations

import subprocess

from cloison_verify import catalogue, vectors
from cloison_verify.numbers import number

CHECKS = catalogue.load()
SUITES = {"process", "host", "context", "ring", "tool"}


def test_every_row_of_group_p_is_proven() -> None:
    missing = [row.id for row in vectors.unproven(CHECKS.values(), vectors.load()) if row.group == "P"]
    assert missing == []


def test_every_row_of_group_p_is_proven_in_lane_uml_but_for_the_named_ones() -> None:
    there = [check for check in CHECKS.values() if "uml" not in check.not_on]
    missing = {row.id for row in vectors.unproven(there, vectors.load()) if row.group == "P"}
    assert missing == {"P22", "P23", "P25", "P38"}


def test_rows_that_are_claimed_exist() -> None:
    vectors.check_references(CHECKS.values(), vectors.load())


def test_each_check_can_tell_isolation_from_a_broken_probe() -> None:
    for check in CHECKS.values():
        if check.suite in SUITES:
            assert not set(check.expected) & set(check.control.expected), check.id


def test_numbers_are_those_of_the_c_library() -> None:
    """Spot checks against <sys/syscall.h> of this machine, which the compiler knows."""
    names = ("tkill", "kcmp", "futex", "reboot", "keyctl", "rt_tgsigqueueinfo", "pidfd_getfd", "io_uring_setup")
    source = "#include <sys/syscall.h>\n" + "\n".join(f"SYS_{name}" for name in names)
    done = subprocess.run(["gcc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()[-len(names) :]] == [number(name) for name in names]
