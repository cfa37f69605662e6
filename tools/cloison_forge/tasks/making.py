# SPDX-License-Identifier: GPL-2.0-or-later
"""Invoke tasks that make something: sources, the series, configurations, kernels, the host image."""

from __future__ import annotations

from invoke.context import Context

from cloison_forge.core import ui
from cloison_forge.pipeline import Request
from cloison_forge.tasks import command


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


@command("image")
def relock(_: Context, image: str = "host") -> None:
    """Pin the newest packages of an image in images/IMAGE.lock."""
    from cloison_forge.image import api

    for change in api.relock(image) or [f"images/{image}.lock is up to date"]:
        ui.note("image", change)


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
