# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke stress`: contexts under load in a kernel that watches itself; its console must stay silent."""

from __future__ import annotations

import shutil
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage, digest_files
from cloison_forge.pipeline import Request


def program() -> Path:
    """Compile the stress program, static, so that it runs in any machine; return the folder to share."""
    source = project().root / "tools" / "cloison_stress"
    stage = Stage("stress", project().build / "stress", {"source": digest_files([source], source)})

    def make(folder: Path) -> None:
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        run(["gcc", *flags, "-o", folder / "stress", source / "stress.c"])
        shutil.copy(source / "run.sh", folder)

    if not stage.fresh():
        stage.ensure(make)
    return stage.out


def stress(request: Request, *, lane: str, minutes: int) -> int:
    """Run the stress program for `minutes` in a machine of `lane`; return 0 if all went well.

    The machine's own watch over the console turns anything that KASAN, lockdep and their like say
    into a failure; kmemleak is asked at the end.
    """
    from cloison_forge.machine import api

    folder = program()
    ui.note("stress", f"{minutes} min on lane {lane}, profile {request.profile}")
    command = ("sh", "/mnt/share/run.sh", str(60 * minutes))
    status, machine = api.shell_run(api.ShellOptions(request=request, lane=lane, share=str(folder), command=command))
    if not machine.good:
        raise api.failure(machine, f"lane {lane}")
    return 1 if status else 0
