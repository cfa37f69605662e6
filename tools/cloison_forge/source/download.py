# SPDX-License-Identifier: GPL-2.0-or-later
"""Resumable downloads: ``NAME.part`` beside the target, HTTP ranges, progress, and a check at the end."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloison_forge.core import ui
from cloison_forge.core.stage import digest_file
from cloison_forge.source.model import (
    NotOfferedError,
    RefusedError,
    UnreachableError,
    disk_errors,
    free_bytes,
    full_disk,
)

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 18
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds of silence
TRIES = 6  # interruptions without progress before giving up


class _InterruptedError(Exception):
    """The transfer stopped before its end; what came stays in the .part file."""


@dataclass(frozen=True)
class Wanted:
    """One file to download.

    `what` is its name for people; `sha256` (hexadecimal) and `size` (bytes) are checked if given;
    `limit` (bytes) bounds what is accepted from a server when the size is not known.
    """

    url: str
    target: Path
    what: str
    sha256: str = ""
    size: int = 0
    limit: int = 1 << 32

    @property
    def part(self) -> Path:
        """Where the file grows."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def tag(self) -> Path:
        """What the server said of the file when the part was begun."""
        return self.target.with_name(self.target.name + ".part.json")


def session(proxies: Mapping[str, str] | None = None) -> requests.Session:
    """Return an HTTP session that tries again when a server is busy; `proxies` are added to the environment's."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    made = requests.Session()
    retry = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    made.headers["Accept-Encoding"] = "identity"
    made.headers["User-Agent"] = "cloison"
    made.proxies.update(proxies or {})
    return made


def download(wanted: Wanted, http: requests.Session | None = None) -> Path:
    """Download a file, going on where an earlier try stopped, and return its path.

    Raises `UnreachableError` when the server does not answer or keeps breaking off, `NotOfferedError`
    when it does not have the file, `RefusedError` when size or hash are wrong after a whole download;
    then nothing is left behind.
    """
    http = http or session()
    resumed = wanted.part.is_file()
    with disk_errors(f"download of {wanted.what}", wanted.target.parent):
        wanted.target.parent.mkdir(parents=True, exist_ok=True)
        if wanted.sha256 and wanted.target.is_file() and digest_file(wanted.target) == wanted.sha256.lower():
            return wanted.target
        if wanted.size - _size(wanted.part) > free_bytes(wanted.target.parent):
            raise full_disk(f"download of {wanted.what} ({wanted.size // 10**6} MB)", wanted.target.parent)
        _transfer(wanted, http)
        trouble = _trouble(wanted)
        if trouble and resumed:
            ui.note("fetch", f"{wanted.what}: the part of an earlier download does not fit, starting over")
            discard(wanted)
            _transfer(wanted, http)
            trouble = _trouble(wanted)
        if trouble:
            discard(wanted)
            raise RefusedError(
                f"{wanted.what} is refused: {trouble}",
                hint="it was removed; try again, and if it happens again do not trust that server",
            )
        wanted.part.replace(wanted.target)
        wanted.tag.unlink(missing_ok=True)
    return wanted.target


def discard(wanted: Wanted) -> None:
    """Remove what was downloaded so far."""
    wanted.part.unlink(missing_ok=True)
    wanted.tag.unlink(missing_ok=True)


def fetch_bytes(url: str, what: str, http: requests.Session, limit: int = 1 << 22) -> bytes:
    """Return a small file (at most `limit` bytes); errors as in `download`."""
    with _get(http, url, what, {}) as response:
        _refuse_status(response.status_code, what)
        try:
            data = response.raw.read(limit + 1, decode_content=True)
        except Exception as error:
            raise UnreachableError(f"{what}: the server broke off ({_reason(error)})") from None
        expected = response.headers.get("Content-Length", "")
    if len(data) > limit:
        raise RefusedError(f"{what} is refused: larger than {limit} bytes")
    if expected.isdigit() and int(expected) != len(data):
        raise UnreachableError(f"{what}: the server broke off after {len(data)} of {expected} bytes")
    return bytes(data)


def _transfer(wanted: Wanted, http: requests.Session) -> None:
    """Bring the part to its end, trying again as long as something comes."""
    failures = 0
    while True:
        before = _size(wanted.part)
        try:
            _attempt(wanted, http)
            return
        except _InterruptedError as error:
            failures = 1 if _size(wanted.part) > before else failures + 1
            if failures >= TRIES:
                raise UnreachableError(
                    f"{wanted.what}: the transfer broke off {failures} times ({error})",
                    hint="the part that came is kept; run the same command again to go on from there",
                ) from None
            time.sleep(0.2 * failures)


def _attempt(wanted: Wanted, http: requests.Session) -> None:
    have = _size(wanted.part)
    if wanted.size and have == wanted.size:
        return
    headers: dict[str, str] = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        validator = _validator(wanted)
        if validator:
            headers["If-Range"] = validator
    with _get(http, wanted.url, wanted.what, headers) as response:
        if response.status_code == 416:  # the part is as long as the file, or longer than it
            if _total_of_range(response) != have:
                discard(wanted)
                raise _InterruptedError("the part was longer than the file")
            return
        _refuse_status(response.status_code, wanted.what)
        if response.status_code != 206:
            have = 0
        total = _total(response, have)
        if total > wanted.limit:
            raise RefusedError(f"{wanted.what} is refused: {total} bytes are more than {wanted.limit}")
        wanted.tag.write_text(json.dumps({"etag": response.headers.get("ETag", "")}), encoding="utf-8")
        _copy(wanted, response, have, total)


def _copy(wanted: Wanted, response: requests.Response, have: int, total: int) -> None:
    from requests import RequestException

    bar = ui.Progress("fetch", wanted.what, total or wanted.size)
    try:
        with wanted.part.open("r+b" if have else "wb") as sink:
            sink.seek(have)
            sink.truncate()
            for chunk in response.iter_content(CHUNK):
                sink.write(chunk)
                have += len(chunk)
                if have > wanted.limit:
                    raise RefusedError(f"{wanted.what} is refused: more than {wanted.limit} bytes came")
                bar.update(have, f"{have / 1e6:.0f} MB")
    except RequestException as error:
        raise _InterruptedError(_reason(error)) from None
    finally:
        bar.finish()
    if total and have < total:
        raise _InterruptedError(f"{have} of {total} bytes came")


def _get(http: requests.Session, url: str, what: str, headers: Mapping[str, str]) -> requests.Response:
    from requests import RequestException

    try:
        return http.get(url, headers=dict(headers), stream=True, timeout=TIMEOUT)
    except RequestException as error:
        raise UnreachableError(
            f"{what}: the server cannot be reached ({_reason(error)})",
            hint="check the network, or use --offline with a warm cache, or another --origin",
        ) from None


def _refuse_status(status: int, what: str) -> None:
    if status in (404, 410):
        raise NotOfferedError(f"{what}: the server does not have it (HTTP {status})")
    if status not in (200, 206):
        raise UnreachableError(f"{what}: the server answers HTTP {status}")


def _trouble(wanted: Wanted) -> str:
    """Say what is wrong with a whole download, or nothing."""
    size = _size(wanted.part)
    if wanted.size and size != wanted.size:
        return f"{size} bytes instead of {wanted.size}"
    if wanted.sha256:
        found = digest_file(wanted.part)
        if found != wanted.sha256.lower():
            return f"its SHA-256 is {found}, expected {wanted.sha256.lower()}"
    return ""


def _total(response: requests.Response, have: int) -> int:
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else 0


def _total_of_range(response: requests.Response) -> int:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else -1


def _validator(wanted: Wanted) -> str:
    """Return the strong entity tag under which the part was begun, if the server gave one."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(wanted.tag.read_text(encoding="utf-8"))
        tag = value.get("etag", "") if isinstance(value, dict) else ""
        if isinstance(tag, str) and not tag.startswith("W/"):
            return tag
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: BaseException) -> str:
    """Return the innermost reason of a network error, in few words and without object addresses."""
    inner: BaseException = error
    for _ in range(8):
        following = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(following, BaseException):
            break
        inner = following
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    text = re.sub(r"\[Errno -?\d+\] ", "", str(inner)).rpartition(": ")[2]
    return text[:160] or type(inner).__name__
