# SPDX-License-Identifier: GPL-2.0-or-later
"""Invoke tasks of Cloison: names and options only; the work is done in tools/."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    from invoke.collection import Collection
    from invoke.context import Context
    from invoke.tasks import task
except ImportError:  # pragma: no cover
    sys.exit("invoke is not installed; run ./invoke from the checkout, it installs what is needed")

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

from cloison_forge.core import ui
from cloison_forge.core.errors import ExitStatus, ForgeError
from cloison_forge.pipeline import Request

ORIGIN = "auto, debian, kernelorg, orig, git or local; where the tree that is there came from, unless said"
HELP = {
    "line": "kernel line of kernels.toml, such as 6.12",
    "profile": "build profile: vm, uml, debug or distro",
    "variant": "on, off (series applied, VSERVER=n), absent (no series) or placebo (a function that nobody calls)",
    "origin": f"where sources come from: {ORIGIN}",
    "value": "what the origin needs: a git remote or tag, a folder, a tarball",
    "offline": "use only what the cache holds, and name what is missing",
    "locked": "refuse anything but the pinned versions",
    "json": "write the answer as JSON to this path, - for standard output",
    "lane": "how the machine runs: uml, qemu, xen or bochs",
    "way": "how the machine boots: on lane qemu direct, bios, uefi or microvm; on lane xen dom0 or pv",
}


def command(*names: str, **more: str) -> Callable[[Callable[..., Any]], Any]:
    """Make an Invoke task whose expected failures end in one line and a stable exit status."""

    def wrap(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                status = function(*args, **kwargs)
            except ForgeError as error:
                ui.report_error(error)
                sys.exit(error.status)
            except ModuleNotFoundError as error:
                ui.say(f"error     Python package {error.name} is missing\nhint      run ./invoke, which installs it")
                sys.exit(ExitStatus.BUILD)
            except BrokenPipeError:
                sys.exit(ExitStatus.GOOD)
            except KeyboardInterrupt:
                ui.say("interrupted; the next run goes on from the last finished stage")
                sys.exit(130)
            except OSError as error:
                ui.say(
                    f"error     {error.strerror}: {error.filename or ''}\nhint      ./invoke doctor looks at the disk"
                )
                sys.exit(ExitStatus.BUILD)
            if status:
                sys.exit(int(status))

        return task(guarded, help={**{name: HELP[name] for name in names}, **more})

    return wrap


@command("json")
def doctor(_: Context, json: str = "") -> int:
    """Report tools, accelerators, disk and memory, and what to do about each."""
    from cloison_forge import doctor as room

    return 0 if room.report(json) else ExitStatus.BUILD


@command("line", "origin", "value", "offline", "locked", "json")
def fetch(
    _: Context,
    line: str = "6.12",
    origin: str = "",
    value: str = "",
    offline: bool = False,
    locked: bool = False,
    json: str = "",
) -> None:
    """Fetch a kernel source and prove where it came from."""
    from cloison_forge import pipeline
    from cloison_forge.core import output

    tree = pipeline.tree(Request(line=line, origin=origin, value=value, offline=offline, locked=locked))
    if json:
        output.write(json, tree.origin.provenance)


@command("line", "variant", "offline")
def patch(_: Context, line: str = "6.12", variant: str = "on", offline: bool = False) -> None:
    """Apply the series to the kernel source."""
    from cloison_forge import pipeline

    pipeline.patched(Request(line=line, variant=variant, offline=offline))


@command(
    "line",
    add="files of the kernel that no patch touches yet, separated by commas",
    fresh="open a new area from the series; the old one is moved aside",
)
def edit(_: Context, line: str = "6.12", add: str = "", fresh: bool = False) -> None:
    """Open a git work area: the files that the series touches, one commit a patch."""
    from cloison_forge import pipeline
    from cloison_forge.series import api

    request = Request(line=line)
    files = [name for name in add.split(",") if name]
    api.edit(request.kernel_line, pipeline.tree(request), add=files, fresh=fresh)


@command("line")
def export(_: Context, line: str = "6.12") -> None:
    """Write the work area back to the series, and a numbered queue for packagers."""
    from cloison_forge.series import api

    api.export(Request(line=line).kernel_line)


@command(
    "line",
    "json",
    build="also build each patch with the option on and off, and compare warnings (long)",
    full="link the whole kernel after every patch, not only after the last (hours)",
)
def check(_: Context, line: str = "6.12", build: bool = True, full: bool = False, json: str = "") -> None:
    """Check the series: fuzz 0, offset 0, rules, builds, warnings, footprint."""
    from cloison_forge.series import api

    api.check(Request(line=line).kernel_line, build=build, full=full, json=json)


@command("line", "profile", "variant", "offline")
def kconfig(_: Context, line: str = "6.12", profile: str = "vm", variant: str = "on", offline: bool = False) -> None:
    """Resolve the configuration of a profile and audit it."""
    from cloison_forge import pipeline

    pipeline.configured(Request(line=line, profile=profile, variant=variant, offline=offline))


@command("line", "profile", "json", symbol="the symbol, with or without CONFIG_")
def explain(_: Context, symbol: str, line: str = "6.12", profile: str = "vm", json: str = "") -> None:
    """Say what a Kconfig symbol is, what set it, and what it needs."""
    from cloison_forge import pipeline
    from cloison_forge.kconfig import api

    request = Request(line=line, profile=profile)
    api.explain(request.kernel_line, pipeline.patched(request), profile, symbol, json=json)


@command()
def features(_: Context) -> None:
    """Render the Kconfig of the features and the docs table from kconfig/features.toml."""
    from cloison_forge.kconfig import catalogue

    catalogue.write()


@command("line", "profile", "variant", "origin", "value", "offline", "locked", "json")
def kernel(
    _: Context,
    line: str = "6.12",
    profile: str = "vm",
    variant: str = "on",
    origin: str = "",
    value: str = "",
    offline: bool = False,
    locked: bool = False,
    json: str = "",
) -> None:
    """Compile the kernel of a profile."""
    from cloison_forge import pipeline
    from cloison_forge.core import output

    built = pipeline.kernel(Request(line, profile, variant, origin, value, offline, locked))
    if json:
        output.write(json, built.provenance)


@command("line", "offline", "locked")
def image(_: Context, line: str = "6.12", offline: bool = False, locked: bool = False) -> None:
    """Make the bootable host image."""
    from cloison_forge import pipeline

    ui.note("image", str(pipeline.image(Request(line=line, offline=offline, locked=locked)).path))


@command()
def relock(_: Context) -> None:
    """Pin the newest packages of the host image in images/host.lock."""
    from cloison_forge.image import api

    for change in api.relock() or ["images/host.lock is up to date"]:
        ui.note("image", change)


@command("line", "lane", "way", "profile")
def boot(_: Context, line: str = "6.12", lane: str = "qemu", way: str = "", profile: str = "") -> int:
    """Boot a machine once and say how that ended."""
    from cloison_forge.machine import api

    return api.boot(api.BootOptions(request=Request(line=line, profile=profile), lane=lane, way=way))


@command(
    "line",
    "lane",
    "way",
    "json",
    "offline",
    profile="kernel profile instead of the lane's own, such as debug",
    suite="run only these suites or checks, separated by commas",
    junit="write JUnit XML to this path",
    html="write a page to this path",
    append="words to add to the kernel's command line",
    coverage="list the rows of the catalogue that no check proves, and stop",
)
def verify(
    _: Context,
    line: str = "6.12",
    lane: str = "uml",
    way: str = "",
    profile: str = "",
    suite: str = "",
    json: str = "",
    junit: str = "",
    html: str = "",
    append: str = "",
    coverage: bool = False,
    offline: bool = False,
) -> int:
    """Boot a machine and prove the isolation."""
    from cloison_forge.machine import api

    if coverage:
        return api.coverage(json)
    request = Request(line=line, profile=profile, offline=offline)
    options = api.VerifyOptions(
        request=request, lane=lane, way=way, suite=suite, json=json, junit=junit, html=html, append=append
    )
    return api.verify(options)


@command("line", "json", "offline")
def kunit(_: Context, line: str = "6.12", json: str = "", offline: bool = False) -> int:
    """Run the KUnit tests of the series."""
    from cloison_forge.machine import kunit as room

    return room.kunit(Request(line=line, offline=offline), json)


@command("line", "lane", "json", "offline")
def kselftest(_: Context, line: str = "6.12", lane: str = "uml", json: str = "", offline: bool = False) -> int:
    """Build the series' kselftests and run them in a machine."""
    from cloison_forge.machine import kselftest as room

    return room.kselftest(Request(line=line, offline=offline), lane=lane, json=json)


