# SPDX-License-Identifier: GPL-2.0-or-later
"""A private apt: the machine's own package sources and keys, everything else in a folder of ours, no root needed."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core import ui
from cloison_forge.core.errors import CommandError
from cloison_forge.core.run import Result, run
from cloison_forge.core.stage import atomic_file
from cloison_forge.source.cache import SCRATCH
from cloison_forge.source.download import Wanted, download, session
from cloison_forge.source.model import (
    NotOfferedError,
    RefusedError,
    UnreachableError,
    free_bytes,
    full_disk,
    tells_full,
)

_CONFIG = """\
// Written by Cloison. Read after the machine's apt.conf.d, so that proxies and credentials still apply.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Post-Invoke-Stats;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Dir::State "{folder}/state";
Dir::State::lists "{folder}/state/lists";
Dir::State::status "{folder}/state/status";
Dir::State::extended_states "{folder}/state/extended_states";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{folder}/etc/sources.list";
Dir::Etc::sourceparts "{folder}/etc/sources.list.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "{user}";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""


_KEYS_HINT = "is the package debian-archive-keyring up to date, and the machine's clock right?"
MACHINE = Path("/etc/apt")
LOCK_SECONDS = 30.0
UPDATE_SECONDS = 900.0
NEEDED_BYTES = 200_000_000  # lists of two Debian releases and apt's caches of them, with room


@dataclass(frozen=True)
class Offer:
    """One version of a package in apt's verified indexes; `suite` is such as 'bookworm-security', `size` in bytes."""

    package: str
    version: str
    source: str
    suite: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Uri:
    """Where apt would fetch a file, and what it must be."""

    url: str
    name: str
    size: int
    sha256: str


