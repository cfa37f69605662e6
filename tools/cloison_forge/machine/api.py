# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for the tasks: boot, verify, shell, coverage. Statuses are those of `core.errors.ExitStatus`."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cloison_forge.core import output, ui
from cloison_forge.core.errors import ExitStatus, MachineError, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.machine import buildid, kvm, runs, shards, verification
from cloison_forge.machine import inputs as machine_inputs
from cloison_forge.machine import shell as shell_room
from cloison_forge.machine.inputs import Inputs
from cloison_forge.machine.job import Job
from cloison_forge.machine.judge import Expected, Judge
from cloison_forge.machine.lane import DiskLike, Lane, MachineSpec
from cloison_forge.machine.outcome import Ending, Outcome
from cloison_forge.machine.supervisor import Run, Supervisor
from cloison_forge.pipeline import Request
from cloison_verify import catalogue

if TYPE_CHECKING:
    from cloison_forge.report.model import Report


CONTROL_LANE = "uml"  # where controls on a kernel without the series run, whatever the lane


@dataclass(frozen=True)
class BootOptions:
    """A boot. `way` is one of the lane's, '' for its usual one; `inputs` replaces what would be built."""

    request: Request = field(default_factory=Request)
    lane: str = "qemu"
    way: str = ""
    inputs: Inputs | None = None


@dataclass(frozen=True)
class VerifyOptions:
    """A verification; `way` is one of the lane's ways to boot, '' for its usual one.

    `json`, `junit` and `html` are paths to write to. `jobs` machines share the checks; None leaves the
    number to `verify` (what is worth it on this host) and means one to `verify_report`. `inputs` and
    `control` replace builds.
    """

    request: Request = field(default_factory=Request)
    lane: str = "uml"
    way: str = ""
    suite: str = ""
    json: str = ""
    junit: str = ""
    html: str = ""
    append: str = ""
    jobs: int | None = None
    inputs: Inputs | None = None
    control: Inputs | None = None


