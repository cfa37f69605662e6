# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own critics: checkpatch on each patch; kernel-doc, sparse and gcc's W=1 before and after.

Sparse and gcc print plenty on an untouched kernel, so only what the series adds counts: messages in
the files it touches, without their line numbers, more often than in the pristine file.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from cloison_forge.core.errors import BuildError
from cloison_forge.core.run import require, run
from cloison_forge.core.stage import digest_bytes, digest_file, write_json
from cloison_forge.series.findings import Finding
from cloison_forge.series.fitting import Content, place
from cloison_forge.series.reading import Patch, Series

_CHECKPATCH = re.compile(r"^(?P<file>.+?):(?P<line>\d+): (?:ERROR|WARNING|CHECK):(?P<kind>[A-Z_0-9]+): (?P<text>.*)$")
_MESSAGE = re.compile(
    r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:\d+:)? ?(?P<level>(?:fatal )?(?:warning|error)): (?P<text>.*)$"
)
_NO_RULE = re.compile(r"No rule to make target '([^']+\.o)'")
_ERROR = re.compile(r" (?:fatal )?error: |undefined reference|multiple definition|^ERROR: ")
_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|\d+)\b")
_DOCUMENTED = (".c", ".h")

Messages = Counter[tuple[str, str]]


def checkpatch(series: Series, tree: Path, memory: Path, key: str) -> list[Finding]:
    """Run ``checkpatch --strict`` of `tree` on every patch; whatever it prints is new, since it looks at patches.

    What it said of a patch is remembered in `memory`, for this patch and the source tree named by `key`.
    """
    script = tree / "scripts" / "checkpatch.pl"
    if not script.is_file():
        raise BuildError(f"{script} is missing", hint="is this a kernel source?")
    require("perl", why="for the kernel's checkpatch")

    def one(patch: Patch) -> list[Finding]:
        digest = digest_bytes(f"{key}\0{digest_file(script)}\0{patch.name}\0{digest_bytes(patch.data)}".encode())
        known = memory / f"checkpatch-{digest}.json"
        if known.is_file():
            return [Finding(**entry) for entry in json.loads(known.read_text(encoding="utf-8"))]
        found = _checkpatch(patch, tree, script)
        write_json(known, [asdict(finding) for finding in found])
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for found in pool.map(one, series.patches) for finding in found]


def _checkpatch(patch: Patch, tree: Path, script: Path) -> list[Finding]:
    options = ["--strict", "--terse", "--show-types", "--no-summary", "--color=never", f"--root={tree}"]
    env = {"LC_ALL": "C", "GIT_DIR": os.devnull}
    result = run(["perl", script, *options, patch.path.resolve()], cwd=tree, env=env, check=False)
    matches = [match for match in map(_CHECKPATCH.match, result.output.splitlines()) if match]
    if result.status not in (0, 1) or (result.status == 1 and not matches):
        raise BuildError(
            f"checkpatch did not do its work on {patch.name}: " + " / ".join(result.output.splitlines()[-3:]),
            hint=f"look at {script}",
        )
    return [Finding(patch.name, f"line {match['line']}: {match['text']}", match["kind"]) for match in matches]


def kernel_doc(
    tree: Path,
    before: Mapping[str, Content | None],
    after: Mapping[str, Content | None],
    scratch: Path,
) -> list[Finding]:
    """Run ``kernel-doc -none`` on both states of the touched C files, in an empty folder; return what is new."""
    script = tree / "scripts" / "kernel-doc"
    if not script.is_file():
        raise BuildError(f"{script} is missing", hint="is this a kernel source?")
    old, new = _kernel_doc(script, before, scratch / "a"), _kernel_doc(script, after, scratch / "b")
    return new_messages(old, new, set(after))


def _kernel_doc(script: Path, files: Mapping[str, Content | None], folder: Path) -> Messages:
    names = [name for name, what in files.items() if what is not None and name.endswith(_DOCUMENTED)]
    folder.mkdir(parents=True)
    for name in names:
        place(folder / name, files[name])
    if not names:
        return Counter()
    result = run([script, "-none", *names], cwd=folder, env={"LC_ALL": "C"}, check=False)
    return messages(result.output.splitlines(), "")


def messages(lines: Iterable[str], prefix: str) -> Messages:
    """Collect compiler-like messages as (file in the tree, text without numbers); `prefix` leads to the tree."""
    found: Messages = Counter()
    for line in lines:
        match = _MESSAGE.match(line)
        if match:
            file = match["file"].removeprefix(prefix).removeprefix("./")
            found[file, _NUMBER.sub("N", f"{match['level']}: {match['text']}")] += 1
    return found


def new_messages(before: Messages, after: Messages, touched: set[str]) -> list[Finding]:
    """Return the messages in touched files that are new, or more often there than before.

    A header's messages come once for each file that includes it; for headers only new texts count.
    """
    found: list[Finding] = []
    for (file, text), count in sorted(after.items()):
        old = before[file, text]
        if file in touched and (old == 0 if file.endswith(".h") else count > old):
            more = f" ({count - old} more)" if old else ""
            found.append(Finding(file, f"{text}{more}", kind_of(text)))
    return found


def kind_of(text: str) -> str:
    """Return gcc's name of a warning, such as 'unused-variable', if the message ends with it."""
    match = re.search(r"\[-W(?:error=)?([\w=+-]+)\]$", text)
    return match[1] if match else ""


def uncompiled(output: str) -> list[str]:
    """Name the objects that make has no rule for: the configuration does not come by their folder."""
    return sorted({match[1] for match in _NO_RULE.finditer(output)})


def errors(output: str) -> list[str]:
    """Return the compiler's and the linker's errors in make's output."""
    return [line for line in output.splitlines() if _ERROR.search(line)]
