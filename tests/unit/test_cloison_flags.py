# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists of flags as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.flags import (
    BCAP_WORDS,
    CAPABILITIES,
    CCAP_WORDS,
    CONTEXT_WORDS,
    NEEDED_GRANTS,
    WORD64,
    Change,
    ContextCaps,
    describe,
    parse,
    without_effect,
)


@pytest.mark.parametrize(
    ("text", "value", "mask"),
    [
        ("fakeinit", 0x10, 0x10),
        ("fakeinit,~private", 0x10, 0x18),
        ("^38", 1 << 38, 1 << 38),
        ("!^38,0x100", 0x100, 1 << 38 | 0x100),
        ("PERSISTENT", 1 << 38, 1 << 38),
        ("none", 0, WORD64),
        ("all,~lock", WORD64 & ~1, WORD64),
        ("~lock,lock", 1, 1),
        ("", 0, 0),
    ],
)
def test_parse(text: str, value: int, mask: int) -> None:
    assert parse(text, CONTEXT_WORDS) == Change(value, mask)


@pytest.mark.parametrize("text", ["fakeinti", "^64", "^-1", "1.5", "0x1ffffffffffffffff", "~", "^"])
def test_parse_names_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match=r"flag|64 bits|shift"):
        parse(text, CONTEXT_WORDS)


@given(st.integers(min_value=0, max_value=WORD64))
@pytest.mark.parametrize("words", [CONTEXT_WORDS, CCAP_WORDS, BCAP_WORDS])
def test_what_is_described_can_be_parsed(words: dict[str, int], value: int) -> None:
    text = ",".join(describe(value, words))
    assert parse(text, words).value == value


@given(*(st.integers(min_value=0, max_value=WORD64) for _ in range(3)))
def test_a_change_touches_only_its_mask(old: int, value: int, mask: int) -> None:
    new = Change(value, mask).apply(old)
    assert new & mask == value & mask
    assert new & ~mask == old & ~mask


def test_capabilities_have_the_kernel_s_numbers() -> None:
    assert [CAPABILITIES.index(name) for name in ("chown", "sys_admin", "setfcap", "checkpoint_restore")] == [
        0,
        21,
        31,
        40,
    ]
    assert parse("cap_sys_admin", BCAP_WORDS).value == 1 << 21


def test_capabilities_without_their_grant_have_no_effect() -> None:
    bound = BCAP_WORDS["sys_time"] | BCAP_WORDS["bpf"] | BCAP_WORDS["syslog"] | BCAP_WORDS["chown"]
    assert without_effect(bound, 0) == ["sys_time", "bpf", "syslog"]
    assert without_effect(bound, int(ContextCaps.GRANT_TIME | ContextCaps.GRANT_BPF)) == ["syslog"]
    assert set(NEEDED_GRANTS) <= set(BCAP_WORDS)
