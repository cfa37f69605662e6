# SPDX-License-Identifier: GPL-2.0-or-later
"""The stages in their order, each on top of the one before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloison_forge.core import lines, ui
from cloison_forge.core.locks import locked
from cloison_forge.core.paths import project
from cloison_forge.core.stage import Stage

if TYPE_CHECKING:
    from cloison_forge.image.api import Disk, RootImage
    from cloison_forge.kconfig.api import Configured
    from cloison_forge.kernel.api import Kernel
    from cloison_forge.series.api import Applied
    from cloison_forge.source.api import Tree


@dataclass(frozen=True)
class Request:
    """What to build: a kernel line, a profile, a variant ('on', 'off', 'absent', 'placebo'), where sources come from.

    An empty `profile` is the lane's own, and `vm` where there is no lane. An empty `origin` goes on with
    the source that is there, so that a task after `fetch --origin git` need not say it again.
    """

    line: str = "6.12"
    profile: str = ""
    variant: str = "on"
    origin: str = ""
    value: str = ""
    offline: bool = False
    locked: bool = False

    @property
    def kernel_line(self) -> lines.Line:
        """The line's entry in kernels.toml."""
        return lines.get(self.line)


def tree(request: Request) -> Tree:
    """Fetch, prove and extract the kernel source."""
    from cloison_forge.source import api

    options = api.FetchOptions(
        origin=request.origin, value=request.value, offline=request.offline, locked=request.locked
    )
    return api.ensure_tree(request.kernel_line, options)


def patched(request: Request) -> Applied:
    """Apply the series to the tree."""
    from cloison_forge.series import api

    return api.apply(request.kernel_line, tree(request), variant=request.variant)


def configured(request: Request) -> tuple[Applied, Configured]:
    """Resolve and audit the configuration of the profile."""
    from cloison_forge.kconfig import api

    applied = patched(request)
    return applied, api.configure(request.kernel_line, applied, request.profile or "vm", request.variant)


def kernel(request: Request) -> Kernel:
    """Compile the kernel."""
    from cloison_forge.kernel import api

    with locked(project().line(request.line), f"the build of {request.line}"):
        applied, configuration = configured(request)
        return api.build(request.kernel_line, applied, configuration)


def root(request: Request, name: str = "host") -> RootImage:
    """Make the root file system of an image, which does not depend on a kernel."""
    from cloison_forge.image import api

    return api.root(request.kernel_line, name, offline=request.offline, locked=request.locked)


def image(request: Request) -> Disk:
    """Make the bootable disk."""
    from cloison_forge.image import api

    built = kernel(request)
    return api.disk(request.kernel_line, built, root(request), request.variant)


def hypervisor(request: Request) -> Path:
    """Return the Xen of the host image, as a file of its own."""
    from cloison_forge.image import api

    return api.hypervisor(request.kernel_line, root(request))


def build(request: Request) -> Disk:
    """Do everything up to a host image that has booted once."""
    from cloison_forge.machine import api

    disk = image(replace(request, variant="on"))
    booted = Stage("boot", project().line(request.line) / "booted", {"disk": disk.key})

    def once(_: Path) -> None:
        api.boot_once(request.kernel_line, disk)

    booted.ensure(once)
    ui.note("build", f"host image: {disk.path}")
    return disk
