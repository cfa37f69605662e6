# SPDX-License-Identifier: GPL-2.0-or-later
"""Which origin serves a request: the one that was named, or for *auto* the first that has the pinned version.

The reference of a line is Debian's package. Where it cannot be had, the same upstream version of another
origin comes next, because it never changes, and then the newest of the line. What was taken instead of
what is said in one line and in the provenance, and refused when `locked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from cloison_forge.core import ui
from cloison_forge.core.errors import BuildError, ToolMissingError, UsageError
from cloison_forge.core.lines import Line
from cloison_forge.source import cache
from cloison_forge.source.model import ORIGINS, FetchOptions, NotOfferedError, Origin, UnreachableError
from cloison_forge.source.versions import NEWEST, numbers

SERVED = ("debian", "kernelorg", "orig")  # origins that offer versions, in the order in which auto asks them
Fetcher = Callable[[Line, str], Origin]


def is_reference(line: Line, origin: Origin) -> bool:
    """Say whether a tarball is exactly the one that kernels.toml pins."""
    return origin.tar_sha256 == line.tar_sha256


def select(line: Line, options: FetchOptions) -> Origin:
    """Return the verified tarball for `options`; the caller holds the cache's lock."""
    check(options)
    cache.sweep()
    known = _from_cache(line, options)
    if known is not None:
        return known
    if options.offline:
        return _offline(line, options)
    if options.origin == "auto":
        return _auto(line, options)
    if options.origin == "git":
        return _allowed(line, options, fetcher("git")(line, options.value))
    return _named(line, options)


def check(options: FetchOptions) -> None:
    """Refuse requests that make no sense."""
    if options.origin not in ORIGINS:
        raise UsageError(f"no origin '{options.origin}'", hint=f"origins: {', '.join(ORIGINS)}")
    if options.origin == "auto" and options.value:
        raise UsageError(
            f"auto takes no value ('{options.value}')",
            hint="name an origin, for example --origin debian --value newest",
        )
    if options.locked and (options.origin == "local" or options.value == NEWEST):
        raise UsageError(
            f"nothing pins {options.request()}, so it cannot be --locked", hint="drop --locked, or take another origin"
        )


def fetcher(origin: str) -> Fetcher:
    """Return the function that fetches from an origin; its modules are only loaded now."""
    module = {"git": "gitrepo"}.get(origin, origin)
    found: Fetcher = import_module(f"cloison_forge.source.{module}").fetch
    return found


def pinned(line: Line, origin: str) -> str:
    """Return what is pinned of a line, in the terms of an origin."""
    return line.package_version if origin == "debian" else line.version


def _version(origin: Origin) -> str:
    return origin.package_version or origin.version


def _from_cache(line: Line, options: FetchOptions) -> Origin | None:
    """Return a cached tarball that is exactly what was asked for, so that no network is needed."""
    names = ("debian",) if options.origin == "auto" else (options.origin,)
    for origin in (found for name in names for found in cache.cached(line, name)):
        if options.origin == "git":
            continue  # a reference may have moved
        exact = _version(origin) == (options.value or pinned(line, origin.name))
        if exact and (options.origin != "auto" or is_reference(line, origin)):
            return _say(line, _allowed(line, options, origin), "from the cache")
    return None


def _offline(line: Line, options: FetchOptions) -> Origin:
    """Return the best of the cache, or name what is missing."""
    if options.origin == "git":
        from cloison_forge.source import gitrepo

        known = gitrepo.cached(line, options.value)
        if known is not None:
            return _say(line, _allowed(line, options, known), "from the cache")
    elif options.value in ("", NEWEST) and not options.locked:
        found = cache.cached(line, "*" if options.origin == "auto" else options.origin)
        served = [origin for origin in found if origin.name in SERVED]
        if served:
            newest = max(served, key=lambda origin: (numbers(origin.version), origin.name == "debian"))
            return _instead(line, newest, "not in the cache", options)
    what = f"{line.package} {line.package_version}" if options.origin == "auto" else _what(line, options)
    raise BuildError(
        f"offline, and the source is not in the cache: {what}",
        hint=f"run ./invoke fetch{_flag(options)} once with a network; the cache is {cache.kernels()}",
    )


def _what(line: Line, options: FetchOptions) -> str:
    return f"{options.origin} {options.value or pinned(line, options.origin)}"


def _flag(options: FetchOptions) -> str:
    return "" if options.origin == "auto" else f" --origin {options.request()}"


def _auto(line: Line, options: FetchOptions) -> Origin:
    """Ask each origin for the pinned version, then each that answered for the newest."""
    reasons: dict[str, BuildError] = {}
    for name in SERVED:
        if options.locked and name != "debian":
            continue
        found = _ask(line, name, "", reasons)
        if found is not None and is_reference(line, found):
            return _say(line, found, "")
        if found is not None:
            return _instead(line, found, _because(reasons), options)
    if options.locked:
        raise _nowhere(line, reasons, "--locked allows nothing else; drop it to take the newest of the line")
    for name in [name for name in SERVED if isinstance(reasons.get(name), NotOfferedError)]:
        found = _ask(line, name, NEWEST, reasons)
        if found is not None:
            return _instead(line, found, _because(reasons), options)
    raise _nowhere(line, reasons, "check the network, use --offline with a warm cache, or --origin local=FOLDER")


def _ask(line: Line, name: str, value: str, reasons: dict[str, BuildError]) -> Origin | None:
    try:
        return fetcher(name)(line, value)
    except (UnreachableError, NotOfferedError, ToolMissingError) as error:
        reasons[name] = error
        return None


def _nowhere(line: Line, reasons: dict[str, BuildError], hint: str) -> BuildError:
    told = "; ".join(f"{name}: {error.message}" for name, error in reasons.items())
    return UnreachableError(f"no origin gives {line.package} {line.package_version} ({told})", hint=hint)


def _because(reasons: dict[str, BuildError]) -> str:
    return reasons["debian"].message if "debian" in reasons else "another origin was asked"


def _named(line: Line, options: FetchOptions) -> Origin:
    """Ask one origin; without an explicit version the newest stands in for a pinned one that is gone."""
    fetch = fetcher(options.origin)
    try:
        return _say(line, _allowed(line, options, fetch(line, options.value)), "")
    except NotOfferedError as error:
        if options.value:
            raise
        if options.locked:
            raise NotOfferedError(error.message, hint=f"--locked allows nothing else; {error.hint}") from None
        return _instead(line, fetch(line, NEWEST), error.message, options)


def _allowed(line: Line, options: FetchOptions, origin: Origin) -> Origin:
    """Refuse another version than the pinned one when `locked`."""
    if options.locked and _version(origin) != pinned(line, origin.name):
        raise NotOfferedError(
            f"--locked: {options.request()} is {_version(origin)}, kernels.toml pins {pinned(line, origin.name)}",
            hint="drop --locked, or change the pin",
        )
    return origin


def _instead(line: Line, origin: Origin, because: str, options: FetchOptions) -> Origin:
    """Say what stands in for the reference and why, and keep both in the provenance."""
    wanted = pinned(line, "debian" if options.origin == "auto" else options.origin)
    ui.warn(f"{wanted} cannot be had ({because}); taking {_version(origin)} from {origin.name} instead")
    told = {**origin.provenance, "instead_of": wanted}
    return replace(origin, provenance=told)


def _say(line: Line, origin: Origin, where: str) -> Origin:
    words = [f"{origin.name}: {_version(origin)}", "the pinned reference" if is_reference(line, origin) else "", where]
    ui.note("fetch", ", ".join(word for word in words if word))
    return origin