@dataclass(frozen=True)
class ShellOptions:
    """A command (its words), or a terminal when there is none. `share` is a host folder, '' for none."""

    request: Request = field(default_factory=Request)
    lane: str = "uml"
    share: str = ""
    command: tuple[str, ...] = ()
    image: str = catalogue.HOST_IMAGE
    inputs: Inputs | None = None


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Turn signals that ask this process to end into an exception, so that no machine is left behind."""

    def stop(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_machine(
    lane: Lane,
    spec: MachineSpec,
    expected: Expected,
    line: str,
    prepare: Callable[[Supervisor], None] | None = None,
    accelerator: str = "",
) -> Run:
    """Run one machine to its end, under `accelerator` ('' is the best that works).

    A KVM that breaks is remembered as broken, and TCG takes over at once.
    """
    why = ""
    if not accelerator:
        accelerator, why = machine_inputs.accelerator(lane)
    if why:
        _say_once(lane.name, why)
    while True:
        with _orderly_end(), runs.run_folder(line, lane.name) as folder:
            supervisor = Supervisor(lane, replace(spec, accelerator=accelerator), expected, folder)
            if prepare is not None:
                prepare(supervisor)
            run = supervisor.run()
        if run.ending.outcome is not Outcome.KVM_BROKEN:
            return run
        reason = f"KVM is present but unusable: {run.ending.detail or 'a kernel did not start under it'}"
        kvm.remember(kvm.Verdict(False, reason))
        ui.note(lane.name, f"{reason}; using QEMU's emulator (TCG)")
        accelerator = "tcg"


@functools.cache
def _say_once(lane: str, line: str) -> None:
    """Say a line about a lane, once in this process."""
    ui.note(lane, line)


def machine_spec(inputs: Inputs, job: Job, **more: object) -> MachineSpec:
    """Return the machine that does `job` with `inputs`; `more` are other fields of `MachineSpec`."""
    spec = MachineSpec(
        inputs.kernel,
        job,
        root=inputs.root,
        disk=inputs.disk,
        memory_mib=inputs.memory_mib,
        hypervisor=inputs.hypervisor,
    )
    return replace(spec, **more)  # type: ignore[arg-type]


def expected(inputs: Inputs, job: Job) -> Expected:
    """Return what the host knows in advance of a machine that does `job`."""
    kernel = inputs.kernel
    if kernel is None:
        release = str(getattr(inputs.disk, "release", ""))
        return Expected(job.nonce, job.plan, job.role, release)
    build_id = buildid.of_image(kernel.image)
    return Expected(job.nonce, job.plan, job.role, kernel.release, kernel.config, build_id)


def run_boot(options: BootOptions) -> Run:
    """Boot a machine that says hello and powers off; return what became of it."""
    lane = machine_inputs.lane_named(options.lane)
    way = machine_inputs.way_named(lane, options.way)
    inputs = options.inputs or machine_inputs.make(options.request, lane)
    job = Job("boot")
    spec = machine_spec(inputs, job, way=way)
    return run_machine(lane, spec, expected(inputs, job), options.request.line)


def boot(options: BootOptions) -> int:
    """Boot a machine once, say how that ended, and return the status."""
    run = run_boot(options)
    way = f", way {options.way}" if options.way else ""
    if run.good:
        ui.note("boot", f"lane {run.lane}{way}: ready in {run.ready or 0:.2f} s, off after {run.took:.2f} s")
        return ExitStatus.GOOD
    raise failure(run, f"lane {run.lane}{way}")


def boot_disk(disk: DiskLike, *, way: str, line: str, kernel: Inputs | None = None) -> Run:
    """Boot a disk image through its own boot loader (`way` is 'bios' or 'uefi')."""
    inputs = Inputs(kernel.kernel if kernel else None, disk=disk)
    return run_boot(BootOptions(Request(line=line), "qemu", way, inputs))


def boot_once(line: Line, disk: DiskLike) -> Run:
    """Boot a finished host image through its BIOS loader; `MachineError` unless it comes up."""
    with ui.step("boot", "the host image, through its own boot loader"):
        run = boot_disk(disk, way="bios", line=line.name)
    if not run.good:
        raise failure(run, "the host image")
    return run


def failure(run: Run, what: str) -> MachineError:
    """Return the error that tells how a machine ended, with the last lines of its console."""
    text = f"{what}: {run.ending}"
    if run.ending.detail:
        text += f": {run.ending.detail}"
    for line in run.console.excerpt():
        text += f"\n          | {line}"
    return MachineError(text, hint=f"console, result channel and command are in {run.folder}")


def _verify_run(options: VerifyOptions, lane: Lane, inputs: Inputs, job: Job, progress: shards.Progress) -> Run:
    """Run the checks of `job` in one machine."""

    def show(judge: Judge) -> None:
        done = sum(result.status != "not_reported" for result in judge.results.values())
        progress(done, judge.current.id if judge.current else "")

    def prepare(supervisor: Supervisor) -> None:
        supervisor.on_progress = show

    # Two processors, for some ways to a process need another that runs; UML has one whatever is asked for.
    spec = machine_spec(inputs, job, way=options.way, append=options.append, processors=2)
    return run_machine(lane, spec, expected(inputs, job), options.request.line, prepare)


def _verify_runs(options: VerifyOptions, lane: Lane, inputs: Inputs, jobs: Sequence[Job], what: str) -> list[Run]:
    """Run several parts of a plan at once, with one bar that shows how far all of them are."""
    bar = ui.Progress("verify", what, sum(len(job.plan) for job in jobs))
    machine_inputs.accelerator(lane)  # probed once, before there are several that would
    tasks = [functools.partial(_verify_run, options, lane, inputs, job) for job in jobs]
    try:
        with _orderly_end():
            return shards.run_all(tasks, bar.update)
    finally:
        bar.finish()


def verify_report(options: VerifyOptions) -> Report:
    """Boot the machines of a lane, run the checks, and return the report."""
    from cloison_forge.report import model
    from cloison_verify import vectors

    lane = machine_inputs.lane_named(options.lane)
    way = machine_inputs.way_named(lane, options.way)
    plan = verification.make_plan(lane.name, options.suite, way)
    vectors.check_references(plan.checks, vectors.load())
    inputs = options.inputs or machine_inputs.make(options.request, lane, plan.image)
    plan = verification.patient(plan, inputs.patience)
    control = None
    if plan.for_control:
        # Any machine without the option will do, since the same program asks it; UML is built soonest.
        where = lane if options.control else machine_inputs.lane_named(CONTROL_LANE)
        without = options.control or machine_inputs.make(replace(options.request, variant="off", profile=""), where)
        job = Job("verify", plan.for_control, role="control")
        [control] = _verify_runs(
            replace(options, way=""), where, without, [job], "controls on a kernel without the series"
        )
    parts = shards.split(plan.checks, options.jobs or 1)
    mains = _verify_runs(options, lane, inputs, [Job("verify", part) for part in parts], "checks")
    for name, run in (("without the series", control), *((f"lane {lane.name}", run) for run in mains)):
        if run is not None and run.ready is not None:
            ui.note("verify", f"{name}: ready in {run.ready:.2f} s, off after {run.took:.1f} s ({run.ending})")
    return model.build(plan, mains, control, inputs.kernel, way)


def verify(options: VerifyOptions) -> int:
    """Verify a lane; print the table, write the files asked for, and return the status."""
    from cloison_forge.report import html, junit, text

    way = machine_inputs.way_named(machine_inputs.lane_named(options.lane), options.way)
    jobs = options.jobs or shards.useful(len(verification.make_plan(options.lane, options.suite, way).checks))
    report = verify_report(replace(options, jobs=jobs))
    if options.json != "-":
        text.show(report)
    if options.json:
        output.write(options.json, report.as_json())
    if options.junit:
        junit.write(Path(options.junit), report)
    if options.html:
        html.write(Path(options.html), report)
    for problem in report.problems:
        ui.report_error(MachineError(problem, hint=f"console and result channel are in {report.folder}"))
    return report.status


def coverage(json: str = "") -> int:
    """List the rows of the catalogue of ways out that no check proves."""
    from cloison_forge.report import text
    from cloison_verify import vectors

    checks = catalogue.load().values()
    rows = vectors.load()
    vectors.check_references(checks, rows)
    missing = vectors.unproven(checks, rows)
    if json:
        output.write(
            json,
            {
                "schema": "cloison-coverage-1",
                "rows": len(rows),
                "unproven": [{"id": row.id, "vector": row.vector, "must_happen": row.must_happen} for row in missing],
            },
        )
    else:
        text.show_coverage(missing, len(rows))
    return ExitStatus.GOOD


def shell_run(options: ShellOptions) -> tuple[int, Run]:
    """Run a command as root in a machine, or carry a terminal; return its exit status and the machine.

    A machine that did not get as far as the command's end is a `MachineError`; one that did, and then did not
    end well, is for the caller to look at.
    """
    lane = machine_inputs.lane_named(options.lane)
    if not lane.terminal:
        raise UsageError(f"lane '{lane.name}' has no way in for a shell", hint="lanes uml, qemu and xen have")
    share = Path(options.share).expanduser().resolve() if options.share else None
    if share is not None and not share.is_dir():
        raise UsageError(f"--share {options.share} is no folder", hint="name a folder that exists")
    window = None if options.command else shell_room.window()
    inputs = options.inputs or machine_inputs.make(options.request, lane, options.image)
    job = Job("shell", command=options.command, window=window, share=lane.share(share) if share else None)
    session = shell_room.Session(interactive=window is not None)

    def prepare(supervisor: Supervisor) -> None:
        supervisor.attach = session.attach
        supervisor.patient = session.running

    if window is not None:
        ui.note("shell", f"lane {lane.name}; Ctrl-] three times ends the machine")
    with shell_room.lent_terminal(session):
        spec = machine_spec(inputs, job, share=share)
        run = run_machine(lane, spec, expected(inputs, job), options.request.line, prepare)
    if session.status is None:
        ending = Ending(Outcome.NO_RESULT, "the command's exit status never came") if run.good else run.ending
        raise failure(replace(run, ending=ending), f"lane {lane.name}")
    return session.status, run


def shell(options: ShellOptions) -> int:
    """Run a command as root in a machine and return its exit status, or carry a terminal."""
    status, run = shell_run(options)
    if not run.good:
        ui.warn(f"the machine did not end well: {run.ending} {run.ending.detail}")
    return status
