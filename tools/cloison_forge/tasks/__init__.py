# SPDX-License-Identifier: GPL-2.0-or-later
"""What all Invoke tasks share: the words of their options, how they fail, and tasks that share a name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from invoke.collection import Collection
from invoke.tasks import task

from cloison_forge.core import ui
from cloison_forge.core.errors import ExitStatus, ForgeError

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
    "image": "which of images/*.toml: host, or servers",
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


def group(name: str, label: str, default: Any, **others: Any) -> Collection:
    """Return tasks that share a name: `name` itself runs the default, `name.other` the others."""
    group = Collection(name)
    group.add_task(default, name=label, default=True)
    for other, item in others.items():
        group.add_task(item, name=other)
    return group
