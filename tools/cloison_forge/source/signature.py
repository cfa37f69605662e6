# SPDX-License-Identifier: GPL-2.0-or-later
"""Signatures, by gpgv: a fixed keyring, no trust database, no network."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.run import Fed, run
from cloison_forge.source.model import RefusedError

_BAD = {
    "BADSIG": "the signature does not fit the contents",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the signing key had expired",
    "REVKEYSIG": "the signing key is revoked",
    "NO_PUBKEY": "it is signed by a key that is not in the keyring",
    "ERRSIG": "the signature cannot be checked",
}


class UnknownKeyError(RefusedError):
    """The only signatures are by keys that are not in the keyring."""


@dataclass(frozen=True)
class Signature:
    """A good signature: fingerprint of the primary key, user id, and the day it was made (YYYY-MM-DD)."""

    fingerprint: str
    user: str
    day: str


def _arguments(keyrings: Iterable[Path]) -> list[str]:
    words = ["gpgv", "--status-fd", "1"]
    for keyring in keyrings:
        words += ["--keyring", str(keyring.resolve())]
    return words


def judge(status: str, what: str) -> Signature:
    """Return the first good signature in gpgv's status lines; `RefusedError` says what is wrong with `what`.

    One bad signature spoils the others; one by an unknown key does not.
    """
    seen: dict[str, str] = {}
    for word, rest in re.findall(r"^\[GNUPG:\] ([A-Z_]+) ?(.*)$", status, re.M):
        seen.setdefault(word, rest)
    good = "VALIDSIG" in seen and "GOODSIG" in seen
    spoilt = next((word for word in _BAD if word in seen), "")
    if good and spoilt in ("", "NO_PUBKEY"):
        words = seen["VALIDSIG"].split()
        return Signature(words[-1] if len(words) >= 10 else words[0], seen["GOODSIG"].partition(" ")[2], words[1])
    key = (seen.get("NO_PUBKEY") or seen.get("BADSIG") or seen.get("ERRSIG") or "").partition(" ")[0]
    reason = _BAD.get(spoilt, "it carries no signature that gpgv can read")
    kind = UnknownKeyError if spoilt == "NO_PUBKEY" else RefusedError
    raise kind(
        f"{what} is refused: {reason}{f' (key {key})' if key else ''}",
        hint="do not use this file; fetch again, or take another --origin",
    )


class Detached:
    """A detached signature over data that comes piece by piece."""

    def __init__(self, signature: Path, keyring: Path, what: str) -> None:
        self.what = what
        self.feed = Fed([*_arguments([keyring]), str(signature), "-"])

    def result(self) -> Signature:
        """End the data and return the good signature, or raise `RefusedError`."""
        return judge(self.feed.finish(check=False).output, self.what)


def clearsigned(path: Path, keyrings: Sequence[Path], what: str) -> tuple[str, Signature]:
    """Return the signed text of a clear-signed file, and its signature; `RefusedError` if it is not good."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        result = run([*_arguments(keyrings), "--output", str(text), str(path)], check=False)
        signature = judge(result.output, what)
        return text.read_text(encoding="utf-8", errors="replace"), signature


def fingerprints(path: Path, keyrings: Sequence[Path]) -> list[str]:
    """Return the fingerprints of all good signatures of a clear-signed file; none when nothing can be checked."""
    if not keyrings:
        return []
    output = run([*_arguments(keyrings), str(path)], check=False).output
    return [line.split()[-1] for line in re.findall(r"^\[GNUPG:\] VALIDSIG (.*)$", output, re.M)]
