# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in Xen's first domain, as the script of a `relay` job: starts one guest with xl and hands on what it says.

Standard library only, for this file alone goes into the machine. Descriptor 3 is the result channel. The guest's
disks are this machine's third and fourth; its channel is a disk too, a file of this machine, into which it writes
lines from the start; the rest is zeros.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHANNEL = 3
CHANNEL_BYTES = 8 << 20
CHANNEL_FILE = Path("/run/guest-channel")
CHANNEL_DISK = "/dev/loop0"
ATTACH = Path("/run/attach-disk")
NAME = "guest"
ESP, ROOT, JOB = "/dev/vda2", "/dev/vdc", "/dev/vdd"
MEMORY_MIB = 512
_PROCESSORS = 2
_POLL = 0.2

# The part of Debian's own script that a guest needs; the whole of it takes longer than xl waits where the
# processor is emulated (seen: killed after its time limit).
ATTACH_SCRIPT = """\
#!/bin/sh
[ "$1" = add ] || exit 0
disk=$(xenstore-read "$XENBUS_PATH/params")
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$disk")" "$XENBUS_PATH/hotplug-status" connected
"""

Send = Callable[[bytes], None]


def configuration(kind: str, words: str) -> str:
    """Return xl's configuration of a guest of type `kind` (``pv``) whose kernel gets `words`."""
    devices = (("xvda", "rw", ROOT), ("xvdb", "ro", JOB), ("xvdc", "rw", CHANNEL_DISK))
    disks = [f"format=raw, vdev={name}, access={how}, script={ATTACH}, target={disk}" for name, how, disk in devices]
    ends = "".join(f'on_{event} = "destroy"\n' for event in ("poweroff", "reboot", "crash", "watchdog"))
    return (
        f'name = "{NAME}"\ntype = "{kind}"\nkernel = "/mnt/linux"\ncmdline = "{words}"\n'
        f"memory = {MEMORY_MIB}\nvcpus = {_PROCESSORS}\ndisk = {disks!r}\n{ends}"
    )


class Tail:
    """Follows a file that is filled from the start: what comes before the first zero byte has been written."""

    def __init__(self, descriptor: int, send: Send) -> None:
        self._descriptor, self._send, self._at = descriptor, send, 0

    def follow(self) -> bool:
        """Send what is new; say whether there was something."""
        data = os.pread(self._descriptor, 65536, self._at)
        data = data[: data.find(b"\0")] if b"\0" in data else data
        if data:
            self._send(data)
            self._at += len(data)
        return bool(data)


def _writer(descriptor: int) -> Send:
    def send(data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    return send


def _run(*words: str) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = (result.stdout + result.stderr).strip().splitlines() or ["no message"]
        sys.exit(f"{words[0]}: status {result.returncode}: {' / '.join(output[-6:])}")


def _console() -> int | None:
    """Open the terminal of the guest's console, as soon as there is one."""
    asked = subprocess.run(["xl", "domid", NAME], capture_output=True, text=True, check=False)
    path = f"/local/domain/{asked.stdout.strip()}/console/tty"
    found = subprocess.run(["xenstore-read", path], capture_output=True, text=True, check=False)
    if asked.returncode != 0 or found.returncode != 0 or not found.stdout.strip():
        return None
    try:
        return os.open(found.stdout.strip(), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None


def _copy(console: int, send: Send) -> bool:
    """Hand on what the console says; False when it is gone."""
    try:
        data = os.read(console, 65536)
    except BlockingIOError:
        return True
    except OSError:
        return False
    send(data)
    return bool(data)


def serve(guest: subprocess.Popen[bytes], tail: Tail) -> int:
    """Hand on the guest's channel and console until xl says that it has ended; return xl's status."""
    say = _writer(sys.stdout.fileno())
    console: int | None = None
    while True:
        ended = guest.poll() is not None
        console = _console() if console is None and not ended else console
        if console is not None and not _copy(console, say):
            os.close(console)
            console = None
        while tail.follow():
            pass
        if ended:
            return guest.returncode
        select.select([] if console is None else [console], [], [], _POLL)


def main(kind: str, words: str) -> int:
    """Prepare Xen's daemons, start the guest and stay with it."""
    _run("mount", "-t", "xenfs", "xenfs", "/proc/xen")
    _run("/etc/init.d/xen", "start")
    _run("mount", "-t", "vfat", "-o", "ro", ESP, "/mnt")
    with CHANNEL_FILE.open("wb") as channel:
        channel.truncate(CHANNEL_BYTES)
    _run("losetup", CHANNEL_DISK, str(CHANNEL_FILE))
    ATTACH.write_text(ATTACH_SCRIPT, encoding="ascii")
    ATTACH.chmod(0o755)
    settings = Path("/run/guest.cfg")
    settings.write_text(configuration(kind, words), encoding="ascii")
    descriptor = os.open(CHANNEL_FILE, os.O_RDONLY)
    guest = subprocess.Popen(["xl", "create", "-F", str(settings)])
    return serve(guest, Tail(descriptor, _writer(CHANNEL)))


if __name__ == "__main__":
    sys.exit(main(*Path(__file__).with_name("relay.arguments").read_text(encoding="utf-8").split("\n", 1)))
