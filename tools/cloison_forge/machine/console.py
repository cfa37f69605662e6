# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching a console: has the kernel started, and does it complain?"""

from __future__ import annotations

import re
from collections import deque

_STARTED = re.compile(r"Linux version \d")
_PANIC = re.compile(r"Kernel panic - not syncing|Kernel mode fault at|end Kernel panic")

# What kernel developers look for in a log. `kmemleak` and `unreferenced object` come with debug
# kernels; a hung or stalled task may be the machine's own slowness, but then the run proves nothing.
_COMPLAINTS = re.compile(
    r"""BUG:|BUG\ at|kernel\ BUG|WARNING:|Oops|general\ protection\ fault|Unable\ to\ handle\ kernel
      |KASAN:|KCSAN:|KMSAN:|UBSAN:|KFENCE:|double\ fault|stack-protector:|Internal\ error
      |possible\ (?:circular|recursive)\ locking|possible\ irq\ lock\ inversion|inconsistent\ lock\ state
      |bad\ unlock\ balance|suspicious\ RCU\ usage|held\ lock\ freed|lock\ held\ when\ returning
      |Nested\ lock\ was\ not\ taken|possible\ deadlock|INFO:\ lockdep\ is\ turned\ off
      |MAX_LOCK(?:DEP|_DEPTH).*too\ low|refcount_t:|list_(?:add|del)\ corruption
      |detected\ stalls\ on|self-detected\ stall|blocked\ for\ more\ than\ \d+\ seconds
      |soft\ lockup|hard\ LOCKUP|scheduling\ while\ atomic|sleeping\ function\ called
      |kmemleak:\ \d+\ new\ suspected|unreferenced\ object\ 0x|nobody\ cared
      |Call\ Trace:""",
    re.VERBOSE,
)
# Killing for memory is told with a call trace, within so many lines; nothing is wrong with the kernel.
_OOM, _OOM_LINES = re.compile(r"invoked oom-killer:"), 10
# Said by a healthy kernel, and harmless: kmemleak's and KASAN's own announcements name nothing wrong.
_HARMLESS = re.compile(r"spectre|Spectre|MDS|KernelAddressSanitizer initialized")


class Console:
    """Collects a console's text.

    `started` says that a kernel has begun to speak, `panic` holds the line of a panic,
    `complaints` the lines (at most 50) that must not be there.
    """

    BEFORE, AFTER = 6, 4

    def __init__(self) -> None:
        self.started = False
        self.panic = ""
        self.complaints: list[str] = []
        self.tail: deque[str] = deque(maxlen=15)
        self._rest = ""
        self._around: list[str] = []
        self._follow = 0
        self._oom = 0

    def excerpt(self) -> list[str]:
        """Return the lines that tell most: those around the first complaint or panic, else the last ones."""
        return self._around or list(self.tail)[-8:]

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        text = self._rest + data.decode("utf-8", "replace").replace("\r", "")
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > 16384:
            self.close()

    def close(self) -> None:
        """Take what is left after the last line break."""
        rest, self._rest = self._rest, ""
        if rest:
            self._take(rest)

    def _take(self, line: str) -> None:
        if line.strip():
            self.tail.append(line[:300])
            if self._follow > 0:
                self._around.append(line[:300])
                self._follow -= 1
        bad = bool(self.panic or self.complaints)
        self._oom = _OOM_LINES if _OOM.search(line) else max(0, self._oom - 1)
        told = self._oom > 0 and line.rstrip().endswith("Call Trace:")
        self.started = self.started or bool(_STARTED.search(line))
        if not self.panic and _PANIC.search(line):
            self.panic = line.strip()[:300]
        elif _COMPLAINTS.search(line) and not _HARMLESS.search(line) and not told and len(self.complaints) < 50:
            self.complaints.append(line.strip()[:300])
        if not bad and (self.panic or self.complaints):
            self._around = list(self.tail)[-self.BEFORE :]
            self._follow = self.AFTER
