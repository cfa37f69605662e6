# SPDX-License-Identifier: GPL-2.0-or-later
"""Invoke tasks of Cloison: names and options only (more in tools/cloison_forge/tasks); the work is done in tools/."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    from invoke.collection import Collection
    from invoke.context import Context
except ImportError:  # pragma: no cover
    sys.exit("invoke is not installed; run ./invoke from the checkout, it installs what is needed")

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

from cloison_forge.core.errors import ExitStatus
from cloison_forge.pipeline import Request
from cloison_forge.tasks import command, group, machines, making, measuring


@command("json")
def doctor(_: Context, json: str = "") -> int:
    """Report tools, accelerators, disk and memory, and what to do about each."""
    from cloison_forge import doctor as room

    return 0 if room.report(json) else ExitStatus.BUILD


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


ns = Collection(
    doctor,
    making.fetch,
    making.kernel,
    making.build,
    machines.boot,
    machines.verify,
    machines.kunit,
    machines.mutate,
    machines.stress,
    machines.shell,
    measuring.compare,
    test,
    clean,
)
ns.add_collection(group("kselftest", "series", machines.kselftest, net=machines.kselftest_net))
ns.add_collection(group("patch", "apply", making.patch, edit=making.edit, export=making.export, check=making.check))
ns.add_collection(group("kconfig", "resolve", making.kconfig, explain=making.explain, features=making.features))
ns.add_collection(group("image", "make", making.image, relock=making.relock))
ns.add_collection(
    group(
        "bench",
        "operations",
        measuring.bench,
        life=measuring.bench_life,
        network=measuring.bench_network,
        tools=measuring.bench_tools,
        kernel=measuring.bench_kernel,
    )
)
