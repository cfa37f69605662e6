# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture the good streams from real machines: ``python tests/unit/streams/capture.py`` in a built checkout."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]


def main() -> None:
    """Run the plan of the fakes in both machines of lane uml, and keep what they sent."""
    from tests.unit.machine_fakes import NONCE, PLAN

    from cloison_forge.machine import api, inputs
    from cloison_forge.machine.job import Job
    from cloison_forge.machine.judge import Expected
    from cloison_forge.machine.lane import MachineSpec
    from cloison_forge.pipeline import Request

    lane = inputs.LANES["uml"]
    for variant, role, plan, name in (("on", "main", PLAN, "good"), ("off", "control", PLAN[2:], "control")):
        what = inputs.make(Request(variant=variant), lane)
        job = Job("verify", plan, role=role, nonce=NONCE)
        run = api.run_machine(lane, MachineSpec(what.kernel, job, root=what.root), Expected(NONCE, plan, role), "6.12")
        if not run.good:
            raise SystemExit(f"{name}: {run.ending} {run.ending.detail}")
        (HERE / f"{name}.channel").write_bytes((run.folder / "channel.raw").read_bytes())
        console = (run.folder / "console.log").read_bytes()
        for path, instead in ((run.folder, b"/run"), (what.root, b"/root.ext4")):
            console = console.replace(str(path).encode(), instead)
        (HERE / f"{name}.console").write_bytes(console)


if __name__ == "__main__":
    main()
