# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke test`: numbered gates, from seconds without a machine to booted machines.

Each gate is a function that raises a `ForgeError` when it fails. All gates run, whatever failed
before them, except that a gate whose foundation failed is named as not run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cloison_forge.core import ui
from cloison_forge.core.errors import CheckError, ExitStatus, ForgeError, MachineError
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.pipeline import Request


@dataclass(frozen=True)
class Gate:
    """One numbered step of the tests; `long` ones run only with `--all`."""

    name: str
    what: str
    action: Callable[[Request], None]
    long: bool = False


def _lint(_: Request) -> None:
    root = project().root
    run([sys.executable, "-m", "ruff", "check", "."], cwd=root)
    run([sys.executable, "-m", "ruff", "format", "--check", "."], cwd=root)
    run([sys.executable, "-m", "mypy"], cwd=root)
    run(["shellcheck", "invoke", ".ci/run"], cwd=root)


def _pytest(folder: str, *words: str) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", f"tests/{folder}", *words]
    log = project().build / "logs" / f"pytest-{folder}.log"
    log.unlink(missing_ok=True)
    junit = project().build / "reports" / f"pytest-{folder}.xml"
    result = run([*argv, f"--junit-xml={junit}"], cwd=project().root, log=log, check=False)
    lines = result.output.rstrip().splitlines() or ["no output"]
    if result.status != 0:
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
        raise CheckError(
            "\n          | ".join([f"tests/{folder}: {lines[-1]}", *failed[-20:]]), hint=f"the whole output is in {log}"
        )
    ui.note("test", lines[-1].strip("= "))


def _unit(_: Request) -> None:
    _pytest("unit", "-n", "auto")


def _series(request: Request) -> None:
    from cloison_forge.series import api

    api.check(request.kernel_line, build=False)


def _series_builds(request: Request) -> None:
    from cloison_forge.series import api

    api.check(request.kernel_line, build=True)


def _verify(lane: str, way: str = "", suite: str = "") -> Callable[[Request], None]:
    name = "-".join(filter(None, (lane, way, suite)))

    def action(request: Request) -> None:
        from cloison_forge.machine import api

        reports = project().build / "reports"
        status = api.verify(
            api.VerifyOptions(
                request=request,
                lane=lane,
                way=way,
                suite=suite,
                json=str(reports / f"verify-{name}.json"),
                junit=str(reports / f"verify-{name}.xml"),
                html=str(reports / f"verify-{name}.html"),
            )
        )
        if status == ExitStatus.CHECK:
            raise CheckError(f"lane {name}: checks failed", hint=f"see {reports / f'verify-{name}.html'}")
        if status != ExitStatus.GOOD:
            raise MachineError(f"lane {name}: the machine failed", hint=f"see {reports / f'verify-{name}.html'}")

    return action


def _kunit(request: Request) -> None:
    from cloison_forge.machine import kunit

    if kunit.kunit(request, str(project().build / "reports" / "kunit.json")) != ExitStatus.GOOD:
        raise CheckError("KUnit tests of the series failed", hint="./invoke kunit shows them")


def _kselftest(request: Request) -> None:
    from cloison_forge.machine import kselftest

    if kselftest.kselftest(request, json=str(project().build / "reports" / "kselftest.json")) != ExitStatus.GOOD:
        raise CheckError("kselftests of the series failed", hint="./invoke kselftest shows them")


def _mutate(request: Request) -> None:
    from cloison_forge import mutation

    if mutation.mutate(request, json=str(project().build / "reports" / "mutate.json")) != ExitStatus.GOOD:
        raise CheckError("a hook can be turned off unnoticed", hint="./invoke mutate shows them")


def _stress(request: Request) -> None:
    from cloison_forge import stress

    if stress.stress(replace(request, profile="debug"), lane="qemu", minutes=10) != 0:
        raise CheckError("the stress program failed", hint="./invoke stress shows what it says")


def _build(request: Request) -> None:
    from cloison_forge import pipeline

    pipeline.build(request)


def _kselftest_net(request: Request) -> None:
    from cloison_forge.machine import kselftest_net

    report = str(project().build / "reports" / "kselftest-net.json")
    if kselftest_net.compare(request, lane="qemu", json=report) != ExitStatus.GOOD:
        raise CheckError("the series changes results of the kernel's own selftests", hint="./invoke kselftest.net")


def _machines(_: Request) -> None:
    _pytest("vm")


GATES = (
    Gate("lint", "ruff, mypy --strict, shellcheck", _lint),
    Gate("unit", "unit tests, no machine", _unit),
    Gate("series", "the series applies with fuzz 0 and offset 0 and keeps its rules", _series),
    Gate("uml", "the checks in lane uml", _verify("uml")),
    Gate("kselftest", "the series' own selftests, lane uml", _kselftest),
    Gate("build", "the host image, booted once", _build),
    Gate("qemu", "the checks in lane qemu", _verify("qemu")),
    Gate("vm", "tests that boot machines: ways to boot, shell, broken input", _machines),
    Gate(
        "servers",
        "five servers, each in two guests on one port, under load; lane qemu",
        _verify("qemu", suite="servers"),
        long=True,
    ),
    Gate("kunit", "the series' KUnit tests, lane uml", _kunit, long=True),
    Gate("kselftest-net", "the kernel's own socket selftests, with and without the series", _kselftest_net, long=True),
    Gate("xen", "the checks in lane xen, in its first domain", _verify("xen"), long=True),
    Gate("xen-pv", "the checks in lane xen, in a guest", _verify("xen", "pv"), long=True),
    Gate("bochs", "the checks in lane bochs", _verify("bochs"), long=True),
    Gate("mutate", "each hook off in turn", _mutate, long=True),
    Gate("stress", "ten minutes of contexts under a debug kernel", _stress, long=True),
    Gate("bisect", "every patch builds with the option on and off, no new warnings", _series_builds, long=True),
)


def run_gates(request: Request, *, everything: bool = False, only: str = "") -> ExitStatus:
    """Run the gates (or those named in `only`, separated by commas); return the status of the first that failed."""
    chosen = [gate for gate in GATES if everything or only or not gate.long]
    if only:
        names = only.split(",")
        unknown = sorted(set(names) - {gate.name for gate in GATES})
        if unknown:
            from cloison_forge.core.errors import UsageError

            known = ", ".join(gate.name for gate in GATES)
            raise UsageError(f"no gate '{unknown[0]}'", hint=f"gates: {known}")
        chosen = [gate for gate in GATES if gate.name in names]
    rows: list[list[str]] = []
    errors: list[ForgeError] = []
    for number, gate in enumerate(chosen, 1):
        ui.note("test", f"gate {number} of {len(chosen)}, {gate.name}: {gate.what}")
        begun = time.monotonic()
        try:
            gate.action(request)
            verdict = "passed"
        except ForgeError as error:
            ui.report_error(error)
            verdict = "FAILED"
            errors.append(error)
        rows.append([str(number), gate.name, gate.what, verdict, ui.seconds(time.monotonic() - begun)])
    ui.table("./invoke test", ["", "gate", "what", "verdict", "took"], rows)
    for again in errors:  # once more: a CI page often shows the last lines only
        ui.report_error(again)
    return ExitStatus(errors[0].status) if errors else ExitStatus.GOOD
