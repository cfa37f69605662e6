# SPDX-License-Identifier: GPL-2.0-or-later
"""One report, four renderings, and the statuses that scripts rely on."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.unit.machine_fakes import NONCE, PLAN, _never, end, good_records, hello

from cloison_forge.core.errors import ExitStatus, UsageError
from cloison_forge.machine.console import Console
from cloison_forge.machine.judge import Expected, Judge
from cloison_forge.machine.outcome import Ending, Outcome, Stage
from cloison_forge.machine.protocol import Record
from cloison_forge.machine.supervisor import Run
from cloison_forge.machine.verification import Plan
from cloison_forge.report import html, junit, model, text
from cloison_forge.report.model import Report
from cloison_verify.catalogue import Check, instead

SKIPPED = Check(
    "abi.32-bit",
    "32-bit entry",
    "int 0x80",
    ("ok",),
    instead(_never, "ok", "x"),
    _never,
    ("K38",),
    {"uml": "no 32 bit"},
)
GOOD = Ending(Outcome.READY)


def run(records: list[dict[str, Any]], ending: Ending = GOOD, role: str = "main", plan: Any = PLAN) -> Run:
    judge = Judge(Expected(NONCE, plan, role))
    for record in records:
        fields = dict(record)
        judge.hear(Record(str(fields.pop("t")), fields))
    return Run("uml", Path("/runs/1"), ending, judge, Console(), ready=0.123, took=1.5)


def control_run(seen: str = "ENOSYS", ending: Ending = GOOD) -> Run:
    plan = PLAN[2:]
    status = "passed" if seen == "ENOSYS" else "failed"
    answer = end(plan[0], seen=seen, control=None, status=status)
    return run([hello(plan), {"t": "begin", "id": plan[0].id}, answer], ending, "control", plan)


def report(records: list[dict[str, Any]] | None = None, control: Run | None = None, ending: Ending = GOOD) -> Report:
    plan = Plan("uml", PLAN, (SKIPPED,))
    return model.build(plan, [run(records or good_records(), ending)], control or control_run(), None)


def test_a_good_report() -> None:
    good = report()
    assert good.status is ExitStatus.GOOD
    data = json.loads(json.dumps(good.as_json()))
    assert set(data) == {
        *("schema", "lane", "way", "kernel", "outcome", "planned", "passed", "failed", "skipped", "not_reported"),
        *("checks", "provenance"),
    }
    assert (data["outcome"], data["planned"], data["passed"], data["skipped"]) == ("ready", 3, 3, 1)
    assert [set(check) for check in data["checks"]] == [{"id", "suite", "vectors", "status", "control", "detail"}] * 4
    version = next(check for check in data["checks"] if check["id"] == "abi.version")
    assert version["control"] == {"kind": "kernel-without", "expected": "ENOSYS", "seen": "ENOSYS", "status": "passed"}
    assert data["kernel"] == "6.12.117-cloison"


@pytest.mark.parametrize(
    ("made", "status", "outcome"),
    [
        (report(control=control_run("0x00020308")), ExitStatus.CHECK, "ready"),
        (report(ending=Ending(Outcome.OOPS, "BUG: x")), ExitStatus.MACHINE, "oops"),
        (
            report(good_records()[:-2], ending=Ending(Outcome.TIMEOUT, "", Stage.CHECKS)),
            ExitStatus.MACHINE,
            "timeout at stage checks",
        ),
        (
            report(control=control_run(ending=Ending(Outcome.PANIC, "x"))),
            ExitStatus.MACHINE,
            "machine without the series: panic",
        ),
        (report([*good_records()[:2], end(PLAN[0], seen="0", status="failed"), *good_records()[3:]]), 1, "ready"),
    ],
)
def test_statuses(made: Report, status: int, outcome: str) -> None:
    assert made.status == status
    assert made.outcome == outcome
    assert made.count("passed") < 3 or made.status is ExitStatus.MACHINE


def test_a_missing_control_machine_fails_its_checks() -> None:
    plan = Plan("uml", PLAN, ())
    made = model.build(plan, [run(good_records())], None, None)
    assert made.status is ExitStatus.CHECK
    row = next(row for row in made.rows if row.check.id == "abi.version")
    assert row.control == "missing"
    assert "did not run" in row.result.detail


def test_nothing_run_is_no_success() -> None:
    assert model.build(Plan("uml", (), ()), [run([], plan=())], None, None).status is ExitStatus.CHECK


def bad_report() -> Report:
    nasty = "<script>alert(1)</script>\x00\x1b[31m&"
    records = [*good_records()[:2], end(PLAN[0], seen=nasty, status="failed"), *good_records()[3:5]]
    return report(records, ending=Ending(Outcome.TIMEOUT, "no progress <b>", Stage.CHECKS))


def test_junit_counts_and_survives_what_xml_cannot_hold() -> None:
    root = ET.fromstring(junit.render(bad_report()))
    suite = root.find("testsuite[@name='uml.abi']")
    assert suite is not None
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "1", "1"]
    assert root.find("testsuite[@name='uml.machine']/testcase/error") is not None
    good = ET.fromstring(junit.render(report()))
    assert good.find(".//failure") is None
    assert good.find(".//error") is None


class Balanced(HTMLParser):
    """Checks that elements close in order, and collects text."""

    VOID = ("meta", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


@pytest.mark.parametrize("made", [report(), bad_report()])
def test_the_page_is_whole_escaped_and_needs_nothing_from_elsewhere(made: Report) -> None:
    page = html.render(made)
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert reader.links == []
    assert "<script" not in page
    assert "url(" not in page
    words = " ".join(reader.seen)
    for row in made.rows:
        assert row.check.title in words
    assert ("every planned check passed" in words) is (made.status == 0)


def test_the_map_shows_what_became_of_each_row() -> None:
    proven = Check("p.kill", "kill", "kill", ("ESRCH",), instead(_never, "ok", "x"), _never, ("P07", "P08"))
    broken = Check("p.list", "list", "list", ("HIDE",), instead(_never, "ok", "x"), _never, ("P08", "P01"))
    plan = (proven, broken)
    records = [
        hello(plan),
        *({"t": "begin", "id": "p.kill"}, end(proven)),
        *({"t": "begin", "id": "p.list"}, end(broken, seen="1", status="failed")),
    ]
    made = model.build(Plan("uml", plan, (SKIPPED,)), [run(records, plan=plan)], None, None)
    cells = {cell.vector.id: cell.state for group in html.squares(made).values() for cell in group}
    assert (cells["P07"], cells["P08"], cells["P01"], cells["K38"], cells["P02"]) == (
        *("proven", "failed", "failed", "skipped", "open"),
    )


def test_the_table_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    text.show(bad_report())
    out, err = capsys.readouterr()
    assert "abi.version" in out
    assert "not reported" in out
    assert re.search(r"abi\.32-bit.*no 32 bit", err)
    assert "1 of 3 passed, 1 failed, 1 not reported, 1 skipped" in err


def test_files_are_written_whole_or_refused_clearly(tmp_path: Path) -> None:
    junit.write(tmp_path / "deep" / "r.xml", report())
    html.write(tmp_path / "r.html", report())
    assert ET.parse(tmp_path / "deep" / "r.xml").getroot().tag == "testsuites"
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write"):
        html.write(tmp_path / "file" / "r.html", report())
    with pytest.raises(UsageError, match="cannot write"):
        junit.write(tmp_path / "file" / "r.xml", report())
