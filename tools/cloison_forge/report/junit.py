# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as JUnit XML, for CI systems."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from cloison_forge.core.errors import UsageError
from cloison_forge.core.stage import atomic_file
from cloison_forge.report.model import Report, Row

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def render(report: Report) -> bytes:
    """Return the document. A check that was not reported is an error, as is a machine that failed."""
    root = ET.Element("testsuites", name=f"cloison {report.lane}")
    for suite in sorted({row.check.suite for row in report.rows}):
        rows = [row for row in report.rows if row.check.suite == suite]
        element = ET.SubElement(root, "testsuite", name=f"{report.lane}.{suite}", tests=str(len(rows)))
        for status, name in (("failed", "failures"), ("not_reported", "errors"), ("skipped", "skipped")):
            element.set(name, str(sum(row.result.status == status for row in rows)))
        for row in rows:
            _case(element, report.lane, row)
    if report.problems:
        element = ET.SubElement(root, "testsuite", name=f"{report.lane}.machine", tests="1", errors="1")
        case = ET.SubElement(element, "testcase", classname=f"{report.lane}.machine", name="ending")
        ET.SubElement(case, "error", message=_clean(report.outcome)).text = _clean("\n".join(report.problems))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(parent: ET.Element, lane: str, row: Row) -> None:
    result = row.result
    seconds = f"{(result.milliseconds or 0) / 1000:.3f}"
    case = ET.SubElement(
        parent,
        "testcase",
        classname=f"{lane}.{row.check.suite}",
        name=f"{row.check.id}: {row.check.title}",
        time=seconds,
    )
    if result.status == "skipped":
        ET.SubElement(case, "skipped", message=_clean(result.detail))
    elif result.status != "passed":
        kind = "error" if result.status == "not_reported" else "failure"
        element = ET.SubElement(case, kind, message=_clean(result.detail))
        element.text = _clean(
            f"attack: {row.check.attack}\nexpected: {' or '.join(row.check.expected)}\nseen: {result.seen}\n"
            f"errno: {result.errno}\ncontrol: {row.control}"
        )


def write(path: Path, report: Report) -> None:
    """Write the document, whole or not at all."""
    try:
        with atomic_file(path) as beside:
            beside.write_bytes(render(report))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="name another file for --junit") from None
