# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison: the program that works, what machines tell, the table, and rows that could not be measured."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.machine_fakes import NONCE

from cloison_forge.compare import api, measuring, plan, render, table
from cloison_forge.compare.measuring import Result
from cloison_forge.compare.plan import Machine, Sizes
from cloison_forge.core.errors import ExitStatus, MachineError, UsageError
from cloison_forge.core.paths import Project
from cloison_forge.machine.judge import CheckResult, Expected, Judge
from cloison_forge.pipeline import Request
from cloison_verify import measure, runner

ROOT = Path(__file__).resolve().parents[2]
KINDS = tuple(machine for machine in plan.MACHINES if machine.name in ("native", "bochs-off", "bochs"))
ROWS = ("syscall", "fork")


@pytest.fixture(name="work", scope="module")
def fixture_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program that does the work."""
    target = tmp_path_factory.mktemp("work") / "work"
    source = ROOT / "tools" / "cloison_compare" / "work.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", target, source], check=True)
    return target


@pytest.mark.parametrize("row", [row for row in plan.ROWS if row != "compile" or shutil.which("tcc")])
def test_each_row_does_its_work_and_tells_figures_in_order(work: Path, row: str) -> None:
    told = json.loads(measure.measure("plain", row, 15, work))
    assert 0 < told["least"] <= told["low"] <= told["median"] <= told["high"], told


def test_nothing_is_left_of_a_measurement(work: Path) -> None:
    before = set(Path("/dev/shm").glob("work-*"))
    json.loads(measure.measure("plain", "create", 15, work))
    assert set(Path("/dev/shm").glob("work-*")) == before


def test_what_cannot_be_measured_is_told_with_its_reason(work: Path, tmp_path: Path) -> None:
    assert "nonsense" in json.loads(measure.measure("plain", "nonsense", 15, work))["error"]
    assert "error" in json.loads(measure.measure("context", "syscall", 15, work)), "this kernel has no contexts"
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="ascii")
    assert "no end within" in json.loads(measure.measure("plain", "syscall", 15, slow, seconds=0.1))["error"]
    slow.write_text("#!/bin/sh\necho broken >&2\nexit 7\n", encoding="ascii")
    assert "status 7: broken" in json.loads(measure.measure("plain", "syscall", 15, slow))["error"]


def test_a_container_maker_that_is_not_installed_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for surrounding, program in (("bubblewrap", "bwrap"), ("crun", "crun")):
        told = json.loads(measure.measure(surrounding, "syscall", 15, work))
        assert told["error"] == f"{program} is not installed here (package {surrounding})"


def test_containers_get_the_same_program(tmp_path: Path) -> None:
    words = ["/some/work", "fork", "5"]
    assert measure.command("bubblewrap", words, tmp_path)[-3:] == words
    assert measure.command("context", words, tmp_path) == [*words, "context"]
    assert measure.command("crun", words, tmp_path)[:1] == ["crun"]
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert settings["process"]["args"] == ["/work", "fork", "5"]
    assert {"source": "/some/work", "destination": "/work"}.items() <= settings["mounts"][-1].items()
    assert {kind["type"] for kind in settings["linux"]["namespaces"]} >= {"pid", "network", "mount", "ipc", "uts"}


def test_the_runner_measures_what_an_identifier_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def fake(*words: object) -> str:
        asked.append(words)
        return '{"median": 1.0}'

    monkeypatch.setattr(measure, "measure", fake)
    body = runner.measured("r0.crun.fork", 250)
    assert asked == [("crun", "fork", 250)]
    assert (body["seen"], body["status"]) == ('{"median": 1.0}', "passed")


def test_a_plan_alternates_over_the_surroundings() -> None:
    machine = plan.MACHINES[1]
    ids = [piece.id for piece in plan.pieces(machine, Sizes(ROWS, 2, 300, ()), 30)]
    assert ids[:4] == ["r0.plain.syscall", "r0.bubblewrap.syscall", "r0.crun.syscall", "r0.plain.fork"]
    assert len(ids) == len(set(ids)) == 2 * 2 * 3
    assert all(len(name) < 96 for name in ids), "PID 1 keeps no longer identifiers"
    more = {piece.id for piece in plan.pieces(machine, Sizes(ROWS, 2, 300), 30)} - set(ids)
    assert more == {f"r0.{where}.idle{count}" for where in machine.surroundings for count in (1, 10, 100)}


def test_slow_machines_are_measured_in_a_short_form_unless_all_is_asked_for() -> None:
    machines = {machine.name: machine for machine in plan.MACHINES}
    assert {name for name, machine in machines.items() if machine.slow} == {
        f"{kind}{variant}" for kind in ("dom0", "domu", "bochs") for variant in ("", "-off")
    }
    sizes = Sizes(ROWS, 3, 300)
    assert sizes.of(machines["tcg"]) == sizes
    assert sizes.of(machines["bochs"]) == Sizes(ROWS, 1, 100, (1, 10))
    assert replace(sizes, full=True).of(machines["bochs"]).rounds == 3


def test_every_column_is_compared_with_the_plain_kernel_of_its_kind() -> None:
    columns = list(plan.columns(plan.MACHINES))
    names = {column.name for column in columns}
    assert len(names) == len(columns)
    assert {column.reference for column in columns} <= names
    for column in columns:
        if column.machine.lane:
            assert column.reference == f"{column.machine.name.removesuffix('-off')}-off.plain"
    assert {"native", "uml", "qemu", "xen", "bochs"} == {machine.lane or "native" for machine in plan.MACHINES}


def test_machines_and_rows_are_chosen_by_name() -> None:
    assert [machine.name for machine in plan.chosen_machines("bochs,native")] == ["native", "bochs-off", "bochs"]
    assert plan.chosen_machines("") == plan.MACHINES
    assert plan.chosen_rows("fork,syscall") == ROWS
    with pytest.raises(UsageError, match="no machine 'vmware'"):
        plan.chosen_machines("vmware")
    with pytest.raises(UsageError, match="no row 'coffee'"):
        plan.chosen_rows("coffee")


def test_idle_instances_take_memory(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full, empty = "MemTotal: 9000 kB\nMemFree: 5000 kB\n", "MemTotal: 9000 kB\nMemFree: 4000 kB\nCached: 600 kB\n"
    counts = iter([full, empty, empty, full])

    class Meminfo:
        def read_text(self, encoding: str) -> str:
            assert encoding == "ascii"
            return next(counts)

    monkeypatch.setattr(measure, "MEMINFO", Meminfo())
    monkeypatch.setattr(measure, "SETTLING", 0)
    assert json.loads(measure.measure("plain", "idle3", 0, work)) == {"kib": 400}
    assert "gave back" in json.loads(measure.measure("plain", "idle3", 0, work))["error"]
    assert measure.used("MemTotal: 10 kB\nMemFree: 4 kB\nHugePages_Total: 0\n") == 6
    monkeypatch.setattr(measure, "MEMINFO", Path("/proc/meminfo"))
    assert "instance 1 of 2: " in json.loads(measure.measure("context", "idle2", 0, work))["error"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert json.loads(measure.measure("crun", "idle1", 0, work))["error"] == "crun is not installed here (package crun)"


def test_a_machine_takes_memory_of_the_host() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        assert measuring.proportional(os.getpid()) > 0
        assert measuring.proportional(2**30) == 0
    finally:
        process.kill()
        process.wait()


def told(surrounding: str, figures: dict[str, list[float]]) -> dict[str, dict[str, object]]:
    """Return what a machine told: for each row, a median a round."""
    return {
        f"r{number}.{surrounding}.{row}": {"median": value, "low": value * 0.9, "high": value * 1.2}
        for row, values in figures.items()
        for number, value in enumerate(values)
    }


def results() -> dict[str, Result]:
    """Return results of three machines."""
    off = Result(dict(told("plain", {"syscall": [50.0] * 3, "fork": [500.0] * 3})), clock=2.0)
    return {
        "native": Result(dict(told("plain", {"syscall": [10.0, 30.0, 20.0], "fork": [100.0] * 3}))),
        "bochs-off": off,
        "bochs": Result(
            {
                **told("context", {"syscall": [100.0] * 3, "fork": [500.0] * 2}),
                "r0.context.idle1": {"kib": 5},
                "r0.context.idle100": {"kib": 900},
            },
            clock=2.0,
        ),
    }


def lines(given: dict[str, Result] | None = None) -> dict[str, table.Line]:
    made = table.make(list(plan.columns(KINDS)), ROWS, results() if given is None else given, 3)
    return {line.column.name: line for line in made}


def test_medians_spread_and_ratios() -> None:
    made = lines()
    native = made["native.plain"].cells["syscall"]
    assert (native.median, native.low, native.high, native.rounds) == (20.0, 9.0, 36.0, 3)
    context = made["bochs.context"].cells["syscall"]
    assert context.median == 200.0, "its clock counts work: two seconds passed on the host in one of its own"
    assert (context.ratio, context.native) == (2.0, 10.0)
    assert made["bochs.context"].mean("ratio") == pytest.approx(2.0**0.5)
    assert made["bochs-off.plain"].mean("ratio") == pytest.approx(1.0)


def test_each_row_has_figures_or_a_reason() -> None:
    given = results()
    given["bochs"] = Result(failure="timeout at stage kernel")
    given["bochs-off"].told["r1.plain.fork"] = {"error": "fork: no memory"}
    del given["native"]
    made = lines(given)
    assert made["bochs.context"].cells["fork"].reason == "timeout at stage kernel"
    assert made["bochs-off.plain"].cells["fork"].reason == "fork: no memory"
    assert "interrupted" in made["native.plain"].cells["fork"].reason
    assert made["bochs-off.crun"].cells["fork"].reason == "the machine told nothing"
    for line in made.values():
        for cell in line.cells.values():
            assert (cell.median is None) is bool(cell.reason)
            assert cell.median is not None or (cell.ratio, cell.native) == (None, None)


def test_renderings_agree_and_leave_no_column_out() -> None:
    made = list(lines().values())
    about = {"machine": "2 × test", "quiet": "yes"}
    data = json.loads(json.dumps(render.as_json(made, about)))
    assert data["schema"] == "cloison-compare-1"
    rows = list(csv.DictReader(io.StringIO(render.as_csv(made))))
    assert len(rows) == len(made) * len(ROWS) + 3 * len(made)
    memory = {row["row"]: (row["kib"], row["reason"]) for row in rows if row["column"] == "bochs.context"}
    assert memory["idle1"] == ("5", "")
    assert memory["idle10"] == ("", "not measured")
    assert memory["idle100"] == ("900", "")
    text = render.as_markdown(made, about)
    picture = ET.fromstring(render.as_svg(made, about))
    drawn = "".join(picture.itertext())
    for line, column in zip(made, data["columns"], strict=True):
        assert f"| {line.column.title} |" in text
        assert line.column.title in drawn
        assert column["name"] == line.column.name
        assert column["rows"]["fork"]["median"] == line.cells["fork"].median
    assert "the machine told nothing" in text
    assert "under 3 %" in text
    assert "| Bochs, patched kernel, in a context | 5 | – | 900 | – |" in text


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5 ns"), (1234, "1.23 µs"), (2e6, "2 ms"), (999.9e6, "1000 ms")])
def test_times_have_units(value: float, text: str) -> None:
    assert render.time_text(value) == text


def test_the_stopwatch_compares_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = plan.pieces(plan.MACHINES[0], Sizes(("fork",), 1, 300, ()), 30)
    judge = Judge(Expected(NONCE, pieces))
    now = iter([0.0, 3.0, 4.0])
    monkeypatch.setattr("cloison_forge.compare.measuring.time.monotonic", lambda: next(now))
    watch = measuring.Stopwatch()
    assert watch.clock(judge) == 1.0, "nothing is known yet"
    judge.current = pieces[0]
    watch(judge)
    judge.results[pieces[0].id] = CheckResult(pieces[0].id, "passed", milliseconds=1500)
    judge.current = pieces[1]
    watch(judge)
    judge.current = None
    watch(judge)
    assert watch.clock(judge) == 2.0


def test_a_kvm_that_does_not_work_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloison_forge.machine import kvm

    machine = next(machine for machine in plan.MACHINES if machine.accelerator == "kvm")
    monkeypatch.setattr(kvm, "probe", lambda: kvm.Verdict(False, "KVM is present but unusable: x"))
    result = measuring.measured(machine, Request(), Sizes(ROWS, 1, 10))
    assert (result.failure, result.unavailable, result.told) == ("KVM is present but unusable: x", True, {})


def test_a_machine_that_fails_is_a_result_with_that_failure() -> None:
    def broken(*_: object) -> Result:
        raise MachineError("no kernel\n| lines of a console", hint="x")

    assert measuring.measured(plan.MACHINES[1], Request(), Sizes(ROWS, 1, 10), boot=broken).failure == "no kernel"


@pytest.fixture(name="fast")
def fixture_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api, "project", lambda: Project(tmp_path, tmp_path))
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    return tmp_path / "out"


def test_an_interruption_leaves_a_table_with_every_machine(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(machine: Machine, *_: object) -> Result:
        if machine.name == "bochs-off":
            raise KeyboardInterrupt
        return results()[machine.name]

    monkeypatch.setattr(api, "measured", fake)
    with pytest.raises(KeyboardInterrupt):
        api.compare(api.Options(machines="native,bochs", rows="fork,syscall", out=str(fast)))
    data = json.loads((fast / "compare.json").read_text(encoding="utf-8"))
    failures = {column["name"]: column["failure"] for column in data["columns"]}
    assert failures["native.plain"] == ""
    assert failures["bochs-off.plain"] == "interrupted"
    assert "interrupted before" in failures["bochs.context"]
    assert "NOT MEASURED UNDER QUIET" in data["quiet"]
    assert sorted(path.name for path in fast.iterdir()) == ["compare.csv", "compare.json", "compare.md", "compare.svg"]


def test_a_failed_machine_is_a_status_and_not_the_end(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(machine: Machine, *_: object) -> Result:
        return replace(results()[machine.name], failure="panic" if machine.name == "bochs-off" else "")

    monkeypatch.setattr(api, "measured", fake)
    options = api.Options(machines="native,bochs", rows="fork,syscall", out=str(fast), json=str(fast / "more.json"))
    assert api.compare(options) == ExitStatus.MACHINE
    data = json.loads((fast / "more.json").read_text(encoding="utf-8"))
    native = next(column for column in data["columns"] if column["name"] == "bochs.context")
    assert native["rows"]["syscall"]["native"] == 10.0
    with pytest.raises(UsageError, match="at least 1"):
        api.compare(replace(options, rounds=0))
    monkeypatch.setattr(api, "measured", lambda *_: Result(failure="no KVM", unavailable=True))
    assert api.compare(options) == ExitStatus.GOOD, "what this host cannot have has not failed"


def test_the_processor_has_a_name() -> None:
    assert api.processor("processor : 0\nmodel name\t: Some CPU @ 3 GHz\n") == "Some CPU @ 3 GHz"
    assert api.processor("") != ""
