# SPDX-License-Identifier: GPL-2.0-or-later
"""What on a console is a complaint, and what only looks like one."""

from __future__ import annotations

import pytest

from cloison_forge.machine.console import Console

OOM = """\
[   67.506405] python3 invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0
[   67.513358] CPU: 0 UID: 0 PID: 661 Comm: python3 Not tainted 6.12.117-cloison #1
[   67.513441] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-debian-1.16.2-1 04/01/2014
[   67.513454] Call Trace:
[   67.513481]  <TASK>
[   67.513497]  dump_stack_lvl+0x60/0x80
"""


def fed(text: str) -> Console:
    console = Console()
    console.feed(text.encode())
    console.close()
    return console


def test_the_trace_of_the_oom_killer_is_no_complaint() -> None:
    assert fed(OOM).complaints == []


def test_a_later_trace_is_one_again() -> None:
    filler = "".join(f"[   68.{number}] Mem-Info line\n" for number in range(12))
    assert fed(OOM + filler + "[   69.0] Call Trace:\n").complaints == ["[   69.0] Call Trace:"]


@pytest.mark.parametrize("line", ["BUG: KASAN: slab-use-after-free in x", "WARNING: CPU: 0 PID: 1 at kernel/fork.c:1"])
def test_a_real_complaint_beside_the_oom_killer_counts(line: str) -> None:
    assert fed(OOM + line + "\n").complaints == [line]


def test_a_trace_alone_is_a_complaint() -> None:
    assert fed("Call Trace:\n").complaints == ["Call Trace:"]
