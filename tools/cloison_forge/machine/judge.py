# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge: holds the host's own plan and believes nothing else. What has not been reported well has failed.

It takes the records of the result channel one by one, in the order in which they must come: hello,
then begin and end for each planned check in the order of the plan, then bye. The first record out of
place ends the hearing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloison_forge.machine.outcome import Ending, Outcome
from cloison_forge.machine.protocol import Record
from cloison_verify.catalogue import Check, KernelWithout

PROTOCOL = 1
# Taint flags that mean a kernel bug: bad page, died, warned, soft lockup (Documentation/admin-guide/tainted-kernels).
_BAD_TAINT = {5: "bad page", 7: "died", 9: "warned", 14: "soft lockup"}


@dataclass(frozen=True)
class Expected:
    """What the host knows in advance.

    `role` is "main", "control" or "measure". `release` is the kernel's ``uname -r``; `config` its
    configuration file, compared when that kernel offers it; empty values are not compared.
    """

    nonce: str
    plan: Sequence[Check] = ()
    role: str = "main"
    release: str = ""
    config: Path | None = None
    build_id: str = ""


@dataclass(frozen=True)
class ControlResult:
    """What came of a positive control: `status` is passed, failed, elsewhere or missing."""

    kind: str
    expected: str
    seen: str
    status: str


@dataclass(frozen=True)
class CheckResult:
    """What came of one check: `status` is passed, failed, skipped or not_reported; `note` holds its figures."""

    id: str
    status: str
    expected: str = ""
    seen: str = ""
    errno: str | None = None
    control: ControlResult | None = None
    detail: str = ""
    milliseconds: int | None = None
    note: str = ""


@dataclass
class Judge:
    """Hears one machine. `fault` is set by the first thing that is not as it must be."""

    expected: Expected
    fault: Ending | None = None
    hello: dict[str, Any] | None = None
    ended: bool = False
    results: dict[str, CheckResult] = field(default_factory=dict)
    current: Check | None = None

    def __post_init__(self) -> None:
        for check in self.expected.plan:
            self.results[check.id] = CheckResult(check.id, "not_reported", detail="the machine never came to it")

    def hear(self, record: Record) -> None:
        """Take one record."""
        if self.fault is not None:
            return
        if self.hello is None:
            if record.kind != "hello":
                self._refuse(f"'{record.kind}' before hello")
                return
            self._hear_hello(record.fields)
        elif record.kind == "begin":
            self._hear_begin(record.fields)
        elif record.kind == "end":
            self._hear_end(record.fields)
        elif record.kind == "bye":
            self._hear_bye(record.fields)
        elif record.kind == "fault":
            self.fault = Ending(Outcome.FAULT, str(record.fields.get("reason", ""))[:300])
        else:
            self._refuse(f"'{record.kind}' is out of place")

    def stream_fault(self, reason: str) -> None:
        """Take note that the stream itself is broken."""
        if self.fault is None:
            self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        self.fault = Ending(Outcome.BAD_STREAM, reason)

    def _hear_hello(self, fields: dict[str, Any]) -> None:
        self.hello = fields
        if fields.get("proto") != PROTOCOL:
            self._refuse(f"hello speaks protocol {fields.get('proto')}, not {PROTOCOL}")
        elif fields.get("nonce") != self.expected.nonce:
            self._refuse("wrong nonce: this is the answer to another job")
        else:
            ids = "".join(f"{check.id}\n" for check in self.expected.plan)
            plan = {"count": len(self.expected.plan), "sha256": hashlib.sha256(ids.encode()).hexdigest()}
            if fields.get("plan") != plan:
                self._refuse("the machine holds another plan")
            else:
                self._check_kernel(fields)

    def _check_kernel(self, fields: dict[str, Any]) -> None:
        uname = fields.get("uname")
        release = uname.get("release") if isinstance(uname, dict) else None
        problem = ""
        if self.expected.release and release != self.expected.release:
            problem = f"kernel {release} runs, {self.expected.release} was asked for"
        elif self.expected.build_id and fields.get("build_id") not in (None, self.expected.build_id):
            problem = "the running kernel has another build id than the one that was asked for"
        elif self.expected.config is not None:
            problem = _compare_config(fields.get("config"), self.expected.config)
        if problem:
            self.fault = Ending(Outcome.WRONG_KERNEL, problem)

    def _hear_begin(self, fields: dict[str, Any]) -> None:
        name = str(fields.get("id"))
        wanted = next((check for check in self.expected.plan if self.results[check.id].status == "not_reported"), None)
        if self.current is not None:
            self._refuse(f"{name} begins while {self.current.id} has not ended")
        elif name not in self.results:
            self._refuse(f"unknown check {name!r}")
        elif wanted is None or name != wanted.id:
            self._refuse(f"{name} begins a second time or out of turn")
        else:
            self.current = wanted
            self.results[wanted.id] = CheckResult(wanted.id, "not_reported", detail="began and never ended")

    def _hear_end(self, fields: dict[str, Any]) -> None:
        name, check = str(fields.get("id")), self.current
        if name not in self.results:
            self._refuse(f"unknown check {name!r}")
        elif check is None or name != check.id:
            self._refuse(f"{name} ends without having begun")
        else:
            self.current = None
            self.results[check.id] = _result(check, self.expected.role, fields)

    def _hear_bye(self, fields: dict[str, Any]) -> None:
        missing = [result.id for result in self.results.values() if result.status == "not_reported"]
        if missing:
            self._refuse(f"bye, and {missing[0]} has not been reported")
            return
        self.ended = True
        taint = fields.get("tainted")
        if not isinstance(taint, int) or taint < 0:
            self._refuse("bye does not tell whether the kernel is tainted")
            return
        bad = [meaning for bit, meaning in _BAD_TAINT.items() if taint >> bit & 1]
        if bad:
            self.fault = Ending(Outcome.OOPS, f"the kernel is tainted: {', '.join(bad)}")


