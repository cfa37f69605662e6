# SPDX-License-Identifier: GPL-2.0-or-later
"""Origin *git*: a tag, branch or commit of a remote or local repository, without its history."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cloison_forge.core import ui
from cloison_forge.core.errors import UsageError
from cloison_forge.core.lines import Line
from cloison_forge.core.run import require
from cloison_forge.core.stage import atomic_file, digest_bytes
from cloison_forge.source import cache, keyring, tarball
from cloison_forge.source.model import NotOfferedError, Origin, RefusedError, UnreachableError
from cloison_forge.source.signature import Detached, UnknownKeyError
from cloison_forge.source.tree import version_in
from cloison_forge.source.versions import belongs_to

if TYPE_CHECKING:
    import git

STABLE = "https://git.kernel.org/pub/scm/linux/kernel/git/stable/linux.git"
_NO_PROMPT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C.UTF-8"}


def parse(line: Line, value: str) -> tuple[str, str]:
    """Return address and reference of a request: ``URL#REF``, ``REF`` of the stable kernel, a local folder."""
    if not value:
        return STABLE, f"v{line.version}"
    url, mark, ref = value.rpartition("#")
    if not mark:
        url, ref = (value, "HEAD") if Path(value).is_dir() else (STABLE, value)
    if ref.startswith("-") or url.startswith("-") or not ref or not url or re.search(r"\s|:.*:|\.\.", ref):
        raise UsageError(
            f"'{value}' names no git reference", hint="give URL#TAG, a TAG of the stable kernel, or a folder#TAG"
        )
    return (str(Path(url).resolve()) if Path(url).is_dir() else url), ref


def cached(line: Line, value: str) -> Origin | None:
    """Return what an earlier fetch of the same request left."""
    request = "#".join(_public(*parse(line, value)))
    found = [origin for origin in cache.cached(line, "git") if origin.provenance.get("request") == request]
    return max(found, key=lambda origin: origin.tar.stat().st_mtime, default=None)


def fetch(line: Line, value: str = "", *, keys: Path | None = None) -> Origin:
    """Bring the tree of a git reference into the cache, as a tar.

    A tag's signature is checked with `keys` (by default the kernel developers'): bad is refused, by an
    unknown key or none is recorded as such. Raises `UsageError`, `UnreachableError`, `NotOfferedError`,
    `RefusedError`.
    """
    require("git", why="for the git origin")
    url, ref = parse(line, value)
    import git

    repository = _repository(url)
    _fetch(repository, url, ref)
    top = repository.git.rev_parse("FETCH_HEAD")
    commit = repository.git.rev_parse("FETCH_HEAD^{commit}")
    signature = _tag_signature(repository, top, ref, keys)
    try:
        version = version_in(repository.git.show(f"{commit}:Makefile"), f"{ref} of {_public(url, ref)[0]}")
    except git.GitCommandError:
        raise RefusedError(f"{ref} of {_public(url, ref)[0]} is no kernel source: it has no Makefile") from None
    if not belongs_to(version, line.name):
        raise RefusedError(f"{ref} of {_public(url, ref)[0]} is Linux {version}, not of the line {line.name}")
    request = "#".join(_public(url, ref))
    tar = cache.folder(line, "git") / f"linux-{commit[:16]}-{digest_bytes(request.encode())[:8]}.tar"
    for known in cache.cached(line, "git"):
        if known.tar == tar and known.provenance.get("commit") == commit:
            return known
    with atomic_file(tar) as beside, beside.open("wb") as sink:
        repository.archive(sink, treeish=commit, format="tar", prefix=f"linux-{commit[:16]}/")
    tar_sha256 = tarball.digest(tar, tar.name)
    ui.note("fetch", f"{ref}: commit {commit[:16]}, Linux {version}, tag signature: {signature}")
    provenance: dict[str, object] = {
        "origin": "git",
        "request": request,
        "commit": commit,
        "version": version,
        "tar_sha256": tar_sha256,
        "tag_signature": signature,
        "verified": "git: object hashes of the commit",
    }
    return cache.store(Origin("git", version, "", tar, tar_sha256, provenance))


def _repository(url: str) -> git.Repo:
    """Return a bare repository in the cache for one address."""
    import git

    place = cache.kernels() / "git" / f"{digest_bytes(url.encode())[:16]}.git"
    try:
        return git.Repo(place)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        place.parent.mkdir(parents=True, exist_ok=True)
        return git.Repo.init(place, bare=True)


def _fetch(repository: git.Repo, url: str, ref: str) -> None:
    """Fetch one reference without history; the address stays out of the repository's configuration."""
    import git

    public = _public(url, ref)[0]
    try:
        with ui.step("fetch", f"git: {ref} of {public}"), repository.git.custom_environment(**_NO_PROMPT):
            repository.git.fetch("--depth=1", "--no-tags", "--force", "--no-auto-gc", "--", url, ref)
    except git.GitCommandError as error:
        lines = [line for line in str(error.stderr).replace("'", "").splitlines() if "fatal:" in line]
        reason = lines[0].partition("fatal:")[2].strip().replace(url, public) if lines else "git fetch failed"
        kind = NotOfferedError if "couldn" in reason and "find remote ref" in reason else UnreachableError
        raise kind(
            f"git: {ref} of {public} cannot be had: {reason}", hint="check address and reference, or the network"
        ) from None


def _tag_signature(repository: git.Repo, top: str, ref: str, keys: Path | None) -> str:
    """Return whose signature an annotated tag carries; a bad one is refused."""
    if repository.git.cat_file("-t", top) != "tag":
        return "none (not a signed tag)"
    data: bytes = repository.git.cat_file("tag", top, stdout_as_string=False, strip_newline_in_stdout=False)
    text, mark, armour = data.partition(b"-----BEGIN PGP SIGNATURE-----")
    if not mark:
        return "none (not a signed tag)"
    place = Path(repository.common_dir) / "cloison-tag.asc"
    place.write_bytes(mark + armour)
    try:
        detached = Detached(place, keys or keyring.developers(), f"tag {ref}")
        with detached.feed:
            detached.feed.write(text)
            signature = detached.result()
    except UnknownKeyError:
        return "not checked: its key is not in the keyring"
    finally:
        place.unlink(missing_ok=True)
    return f"{signature.fingerprint} {signature.user}"


def _public(url: str, ref: str) -> tuple[str, str]:
    """Return the address without credentials, and without the folder when it is local."""
    if os.path.isabs(url) or url.startswith("file:"):  # noqa: PTH117
        return "a local repository", ref
    return re.sub(r"(?<=://)[^/@]*@", "", url), ref