class PrivateApt:
    """apt with its state in `folder` and the package sources of `machine` (`MACHINE`, ``/etc/apt``).

    `kind` is 'deb' for packages or 'deb-src' for sources: the other kind of the same repositories is
    not looked at, so that a machine without deb-src lines can fetch sources all the same.
    """

    def __init__(self, folder: Path, *, kind: str = "deb", machine: Path | None = None) -> None:
        self.folder, self.kind, self.machine = folder, kind, machine or MACHINE
        self.config = folder / "apt.conf"
        self._updated = False

    def prepare(self) -> None:
        """Write the configuration and the package sources anew."""
        for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "state/status").touch()
        user = "root" if os.geteuid() == 0 else "_apt"
        with atomic_file(self.config) as beside:
            beside.write_text(_CONFIG.format(folder=self.folder, user=user), encoding="utf-8")
        parts = self.folder / "etc/sources.list.d"
        for old in parts.iterdir():
            old.unlink()
        for source in [self.machine / "sources.list", *sorted((self.machine / "sources.list.d").glob("*"))]:
            if source.is_file() and source.suffix in (".list", ".sources"):
                text = _of_kind(source.read_text(encoding="utf-8", errors="replace"), source.suffix, self.kind)
                place = self.folder / "etc" if source.name == "sources.list" else parts
                (place / source.name).write_text(text, encoding="utf-8")

    def run(self, *words: str, cwd: Path | None = None, check: bool = True, timeout: float | None = None) -> Result:
        """Run an apt program with the private configuration; `timeout` is in seconds."""
        argv = [words[0], "-c", str(self.config), *words[1:]]
        return run(argv, cwd=cwd, check=check, timeout=timeout, env={"LC_ALL": "C.UTF-8"})

    def update(self) -> None:
        """Refresh the indexes, once for each object.

        A repository that does not answer or is wrongly signed only loses its own packages;
        `UnreachableError` says that none answered, `RefusedError` that a signature is wrong and nothing was left.
        """
        if self._updated:
            return
        if free_bytes(self.folder) < NEEDED_BYTES:  # apt waits for ever on a full disk
            raise full_disk(f"Debian's package lists ({NEEDED_BYTES // 10**6} MB)", self.folder)
        self.prepare()
        with ui.step("fetch", "refreshing Debian's package lists (private, signature checked by apt)"):
            result = self._update()
        if tells_full(result.output):
            raise full_disk("Debian's package lists", self.folder)
        got = [line for line in result.output.splitlines() if re.match(r"(Get|Hit):\d+", line)]
        problems = [line for line in result.output.splitlines() if re.match(r"(E|W): ", line)]
        signed = [line for line in problems if "signature" in line.lower() or "not signed" in line]
        lists = [path for path in (self.folder / "state/lists").glob("*Release") if path.is_file()]
        if not got or not lists:
            reason = (signed or problems or ["E: no Debian repository is configured"])[0][3:]
            if signed:
                raise RefusedError(f"Debian's package lists are refused: {_short(reason)}", hint=_KEYS_HINT)
            raise UnreachableError(
                f"Debian's package lists cannot be had: {_short(reason)}",
                hint="check the network and the machine's package sources, or use --offline or another --origin",
            )
        for line in dict.fromkeys(signed + [line for line in problems if line.startswith("E:")]):
            ui.warn(_short(line[3:]))
        self._updated = True

    def _update(self) -> Result:
        """Run the update; an apt whose caller was killed may hold the lists for a few seconds more."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                result = self.run("apt-get", "update", "-q", check=False, timeout=UPDATE_SECONDS)
            except CommandError as error:
                raise UnreachableError(
                    error.message, hint="a mirror that sends nothing? Try another --origin"
                ) from None
            if "Could not get lock" not in result.output or time.monotonic() > until:
                return result
            time.sleep(0.5)

    def offers(self, package: str) -> list[Offer]:
        """Return the versions of a binary package, newest first."""
        shown = self.run("apt-cache", "show", "--all-versions", package, check=False).output
        stanzas = [dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text, re.M)) for text in shown.split("\n\n")]
        known = {fields.get("Version"): fields for fields in stanzas if fields.get("Package") == package}
        found = []
        for version, suite in self.listed(package):
            fields = known.get(version, {})
            if fields.get("SHA256") and fields.get("Size", "").isdigit():
                source = fields.get("Source", package).partition(" ")[0]
                found.append(Offer(package, version, source, suite, fields["SHA256"], int(fields["Size"])))
        return found

    def listed(self, package: str) -> list[tuple[str, str]]:
        """Return version and suite of every offer of a package, newest first."""
        found: dict[str, str] = {}
        for line in self.run("apt-cache", "madison", package, check=False).output.splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 3 and cells[0] == package:
                found.setdefault(cells[1], cells[2].split()[1].rpartition("/")[0])
        return list(found.items())

    def download(self, offer: Offer, folder: Path) -> Path:
        """Download a package, resumable, and return its path; apt's signed index gives the hash."""
        folder.mkdir(parents=True, exist_ok=True)
        result = self.run("apt-get", "download", "-qq", "--print-uris", f"{offer.package}={offer.version}", cwd=folder)
        uris = parse_uris(result.output)
        if not uris:
            raise NotOfferedError(f"apt offers no download for {offer.package} {offer.version}")
        name = f"{offer.package}_{offer.version.partition(':')[2] or offer.version}.deb"
        uri = Uri(uris[0].url, name, offer.size, offer.sha256)
        return self.get(uri, folder, ["apt-get", "download", "-q", f"{offer.package}={offer.version}"])

    def get(self, uri: Uri, folder: Path, otherwise: list[str]) -> Path:
        """Bring one file of the archive into `folder`, resumable; where plain HTTP is not the way, by apt itself.

        `otherwise` is the apt command that downloads into the current folder.
        """
        wanted = Wanted(uri.url, folder / uri.name, uri.name, sha256=uri.sha256, size=uri.size)
        scheme = uri.url.partition(":")[0]
        if scheme in ("http", "https"):
            try:
                return download(wanted, session(self._proxies()))
            except UnreachableError as error:
                if "broke off" in error.message:
                    raise
                ui.note("fetch", f"{error.message}; trying with apt's own transport")
        return self._by_apt(wanted, uri, folder, otherwise)

    def _by_apt(self, wanted: Wanted, uri: Uri, folder: Path, words: list[str]) -> Path:
        from cloison_forge.core.stage import digest_file

        work = folder / f"{SCRATCH}apt"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            self.run(*words, cwd=work)
        except CommandError as error:
            told = [line.strip(" |") for line in error.message.splitlines()]
            reason = next((line[3:] for line in told if line.startswith("E: ")), told[-1])
            raise UnreachableError(
                f"{uri.name} cannot be downloaded: {_short(reason)}",
                hint="check the network, or use --offline with a warm cache, or another --origin",
            ) from None
        try:
            for found in work.iterdir():
                path = found
                if path.stat().st_size == uri.size and digest_file(path) == uri.sha256:
                    if path.is_symlink():  # apt's way with a mirror on this machine
                        shutil.copyfile(path, wanted.part)
                        path = wanted.part
                    path.replace(wanted.target)
                    return wanted.target
            raise RefusedError(f"{uri.name} is refused: what apt brought is not what its index promises")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _proxies(self) -> dict[str, str]:
        """Return apt's own proxy settings, in the form of requests; they may differ from the environment's."""
        text = self.run("apt-config", "dump", "--format", "%F %v%n", "Acquire::http", "Acquire::https").output
        found = {}
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            match = re.fullmatch(r"acquire::(https?)::proxy(?:::([\w.-]+))?", key.lower())
            if match and value:
                scheme, host = match[1], match[2]
                found[f"{scheme}://{host}" if host else scheme] = "" if value == "DIRECT" else value
        return found

    def signers(self, suite: str) -> list[str]:
        """Return the fingerprints of the keys that signed the release files of `suite`."""
        from cloison_forge.source.signature import fingerprints

        found: list[str] = []
        for release in sorted((self.folder / "state/lists").glob(f"*_dists_{suite.replace('/', '_')}_InRelease")):
            found += [key for key in fingerprints(release, self.keyrings()) if key not in found]
        return found

    def keyrings(self) -> list[Path]:
        """Return the binary keyrings that the machine's apt trusts for Debian."""
        places = [Path("/usr/share/keyrings"), self.machine / "trusted.gpg.d"]
        found = [path for place in places for path in sorted(place.glob("debian-archive*.gpg"))]
        return [path for path in found if "removed" not in path.name]


