# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the image's packages come from: the Debian mirrors that this machine's own apt uses."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.source.apt import PrivateApt

_ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "sid", "unstable"}


@dataclass(frozen=True)
class Mirror:
    """One repository of apt's configuration: its URI and the suite as written there."""

    uri: str
    suite: str


def own_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """Return the code name of the running distribution ('' if it has none)."""
    try:
        match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release.read_text(encoding="utf-8"), re.M)
    except OSError:
        return ""
    return match[1] if match else ""


def mirrors(machine: Path) -> list[Mirror]:
    """Return the repositories with a component ``main`` of the apt configuration in `machine`, in both formats."""
    found: list[Mirror] = []
    for path in [machine / "sources.list", *sorted((machine / "sources.list.d").glob("*"))]:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += _deb822(text) if path.suffix == ".sources" else _one_line(text)
    return list(dict.fromkeys(found))


def _one_line(text: str) -> list[Mirror]:
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match and "main" in match[3].split():
            found.append(Mirror(match[1], match[2]))
    return found


def _deb822(text: str) -> list[Mirror]:
    found = []
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {key.lower(): value for key, value in re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", unfolded, re.M)}
        if (
            fields.get("enabled", "yes").strip().lower() in ("no", "false")
            or "main" not in fields.get("components", "").split()
        ):
            continue
        for uri in fields.get("uris", "").split():
            found += [Mirror(uri, suite) for suite in fields.get("suites", "").split()]
    return found


def for_suite(found: list[Mirror], own: str, suite: str) -> list[Mirror]:
    """Return the Debian repositories of `suite`, given those `found` for this machine's own release.

    Other repositories (a vendor's, a back-port's) are left out: their suites are not called after the release.
    """
    wanted = []
    for mirror in found:
        base, dash, rest = mirror.suite.partition("-")
        if base not in {own, suite, *_ALIASES} or dash + rest not in ("", "-updates", "-security"):
            continue
        wanted.append(Mirror(mirror.uri, suite + dash + rest))
    return list(dict.fromkeys(wanted))


def private_apt(folder: Path, suite: str, machine: Path = Path("/etc/apt"), own: str | None = None) -> PrivateApt:
    """Return an apt of our own in `folder` that sees `suite` on this machine's Debian mirrors and nothing else.

    Raises `UsageError` where apt's configuration names no Debian mirror.
    """
    chosen = for_suite(mirrors(machine), own_codename() if own is None else own, suite)
    if not chosen:
        raise UsageError(
            f"apt's configuration in {machine} names no Debian mirror, so there is no source for the image's packages",
            hint=f"add one, for instance a file in {machine}/sources.list.d with 'deb MIRROR {suite} main'",
        )
    place = folder / "machine" / "sources.list.d"
    place.mkdir(parents=True, exist_ok=True)
    keyrings = PrivateApt(folder, machine=machine).keyrings()
    signed = f"Signed-By: {shlex.quote(str(_keyring(keyrings)))}\n" if keyrings else ""
    text = "\n".join(
        f"Types: deb\nURIs: {mirror.uri}\nSuites: {mirror.suite}\nComponents: main\n{signed}" for mirror in chosen
    )
    (place / "debian.sources").write_text(text, encoding="utf-8")
    return PrivateApt(folder, machine=folder / "machine")


def _keyring(keyrings: list[Path]) -> Path:
    """Prefer the keyring that holds the keys of all releases over those of a single one."""
    whole = [path for path in keyrings if path.name == "debian-archive-keyring.gpg"]
    return (whole or keyrings)[0]