def _compare_config(told: object, path: Path) -> str:
    """Compare what the kernel tells of its configuration with the file; say what is wrong, or nothing."""
    data = path.read_bytes()
    if told is None:
        offers = b"\nCONFIG_IKCONFIG_PROC=y\n" in data
        return "the kernel does not show its configuration, though built to" if offers else ""
    mine = {"crc32": f"{zlib.crc32(data):08x}", "size": len(data)}
    return "" if told == mine else "the running kernel was built from another configuration"


def _text(value: object) -> str:
    return value[:4000] if isinstance(value, str) else ""


def _result(check: Check, role: str, fields: dict[str, Any]) -> CheckResult:
    """Judge one ``end``. Everything must be there and make sense, or the check has failed."""
    status, errno = fields.get("status"), fields.get("errno")
    detail = ""
    control = None
    if role == "main":
        control, detail = _control(check, fields.get("control"))
    seen = _text(fields.get("seen"))
    wanted = {"main": check.expected, "control": check.control.expected}.get(role, (seen,))  # a measure: anything
    if status == "skipped":
        detail = "skipped, which the catalogue does not declare for this lane"
    elif status not in ("passed", "failed"):
        detail = f"status {status!r} is none"
    elif status == "passed" and seen not in wanted:
        detail = "reported as passed with something else seen than expected"
    elif status == "failed" and not detail:
        detail = f"saw {seen!r}"
    good = status == "passed" and not detail
    milliseconds = fields.get("ms")
    return CheckResult(
        check.id,
        "passed" if good else "failed",
        expected=" or ".join(wanted),
        seen=seen,
        errno=errno if isinstance(errno, str) else None,
        control=control,
        detail=detail,
        milliseconds=milliseconds if isinstance(milliseconds, int) else None,
        note=_text(fields.get("note")),
    )


def _control(check: Check, told: object) -> tuple[ControlResult, str]:
    """Judge the control that came with an ``end``; return it and what is wrong with it."""
    wanted = " or ".join(check.control.expected)
    if not isinstance(told, dict) or told.get("kind") != check.control.kind:
        return ControlResult(check.control.kind, wanted, "", "missing"), "its positive control is missing"
    seen, status = _text(told.get("seen")), told.get("status")
    if isinstance(check.control, KernelWithout):
        # Judged later, by what the control machine sees; nothing said here could prove it.
        problem = "" if status == "elsewhere" else "its positive control belongs to another machine"
        return ControlResult(check.control.kind, wanted, "", "elsewhere"), problem
    good = status == "passed" and seen in check.control.expected
    return (
        ControlResult(check.control.kind, wanted, seen, "passed" if good else "failed"),
        "" if good else f"its positive control failed: expected {wanted}, saw {seen!r}",
    )
