# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge believes nothing that is out of place, and what is not reported has failed."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.unit.machine_fakes import KERNEL, NONCE, PLAN, end, good_records, hello, stream

from cloison_forge.machine.judge import Expected, Judge
from cloison_forge.machine.outcome import Outcome
from cloison_forge.machine.protocol import Stream


def judged(records: list[dict[str, Any]], expected: Expected | None = None, **more: Any) -> Judge:
    judge = Judge(expected or Expected(NONCE, PLAN))
    reader = Stream()
    for record in reader.feed(stream(*records, **more)):
        judge.hear(record)
    assert not reader.fault
    return judge


def test_a_good_stream_passes_everything() -> None:
    judge = judged(good_records(), Expected(NONCE, PLAN, release=KERNEL))
    assert judge.fault is None
    assert judge.ended
    assert [result.status for result in judge.results.values()] == ["passed"] * 3


def _replaced(place: int, record: dict[str, Any]) -> list[dict[str, Any]]:
    records = good_records()
    records[place] = record
    return records


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (good_records()[1:], "'begin' before hello"),
        (_replaced(0, hello(nonce="0" * 32)), "wrong nonce"),
        (_replaced(0, hello(proto=2)), "protocol 2"),
        (_replaced(0, hello(PLAN[:2])), "another plan"),
        (_replaced(1, {"t": "begin", "id": "abi.other"}), "unknown check 'abi.other'"),
        (_replaced(1, {"t": "begin", "id": ["abi.version"]}), "unknown check"),
        (_replaced(1, {"t": "begin", "id": "abi.version"}), "out of turn"),
        (_replaced(2, end(PLAN[1])), "ends without having begun"),
        (_replaced(3, {"t": "end", "id": "abi.ordinary-user"}), "ends without having begun"),
        (_replaced(3, {"t": "begin", "id": "abi.ordinary-user"}), "a second time"),
        (_replaced(2, {"t": "begin", "id": "abi.unknown-command"}), "has not ended"),
        (_replaced(3, hello()), "'hello' is out of place"),
        (good_records()[:-2], "has not been reported"),
        (good_records()[:-1], "has not been reported"),
    ],
)
def test_records_out_of_place_end_the_hearing(records: list[dict[str, Any]], why: str) -> None:
    judge = judged(records)
    assert judge.fault is not None
    assert judge.fault.outcome is Outcome.BAD_STREAM
    assert why in judge.fault.detail
    assert not all(result.status == "passed" for result in judge.results.values()) or not judge.ended


CONTROL = {"kind": "instead", "expected": "0x00020308", "seen": "0x00020308", "status": "passed"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"control": None}, "control is missing"),
        ({"control": "passed"}, "control is missing"),
        ({"control": {**CONTROL, "kind": "kernel-without"}}, "control is missing"),
        ({"control": {**CONTROL, "status": "elsewhere"}}, "control failed"),
        ({"control": {**CONTROL, "status": "failed"}}, "control failed"),
        ({"control": {**CONTROL, "seen": "ENOSYS"}}, "control failed"),
        ({"control": {**CONTROL, "seen": None}}, "control failed"),
        ({"status": "skipped"}, "does not declare"),
        ({"status": "ok"}, "is none"),
        ({"status": None}, "is none"),
        ({"status": ["passed"]}, "is none"),
        ({"seen": "EPERM"}, "something else seen"),
        ({"seen": None}, "something else seen"),
        ({"seen": "EPERM", "status": "failed"}, "saw 'EPERM'"),
    ],
)
def test_an_end_that_does_not_prove_its_check_fails_it(fields: dict[str, Any], why: str) -> None:
    judge = judged(_replaced(2, end(PLAN[0], **fields)))
    result = judge.results["abi.ordinary-user"]
    assert result.status == "failed"
    assert why in result.detail
    assert judge.results["abi.version"].status == "passed"


def test_a_control_of_another_machine_cannot_be_answered_here() -> None:
    forged = {"kind": "kernel-without", "expected": "ENOSYS", "seen": "ENOSYS", "status": "passed"}
    judge = judged(_replaced(6, end(PLAN[2], control=forged)))
    assert judge.results["abi.version"].status == "failed"


def test_another_kernel_than_asked_is_refused(tmp_path: Path) -> None:
    judge = judged(good_records(), Expected(NONCE, PLAN, release="6.12.118-cloison"))
    assert judge.fault is not None
    assert judge.fault.outcome is Outcome.WRONG_KERNEL
    config = tmp_path / "config"
    config.write_bytes(b"CONFIG_A=y\nCONFIG_IKCONFIG_PROC=y\n")
    data = config.read_bytes()
    mine = {"crc32": f"{zlib.crc32(data):08x}", "size": len(data)}
    expected = Expected(NONCE, PLAN, config=config)
    assert judged(_replaced(0, hello(config=mine)), expected).fault is None
    for told in (None, {**mine, "size": 1}, {**mine, "crc32": "00000000"}, "same"):
        fault = judged(_replaced(0, hello(config=told)), expected).fault
        assert fault is not None
        assert fault.outcome is Outcome.WRONG_KERNEL
    other_build = Expected(NONCE, PLAN, build_id="aa")
    assert judged(_replaced(0, hello(build_id="aa")), other_build).fault is None
    assert judged(_replaced(0, hello(build_id="bb")), other_build).fault is not None


@pytest.mark.parametrize(("taint", "outcome"), [(1 << 12, None), (1 << 9, "warned"), (1 << 7, "died"), (-1, "tainted")])
def test_a_kernel_that_has_warned_is_no_witness(taint: int, outcome: str | None) -> None:
    judge = judged(good_records(), tainted=taint)
    assert (judge.fault is None) is (outcome is None)
    if judge.fault is not None and outcome is not None:
        assert outcome in judge.fault.detail


def test_a_fault_of_the_job_is_told() -> None:
    judge = judged([hello(), {"t": "fault", "reason": "the job disk cannot be unpacked"}])
    assert judge.fault is not None
    assert judge.fault.outcome is Outcome.FAULT
    assert "unpacked" in judge.fault.detail
