# SPDX-License-Identifier: GPL-2.0-or-later
"""The series' kselftests: built from the patched tree, run in a machine, read as KTAP, fail-closed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cloison_forge.core import output, ui
from cloison_forge.core.errors import BuildError, ExitStatus
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage
from cloison_forge.machine import api
from cloison_forge.pipeline import Request
from cloison_forge.report import ktap

SCHEMA = "cloison-kselftest-1"
FOLDER = "tools/testing/selftests/vserver"
# stress runs until it is told to stop (./invoke stress has a clock); oom_test has 30 s to fill the machine's
# memory, which a machine on a busy host does not keep (check process.oom-victim proves the same without a clock).
LEFT_OUT = ("stress", "oom_test")
_RUN = "cd /mnt/share || exit 1; for test in {names}; do ./$test >$test.ktap 2>&1; echo $? >$test.status; done"


def install_headers(tree: Path, out: Path, log: Path) -> list[str]:
    """Install the kernel's headers for programs into `out`/headers; return make's words that use them."""
    run(["make", "-C", tree, f"O={out / 'headers'}", "headers"], log=log)
    return [f"KHDR_INCLUDES=-isystem {out / 'headers'}/usr/include"]


def programs(request: Request) -> Stage:
    """Build the selftests of the patched tree, static; return the stage that holds them."""
    from cloison_forge import pipeline

    applied = pipeline.patched(request)
    folder = project().line(request.line)
    stage = Stage("kselftest", folder / "kselftest", {"tree": applied.key, "series": applied.series_sha256})

    def make(out: Path) -> None:
        log = folder / "logs" / "kselftest.log"
        log.unlink(missing_ok=True)
        with ui.step("kselftest", "building the series' selftests"):
            words = [f"OUTPUT={out}", *install_headers(applied.path, out, log), "LDFLAGS=-static"]
            run(["make", "-C", applied.path / FOLDER, *words], log=log)
        shutil.rmtree(out / "headers")

    if not stage.fresh():
        stage.ensure(make)
    return stage


def run_tests(request: Request, lane: str) -> list[ktap.Test]:
    """Run the selftests in one machine of `lane`; the machine itself must end well."""
    built = programs(request)
    names = sorted(path.name for path in built.out.iterdir() if path.is_file() and path.stat().st_mode & 0o111)
    names = [name for name in names if name not in LEFT_OUT]
    if not names:
        raise BuildError(f"{FOLDER} builds no program", hint=f"see {built.out}")
    with tempfile.TemporaryDirectory(prefix="cloison-kselftest-") as place:
        share = Path(place)
        for name in names:
            shutil.copy(built.out / name, share)
        command = ("sh", "-c", _RUN.format(names=" ".join(names)))
        status, machine = api.shell_run(
            api.ShellOptions(request=Request(line=request.line), lane=lane, share=place, command=command)
        )
        if status != 0 or not machine.good:
            raise api.failure(machine, f"lane {lane}: selftests (status {status})")
        kept = project().line(request.line) / "logs" / "kselftest"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(share, kept, ignore=lambda _, files: [file for file in files if not file.endswith(".ktap")])
        return [_read(share, name) for name in names]


def _read(share: Path, name: str) -> ktap.Test:
    """Parse one program's output; a status that is not 0 fails it whatever it printed."""
    text = (share / f"{name}.ktap").read_text(encoding="utf-8", errors="replace")
    result = ktap.parse(text, name)
    status = (share / f"{name}.status").read_text(encoding="utf-8").strip()
    if status != "0" and result.status == "passed":
        result.status = "failed"
        result.problems.append(f"exit status {status}")
    return result


def kselftest(request: Request, *, lane: str = "uml", json: str = "") -> ExitStatus:
    """Run the selftests, print what became of each program, and return the status."""
    results = run_tests(request, lane)
    rows = []
    for result in results:
        leaves = result.leaves()
        failed = [leaf.name for leaf in leaves if leaf.status not in ("passed", "skipped")]
        skipped = sum(leaf.status == "skipped" for leaf in leaves)
        rows.append([result.name, result.status, str(len(leaves)), str(skipped), ", ".join(failed)])
    if json:
        keys = ("program", "status", "tests", "skipped", "failed")
        answer = {"schema": SCHEMA, "lane": lane, "programs": [dict(zip(keys, row, strict=True)) for row in rows]}
        output.write(json, answer)
    if json != "-":
        ui.table(f"kselftests, lane {lane}", ["program", "status", "tests", "skipped", "failed"], rows)
    for result in results:
        for problem in result.all_problems():
            ui.say(f"kselftest: {result.name}: {problem}")
    if not ktap.passed(results):
        ui.say(f"kselftest: what they printed is in {project().line(request.line) / 'logs' / 'kselftest'}")
    return ExitStatus.GOOD if ktap.passed(results) else ExitStatus.CHECK
