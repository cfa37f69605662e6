# SPDX-License-Identifier: GPL-2.0-or-later
"""Which origin serves a request: the named one, or for *auto* the first that has the pinned version."""

from __future__ import annotations

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.source import cache, debian
from cloison_forge.source.model import ORIGINS, FetchOptions, Origin


def is_reference(line: Line, origin: Origin) -> bool:
    """Say whether a tarball is exactly the one that kernels.toml pins."""
    return origin.tar_sha256 == line.tar_sha256


def select(line: Line, options: FetchOptions) -> Origin:
    """Return the verified tarball for `options`; the caller holds the cache's lock."""
    if options.origin not in ORIGINS:
        raise UsageError(f"no origin '{options.origin}'", hint=f"origins: {', '.join(ORIGINS)}")
    for origin in cache.cached(line):
        if is_reference(line, origin) and options.origin in ("auto", "debian") and not options.value:
            ui.note(
                "fetch", f"{origin.name}: {line.package} {origin.package_version}, the pinned reference, from the cache"
            )
            return origin
    if options.offline:
        raise BuildError(
            f"offline, and {line.package} {line.package_version} is not in the cache ({cache.kernels()})",
            hint="run ./invoke fetch once with a network",
        )
    return debian.fetch(line, options.value)
