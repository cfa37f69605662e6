# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``cloison`` command and network contexts: addresses given, used, moved, taken back."""

from __future__ import annotations

import json
import sys

from cloison.network import Network
from cloison.syscall import Vserver
from cloison_verify.catalogue import Probe, check, instead
from cloison_verify.checks.tool import SECONDS, cloison, context
from cloison_verify.nets import HOST, A, B, machine
from cloison_verify.scene import Scene, SceneError, Seen

_BINDS = """
import errno, socket
for address in ("10.77.0.2", "10.77.0.1", "127.0.0.1"):
    try:
        with socket.socket() as end:
            end.bind((address, 0))
            print(end.getsockname()[0])
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def bound_by_command(*options: str) -> Probe:
    """Return a probe that runs a program in a context made with these options."""

    def probe(_scene: Scene) -> Seen:
        machine()
        with context("net-tool", *options):
            _, out = cloison("exec", "net-tool", "--", sys.executable, "-S", "-c", _BINDS)
        return Seen(" ".join(out.split()))

    return probe


check(
    "net.tool-create",
    title="cloison create --address confines what exec starts",
    attack="bind to an own address, to the host's, and to 127.0.0.1 in a context made with --address",
    expected=f"{A} EADDRNOTAVAIL 127.0.0.1",
    control=instead(bound_by_command(), f"{A} {HOST} 127.0.0.1", "a context without a network of its own"),
    seconds=SECONDS,
)(bound_by_command("--address", A))


def edited(*options: str) -> Probe:
    """Return a probe that changes addresses by the command and says what it prints and what remains at the end."""

    def probe(_scene: Scene) -> Seen:
        with context("net-tool", "--address", f"{A}/24") as xid:
            status, out = cloison("network", "net-tool", "--json", *options)
            if status:
                return Seen(out.splitlines()[0].removeprefix("cloison: "))
            shown = json.loads(out)["addresses"]
        gone = not Network(xid, Vserver()).exists()
        if not gone:
            raise SceneError("the network context outlives its context")
        return Seen(", ".join(shown))

    return probe


check(
    "net.tool-change",
    title="cloison network removes what there is, and nothing else",
    attack="cloison network --remove with another mask",
    expected=f"{A}: the context has no such address",
    control=instead(
        edited("--add", f"{B}/24", "--add", "fd77::2/64", "--remove", f"{A}/24"),
        f"{B}/24, fd77::2/64",
        "the entry itself, after two more were added",
    ),
    seconds=SECONDS,
)(edited("--remove", A))