@command(
    "line",
    "json",
    "offline",
    lane="the machines, uml or qemu; each hook where it is compiled if not given",
    hook="only these hooks, separated by commas",
    record="remember which check noticed",
)
def mutate(
    _: Context,
    line: str = "6.12",
    lane: str = "",
    hook: str = "",
    json: str = "",
    record: bool = False,
    offline: bool = False,
) -> int:
    """Turn off each hook of the series in turn, and name the check that notices."""
    from cloison_forge import mutation

    return mutation.mutate(Request(line=line, offline=offline), lane=lane, only=hook, json=json, record=record)


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
    out="folder for table, picture and figures, instead of build/reports/compare",
)
def compare(
    _: Context,
    line: str = "6.12",
    machines: str = "",
    rows: str = "",
    rounds: int = 3,
    milliseconds: int = 300,
    out: str = "",
    json: str = "",
    offline: bool = False,
) -> int:
    """Do the same work natively, in contexts, in containers and in every machine, and say what each costs."""
    from cloison_forge.compare import api

    request = Request(line=line, offline=offline)
    return api.compare(api.Options(request, machines, rows, rounds, milliseconds, out, json))


@command("line", "lane", "offline", profile="kernel profile instead of debug", minutes="how long, in minutes")
def stress(
    _: Context, line: str = "6.12", lane: str = "qemu", profile: str = "debug", minutes: int = 10, offline: bool = False
) -> int:
    """Create, enter, signal and end contexts all at once on a kernel that watches itself."""
    from cloison_forge import stress as room

    return room.stress(Request(line=line, profile=profile, offline=offline), lane=lane, minutes=minutes)


