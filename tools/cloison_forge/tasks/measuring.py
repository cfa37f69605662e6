# SPDX-License-Identifier: GPL-2.0-or-later
"""Invoke tasks that measure: instructions, waiting times, and what separation costs."""

from __future__ import annotations

from invoke.context import Context

from cloison_forge.core import ui
from cloison_forge.pipeline import Request
from cloison_forge.tasks import command


@command("line", "json", gate="fail when a goal is missed", rows="only these rows, separated by commas")
def bench(_: Context, line: str = "6.12", json: str = "", gate: bool = False, rows: str = "") -> int:
    """Count the instructions of kernel operations, with and without the series and contexts."""
    from cloison_forge.bench import api

    return api.bench(Request(line=line), json_path=json, gate=gate, rows=rows)


@command("line", "json")
def bench_life(_: Context, line: str = "6.12", json: str = "") -> None:
    """Count what contexts cost from birth to death, beside namespaces, with up to 10,000 present."""
    from cloison_forge.bench import api

    api.life(Request(line=line), json_path=json)


@command("line", "json")
def bench_network(_: Context, line: str = "6.12", json: str = "") -> None:
    """Count what sockets pay for network contexts with 1 to 10,000 addresses, beside a network namespace."""
    from cloison_forge.bench import network

    network.measure(Request(line=line), json_path=json)


@command("line", "json")
def bench_tools(_: Context, line: str = "6.12", json: str = "") -> None:
    """Time what people wait for: nothing to do, first word of PID 1, a change to verified."""
    from cloison_forge.bench import toolkit

    toolkit.measure(Request(line=line), json_path=json)


@command("line", "json")
def bench_kernel(_: Context, line: str = "6.12", json: str = "") -> None:
    """Compare a compile by this toolkit with a bare make of the same configuration (two cold builds)."""
    from cloison_forge import pipeline
    from cloison_forge.core import output
    from cloison_forge.kernel import overhead

    request = Request(line=line, profile="uml")
    applied, configured = pipeline.configured(request)
    result = overhead.measure(request.kernel_line, applied, configured)
    if json:
        output.write(json, result.as_json())
    if json != "-":
        ui.note("bench", f"processor time over a bare make: {result.ratio:.3f} (goal {overhead.GOAL})")


@command(
    "line",
    "json",
    "offline",
    machines="only these, separated by commas: native, uml, kvm, tcg, dom0, domu, bochs",
    rows="only these rows, separated by commas",
    rounds="how often each figure is measured",
    milliseconds="how long each measurement takes",
    full="measure in Xen and Bochs as long as elsewhere, and 100 idle instances (hours)",
    out="folder for table, picture and figures, instead of build/reports/compare",
)
def compare(
    _: Context,
    line: str = "6.12",
    machines: str = "",
    rows: str = "",
    rounds: int = 3,
    milliseconds: int = 300,
    full: bool = False,
    out: str = "",
    json: str = "",
    offline: bool = False,
) -> int:
    """Do the same work natively, in contexts, in containers and in every machine, and say what each costs."""
    from cloison_forge.compare import api

    request = Request(line=line, offline=offline)
    return api.compare(api.Options(request, machines, rows, rounds, milliseconds, full, out, json))
