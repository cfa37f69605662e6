# SPDX-License-Identifier: GPL-2.0-or-later
"""Process 1 of the machine that loses its power: looks what the last cut left, then breaks links until the next.

It stands on a scratch disk with ``inode.py`` beside it. It says on the console: "BROKEN what" or "verified LEFT",
then "ready", then "count N" now and then.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import itertools
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
FILES = 24


def pattern(number: int) -> bytes:
    """Return the content of a file: up to 300 kB that nothing else looks like."""
    piece = hashlib.sha256(str(number).encode()).digest()
    return (piece * 10000)[: 1000 + number * 12345 % 300000]


def say(*words: object) -> None:
    """Write one line to the console."""
    print(*words, flush=True)


def make(inode: Any) -> None:
    """Make the shared files."""
    for name in ("own", "other"):
        (HERE / name).mkdir()
    for number in range(FILES):
        path = HERE / "other" / str(number)
        path.write_bytes(pattern(number))
        path.chmod(0o640 + number % 8)
        os.chown(path, number, number + 1)
        os.setxattr(path, "user.number", str(number).encode())
        os.utime(path, ns=(number, 1_600_000_000_000_000_000 + number))
        descriptor = os.open(path, os.O_RDONLY)
        inode.share(descriptor)
        os.close(descriptor)
        os.link(path, HERE / "own" / str(number))
    os.sync()


def wrong(path: Path, number: int) -> str:
    """Say what is wrong with a file, or nothing."""
    found = path.stat()
    seen = {
        "content": path.read_bytes() == pattern(number),
        "mode": found.st_mode & 0o7777 == 0o640 + number % 8,
        "owner": (found.st_uid, found.st_gid) == (number, number + 1),
        "time": found.st_mtime_ns == 1_600_000_000_000_000_000 + number,
        "attribute": os.getxattr(path, "user.number") == str(number).encode(),
    }
    return " ".join(f"{path.parent.name}/{path.name}:{what}" for what, good in seen.items() if not good)


def verify() -> int:
    """Look at every name; return how many finished copies the cut left in the work directory."""
    strange = [path.name for path in (HERE / "own").iterdir() if not path.name.removesuffix(".new").isdecimal()]
    found = [wrong(HERE / name / str(number), number) for number in range(FILES) for name in ("own", "other")]
    bad = [text for text in found if text] + strange
    left = list((HERE / ".vserver-work").glob("*"))
    for path in left:
        number = int(os.getxattr(path, "user.number"))
        bad += [text for text in [wrong(path, number)] if text]
        path.unlink()
    if bad:
        say("BROKEN", *bad)
    return len(left)


def share_again(number: int) -> None:
    """Let the guest's name stand for the shared file again."""
    fresh = HERE / "own" / f"{number}.new"
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    os.link(HERE / "other" / str(number), fresh)
    fresh.rename(HERE / "own" / str(number))


def main() -> None:
    """Verify, and then break links for ever."""
    inode = importlib.import_module("inode")
    if not (HERE / "other").exists():
        make(inode)
    say("verified", verify())
    for number in range(FILES):
        share_again(number)
    os.sync()
    say("ready")
    for count in itertools.count(1):
        number = random.randrange(FILES)
        own, other = HERE / "own" / str(number), HERE / "other" / str(number)
        os.close(os.open(own, os.O_WRONLY))
        if own.stat().st_ino == other.stat().st_ino:
            say("BROKEN no copy of", number)
        share_again(number)
        if count % 25 == 0:
            say("count", count)


if __name__ == "__main__":
    try:
        ctypes.CDLL(None).mount(b"proc", b"/proc", b"proc", 0, None)
        main()
    except BaseException as error:
        say("BROKEN", type(error).__name__, error)
        time.sleep(3600)
