# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands ``cloison device`` and ``cloison mount``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

from cloison import devices, output
from cloison.context import Context
from cloison.errors import CloisonError, Exit
from cloison.flags import describe

if TYPE_CHECKING:
    from cloison.syscall import Vserver


class _Host(Protocol):
    """What the subcommands need of the command they belong to."""

    kernel: Vserver

    def live(self, text: str) -> Context: ...


class DeviceCommands:
    """Mixed into the command."""

    def do_device(self: _Host, args: argparse.Namespace) -> int:
        """Show or change the table of devices."""
        everybody = args.context == "all"
        context = Context(devices.ALL, self.kernel) if everybody else self.live(args.context)
        if args.action == "list":
            return _list(context, everybody, as_json=args.json)
        if args.device is None:
            raise CloisonError(
                f"device {args.action}: no device is given",
                hint="a path, c:10:229, b:7:0, char or block",
                status=Exit.USAGE,
            )
        with devices.paths(args.device) as (device, target):
            if args.action == "map":
                context.map_device(device, target, args.rights)
            else:
                try:
                    context.unmap_device(device, target)
                except FileNotFoundError:
                    raise CloisonError(
                        f"{args.context} has no rule for {args.device}",
                        hint=f"cloison device list {args.context} shows the rules",
                    ) from None
        return Exit.GOOD

    def do_mount(self: _Host, args: argparse.Namespace) -> int:
        """Show or change what a context may mount."""
        context = self.live(args.context)
        if args.change:
            context.set_caps(args.change)
        caps = context.caps()
        allowed = {word: bool(caps & bit) for word, bit in devices.MOUNT_WORDS.items()}
        rows = [(word, "yes" if allowed[word] else "no", devices.MOUNT_MEANING[word]) for word in allowed]
        output.show(output.table(("WORD", "MAY", "MEANING"), rows), allowed, as_json=args.json)
        return Exit.GOOD


def _list(context: Context, everybody: bool, *, as_json: bool) -> int:
    try:
        found = devices.rules(context.xid)
    except FileNotFoundError:
        raise CloisonError(
            "the kernel shows no table of devices", hint="is /proc mounted, and this the host (xid 0)?"
        ) from None
    data = [
        {"kind": rule.kind, "number": rule.number, "rights": describe(int(rule.rights), devices.RIGHT_WORDS)}
        for rule in found
    ]
    rows = [
        (rule.kind, rule.number, ",".join(describe(int(rule.rights), devices.RIGHT_WORDS)) or "none") for rule in found
    ]
    text = output.table(("KIND", "NUMBER", "RIGHTS"), rows)
    if everybody:
        text += f"\nfrom the start: {devices.HARMLESS} (open)"
    output.show(text, data, as_json=as_json)
    return Exit.GOOD