def parse_uris(text: str) -> list[Uri]:
    """Read the lines of ``--print-uris``: ``'URL' NAME SIZE SHA256:HASH``."""
    found = []
    for line in text.splitlines():
        match = re.match(r"'([^']+)' (\S+) (\d+) ?(?:SHA256:([0-9a-f]{64}))?", line)
        if match:
            found.append(Uri(match[1], match[2], int(match[3]), match[4] or ""))
    return found


def _of_kind(text: str, suffix: str, kind: str) -> str:
    """Rewrite a file of package sources so that it names each repository once, as `kind`.

    Options that switch off the signature check are dropped.
    """
    if suffix == ".sources":
        text = re.sub(r"(?mi)^types:.*$", f"Types: {kind}", text)
        return re.sub(r"(?mi)^(trusted|allow-insecure|allow-weak):.*\n?", "", text)
    lines = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(.*)$", line)
        if match:
            rest = re.sub(r"\b(trusted|allow-insecure|allow-weak)=\S*?(?=[\s\]])", "", match[1], flags=re.I)
            rest = re.sub(r"^\[\s*\]\s*", "", rest)
            lines.append(f"{kind} {rest}")
    return "".join(line + "\n" for line in dict.fromkeys(lines))


def _short(text: str) -> str:
    """Shorten apt's message for one line; addresses are left out, the machine's own files tell them."""
    text = re.sub(r"\w+://\S*/", "", text)
    return text if len(text) < 200 else text[:200] + " …"