@command("line", "lane", "offline", share="host folder to see at /mnt/share")
def shell(_: Context, line: str = "6.12", lane: str = "uml", share: str = "", offline: bool = False) -> int:
    """Run a command as root in a machine (after --), or open a terminal."""
    from cloison_forge.machine import api

    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    options = api.ShellOptions(
        request=Request(line=line, offline=offline), lane=lane, share=share, command=tuple(words)
    )
    return api.shell(options)


@command("line", "offline", "locked", "origin", "value")
def build(
    _: Context,
    line: str = "6.12",
    offline: bool = False,
    locked: bool = False,
    origin: str = "",
    value: str = "",
) -> None:
    """Fetch, prove, patch, configure, compile, make the host image, boot it once."""
    from cloison_forge import pipeline

    pipeline.build(Request(line=line, origin=origin, value=value, offline=offline, locked=locked))


@command("line", all="also the long gates", gate="only these gates, separated by commas")
def test(_: Context, line: str = "6.12", all: bool = False, gate: str = "") -> int:
    """Run the unit tests, then the checks in booted machines."""
    from cloison_forge import gates

    return gates.run_gates(Request(line=line), everything=all, only=gate)


@command(
    line="only this kernel line",
    all="also the user's cache, shared by all checkouts",
    dry_run="only say what would be removed",
)
def clean(_: Context, line: str = "", all: bool = False, dry_run: bool = False) -> None:
    """Remove outputs, after saying what they are and how large."""
    from cloison_forge import clean as room

    room.clean(everything=all, line=line, dry_run=dry_run)


def _group(name: str, label: str, default: Any, **others: Any) -> Collection:
    """Return tasks that share a name: `name` itself runs the default, `name.other` the others."""
    group = Collection(name)
    group.add_task(default, name=label, default=True)
    for other, item in others.items():
        group.add_task(item, name=other)
    return group


ns = Collection(
    doctor, fetch, kernel, boot, verify, kunit, kselftest, mutate, stress, compare, shell, build, test, clean
)
ns.add_collection(_group("patch", "apply", patch, edit=edit, export=export, check=check))
ns.add_collection(_group("kconfig", "resolve", kconfig, explain=explain, features=features))
ns.add_collection(_group("image", "make", image, relock=relock))
ns.add_collection(_group("bench", "operations", bench, life=bench_life, tools=bench_tools, kernel=bench_kernel))
