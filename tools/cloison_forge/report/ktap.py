# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading KTAP, which KUnit and kselftest print. Fail-closed: what is not plainly good has failed.

KTAP (Documentation/dev-tools/ktap.rst) is TAP 13 with indented subtests. Both speakers are read:
KUnit prints into the kernel log (time stamps are taken off), kselftest prints ``TAP version 13``.
A missing plan, a number out of order, fewer results than planned, a parent that says ok although a
child failed, a bail-out, a crash in the middle: each is a failure with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_STAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[[^\]]*\])? ?")
_VERSION = re.compile(r"(?:KTAP version 1|TAP version 13)\s*$")
_PLAN = re.compile(r"1\.\.(\d+)(?:\s*#\s*(.*))?$")
_RESULT = re.compile(r"(ok|not ok) (\d+)(?: -)?(?: ([^#]*?))?\s*(?:#\s*(.*))?$")


@dataclass
class Test:
    """One test or suite: `status` is passed, failed or skipped; `problems` say why a test failed."""

    name: str
    status: str = "failed"
    children: list[Test] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    planned: int | None = None

    def leaves(self) -> list[Test]:
        """Return the tests without subtests, this one if it has none."""
        return [leaf for child in self.children for leaf in child.leaves()] if self.children else [self]

    def all_problems(self) -> list[str]:
        """Return the problems of this test and all below it, with their names."""
        own = [f"{self.name}: {problem}" for problem in self.problems]
        return own + [problem for child in self.children for problem in child.all_problems()]


@dataclass
class _Level:
    """A list of results that is being read, and how far it is indented."""

    indent: int
    into: Test


def parse(text: str, name: str = "ktap") -> Test:
    """Read one KTAP document; the result's `status` is passed only if everything in it is."""
    root = Test(name)
    reader = _Reader(root)
    for line in text.splitlines():
        reader.take(_STAMP.sub("", line.rstrip()))
    reader.end()
    _settle(root)
    return root


class _Reader:
    """Builds the tree line by line. Lines that are not KTAP are other people's output and are passed over."""

    def __init__(self, root: Test) -> None:
        self._root = root
        self._levels: list[_Level] = []
        self._pending: dict[int, Test] = {}  # subtests read so far, waiting for their parent's result line

    def take(self, line: str) -> None:
        """Take one line without its time stamp."""
        body = line.lstrip(" ")
        indent = len(line) - len(body)
        if _VERSION.match(body):
            self._open(indent)
        elif self._levels and body.startswith("Bail out!"):
            self._root.problems.append(body)
        elif (plan := _PLAN.match(body)) and self._levels:
            self._plan(indent, int(plan[1]))
        elif (result := _RESULT.match(body)) and self._levels:
            self._result(indent, result)

    def _open(self, indent: int) -> None:
        """Begin a document, or the subtests of a test whose own line comes after them."""
        if not self._levels:
            self._levels.append(_Level(indent, self._root))
        elif indent > self._levels[-1].indent:
            test = Test("(unfinished)")
            self._pending[self._levels[-1].indent] = test
            self._levels.append(_Level(indent, test))
        else:
            self._root.problems.append("a second version line where no subtest can begin")

    def _level(self, indent: int) -> _Level | None:
        """Return the level of this indentation, closing deeper ones (a plain kselftest child has none)."""
        while len(self._levels) > 1 and self._levels[-1].indent > indent:
            self._levels.pop()
        return self._levels[-1] if self._levels[-1].indent == indent else None

    def _plan(self, indent: int, count: int) -> None:
        level = self._level(indent)
        if level is None:
            self._root.problems.append("a plan outside every list of tests")
        elif level.into.planned is not None or level.into.children:
            level.into.problems.append("a plan that comes twice or late")
        else:
            level.into.planned = count

    def _result(self, indent: int, found: re.Match[str]) -> None:
        level = self._level(indent)
        if level is None:
            self._root.problems.append(f"a result outside every list of tests: {found[0]}")
            return
        ok, number, name, directive = found[1] == "ok", int(found[2]), (found[3] or "").strip(), found[4] or ""
        test = self._pending.pop(indent, None) or Test(name)
        test.name = name or f"test {number}"
        word = directive.split(" ", 1)[0].upper().rstrip(":")
        if ok:
            test.status = "skipped" if word == "SKIP" else "passed"
        else:
            test.problems.append(directive or "not ok")
        if word in ("TODO", "XFAIL", "TIMEOUT", "ERROR") and ok:
            test.status = "failed"
            test.problems.append(f"ok, but marked {word}")
        level.into.children.append(test)
        if number != len(level.into.children):
            level.into.problems.append(f"result {number} where {len(level.into.children)} was due")

    def end(self) -> None:
        """Take note of what never came."""
        if not self._levels:
            self._root.problems.append("no KTAP version line: nothing ran")
        for indent, test in self._pending.items():
            test.problems.append("ended without a result of its own")
            for level in self._levels:
                if level.indent == indent:
                    level.into.children.append(test)


def _settle(test: Test, *, top: bool = True) -> None:
    """Give every test its final status, from the leaves up.

    Subtests may come without a plan (KUnit's parameters do): the result line of their parent is what
    shows that all of them have come.
    """
    for child in test.children:
        _settle(child, top=False)
    if test.planned is None and top and not test.problems:
        test.problems.append("no plan")
    if test.planned is not None and test.planned != len(test.children):
        test.problems.append(f"{test.planned} planned, {len(test.children)} reported")
    if test.planned == 0 and test.status != "skipped":
        test.problems.append("an empty plan proves nothing")
    if any(child.status == "failed" for child in test.children):
        test.problems.append("a test below failed")
    if test.problems:
        test.status = "failed"
    elif top:
        test.status = "skipped" if all(leaf.status == "skipped" for leaf in test.leaves()) else "passed"


def passed(roots: Iterable[Test]) -> bool:
    """Say whether there is at least one document, and all of them passed."""
    every = list(roots)
    return bool(every) and all(root.status == "passed" for root in every)
