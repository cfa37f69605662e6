# SPDX-License-Identifier: GPL-2.0-or-later
"""The ``cloison`` command: an administrator's way to contexts."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cloison import lifecycle, output, procfs, rights, supervise, unify
from cloison.abi import MAX_XID, MIN_XID
from cloison.attribute_commands import AttributeCommands
from cloison.cli_devices import DeviceCommands
from cloison.cli_tags import TagCommands, tag_of
from cloison.context import ALL, ALL_BUT_INIT, INIT, Context, become_spectator
from cloison.errors import CloisonError, Exit
from cloison.flags import (
    CONTEXT_WORDS,
    NO_FLAGS,
    NO_SPACES,
    ONE_TIME,
    Change,
    ContextFlags,
    describe,
)
from cloison.launch import Creation, Launch, User, clean_environment
from cloison.names import Registry, check
from cloison.parser import OWN_WORDS, parse_arguments
from cloison.syscall import BusyError, ExistsError, NoSuchContextError, Vserver, VserverError
from cloison.tags import valid as valid_tag

Data = dict[str, Any]


class Tool(AttributeCommands, DeviceCommands, TagCommands):
    """The subcommands. `kernel` and `registry` are replaced in tests."""

    def __init__(self, kernel: Vserver, registry: Registry) -> None:
        self.kernel, self.registry = kernel, registry

    def context(self, text: str) -> Context:
        """Return the context that a name or number means."""
        return Context(self.registry.lookup(text), self.kernel)

    def live(self, text: str) -> Context:
        """Return the context that `text` means; fails, and forgets a stale name, when it has ended.

        A name is stale too when its number now belongs to a context to which somebody gave another name.
        """
        found = self.context(text)
        if text.isdecimal():
            if not found.exists():
                raise CloisonError(
                    f"{text}: no such context", hint="cloison list shows those that exist", status=Exit.ABSENT
                )
            return found
        if not found.exists() or _kernel_name(found) not in ("", text):
            self.registry.drop(text)
            raise CloisonError(
                f"{text}: the context {found.xid} of this name has ended",
                hint="the name is forgotten now; cloison create makes a new one",
                status=Exit.ABSENT,
            )
        return found

    # --- making and removing

    def do_create(self, args: argparse.Namespace) -> int:
        """Make a persistent context."""
        creation = _creation(args, init=False)
        made = self._make(args, lambda context: lifecycle.create_persistent(context, creation))
        label = args.name or str(made.xid)
        output.show(f"{label}  {made.xid}", {"name": args.name, "xid": made.xid}, as_json=args.json)
        return Exit.GOOD

    def _make(self, args: argparse.Namespace, make: Callable[[Context], None]) -> Context:
        """Choose an id, make the context and register its name, all under the registry's lock."""
        if args.name:
            check(args.name)
        with self.registry.locked():
            if args.name:
                self._free(args.name)
            if args.xid is not None:
                context = Context(_valid(args.xid), self.kernel)
                make(context)
            else:
                context = lifecycle.create_anywhere(self.kernel, set(self.registry.all().values()), make)
            if args.name:
                self.registry.register(args.name, context.xid)
        return context

    def _free(self, name: str) -> None:
        """Fail if a name belongs to a context that lives."""
        xid = self.registry.all().get(name)
        if xid is not None and Context(xid, self.kernel).exists():
            raise CloisonError(f"a context is already called '{name}' ({xid})", hint="cloison list shows all names")

    def do_run(self, args: argparse.Namespace) -> int:
        """Run a command in a context of its own."""
        launch = _launch(args, args.argv, creation=_creation(args, init=args.init))
        if args.name:
            self._free(check(args.name))
        chosen = [_valid(args.xid)] if args.xid is not None else lifecycle.candidates(set(self.registry.all().values()))
        for xid in chosen:
            context = Context(xid, self.kernel)
            if args.xid is None and context.exists():
                continue
            try:
                return self._run_as(launch, context, args)
            except supervise.LaunchError as error:
                if args.xid is not None or not isinstance(error.cause, (ExistsError, BusyError)):
                    raise
        raise CloisonError("no context id is free", hint="remove a context that is not needed any more")

    def _run_as(self, launch: Launch, context: Context, args: argparse.Namespace) -> int:
        """Run with one id; the name lives as long as the context."""
        if args.name:
            with self.registry.locked():
                self.registry.register(args.name, context.xid)
        try:
            return supervise.run(launch, context, own_terminal=not args.no_pty)
        finally:
            if args.name and not context.exists():
                self.registry.drop(args.name)

    def do_remove(self, args: argparse.Namespace) -> int:
        """End a context and forget its name."""
        context = self.live(args.context)
        lifecycle.remove(context, force=args.force, grace=args.grace)
        with self.registry.locked():
            for name, xid in self.registry.all().items():
                if xid == context.xid:
                    self.registry.drop(name)
        return Exit.GOOD

    # --- looking

    def do_list(self, args: argparse.Namespace) -> int:
        """Show all contexts."""
        self.kernel.version()
        names = self.registry.by_xid()
        found = []
        for xid in _contexts():
            try:
                found.append(self._summary(Context(xid, self.kernel), names))
            except NoSuchContextError:
                continue
        rows = [
            (entry["xid"], entry["name"] or "-", entry["tasks"], entry["init"] or "-", _holds(entry["flags"]))
            for entry in found
        ]
        text = output.table(("XID", "NAME", "TASKS", "INIT", "HOLDS"), rows) if rows else "no contexts"
        output.show(text, found, as_json=args.json)
        return Exit.GOOD

    def _summary(self, context: Context, names: dict[int, str]) -> Data:
        flags = context.flags()
        info = context.information()
        tasks = max(0, info.tasks - (1 if ContextFlags.PERSISTENT in flags else 0))
        return {
            "xid": context.xid,
            "name": names.get(context.xid) or _kernel_name(context) or None,
            "tasks": tasks,
            "init": info.init,
            "uses": info.uses,
            "flags": describe(int(flags), CONTEXT_WORDS),
        }

    def do_show(self, args: argparse.Namespace) -> int:
        """Show one context in full."""
        context = self.live(args.context)
        data = self._summary(context, self.registry.by_xid()) | rights.described(context)
        pairs = [(key, rights.text(value)) for key, value in data.items()]
        output.show(output.facts(pairs), data, as_json=args.json)
        return Exit.GOOD

    def do_ps(self, args: argparse.Namespace) -> int:
        """Show processes, seen by a spectator."""
        wanted = self.live(args.context).xid if args.context else None
        found = [entry for entry in self._spectate() if wanted is None or entry["xid"] == wanted]
        rows = [
            (e["pid"], e["parent"], e["xid"], e["uid"], e["state"], e["command"] or f"[{e['name']}]") for e in found
        ]
        output.show(
            output.table(("PID", "PPID", "XID", "UID", "S", "COMMAND"), rows) if rows else "no processes",
            found,
            as_json=args.json,
        )
        return Exit.GOOD

    def _spectate(self) -> list[Data]:
        def look() -> bytes:
            become_spectator(self.kernel)
            return json.dumps([vars(process) for process in procfs.processes()]).encode()

        result: list[Data] = json.loads(supervise.in_child(look))
        return result

    def do_info(self, args: argparse.Namespace) -> int:
        """Show what the kernel offers."""
        version, word = self.kernel.version(), self.kernel.configuration()
        data = {
            "kernel": os.uname().release,
            "interface": f"{version >> 16:04x}:{version & 0xFFFF:04x}",
            "configuration": f"{word:#010x}",
            "contexts": len(_contexts()),
        }
        output.show(output.facts(list(data.items())), data, as_json=args.json)
        return Exit.GOOD

    # --- running and signalling

    def do_exec(self, args: argparse.Namespace) -> int:
        """Run a command in a context."""
        return self._inside(args, args.argv)

    def _inside(self, args: argparse.Namespace, argv: Sequence[str]) -> int:
        """Run a command in a context that is there, with the context's file tag."""
        context = self.live(args.context)
        launch = replace(_launch(args, argv), tag=tag_of(context))
        return supervise.run(launch, context, own_terminal=not args.no_pty)

    def do_enter(self, args: argparse.Namespace) -> int:
        """Open a shell in a context."""
        return self._inside(args, args.argv or ["/bin/sh", "-l"])

    def do_kill(self, args: argparse.Namespace) -> int:
        """Signal processes of a context."""
        if bool(args.pids) + args.init + args.all_but_init > 1:
            raise CloisonError("PID, --init and --all-but-init exclude each other", status=Exit.USAGE)
        if any(pid <= 1 for pid in args.pids):
            raise CloisonError(
                "a host pid is at least 2", hint="--init and --all-but-init name the others", status=Exit.USAGE
            )
        context = self.live(args.context)
        targets = args.pids or [INIT if args.init else ALL_BUT_INIT if args.all_but_init else ALL]
        for target in targets:
            try:
                context.kill(args.signal, target)
            except NoSuchContextError:
                what = {INIT: "no init", ALL: "no process", ALL_BUT_INIT: "no process"}.get(target, f"no {target}")
                raise CloisonError(f"{args.context}: {what} to signal in this context") from None
        return Exit.GOOD

    def do_wait(self, args: argparse.Namespace) -> int:
        """Wait for the end of a context."""
        ending = lifecycle.wait(self.live(args.context), args.timeout)
        code = ending.exit_code
        how = f"exited with {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        reboot = f", after reboot command {ending.reboot & 0xFFFFFFFF:#010x}" if ending.reboot else ""
        data = {"exit_code": code, "reboot": ending.reboot & 0xFFFFFFFF}
        output.show(f"ended: last process {how}{reboot}", data, as_json=args.json)
        return Exit.GOOD

    # --- flags and capabilities

    def do_flags(self, args: argparse.Namespace) -> int:
        """Show or change flags."""
        context = self.live(args.context)
        if args.change:
            before = context.flags()
            lost = args.change.value & args.change.mask & int(ONE_TIME) & ~int(before)
            if lost:
                raise CloisonError(
                    f"{', '.join(describe(lost, CONTEXT_WORDS))} cannot be set again", hint="it was cleared for good"
                )
            context.set_flags(args.change)
        try:
            words = describe(int(context.flags()), CONTEXT_WORDS)
        except NoSuchContextError:
            output.show("the context has ended", {"flags": None}, as_json=args.json)
            return Exit.GOOD
        output.show(", ".join(words) or "none", {"flags": words}, as_json=args.json)
        return Exit.GOOD

    def do_caps(self, args: argparse.Namespace) -> int:
        """Show or change capabilities."""
        context = self.live(args.context)
        rights.change(context, args)
        data = rights.described(context)
        output.show(output.facts([(key, rights.text(value)) for key, value in data.items()]), data, as_json=args.json)
        return Exit.GOOD

    # --- files

    def do_unify(self, args: argparse.Namespace) -> int:
        """Make one file of many that are the same."""
        return unify.run(args, self.kernel)


def _kernel_name(context: Context) -> str:
    """Return the text that the kernel keeps with a context; '' where it has ended or keeps none."""
    try:
        return context.name()
    except VserverError:
        return ""


def _contexts() -> list[int]:
    try:
        return procfs.contexts()
    except FileNotFoundError:
        raise CloisonError("/proc/virtual is not there", hint="is /proc mounted, and this the host (xid 0)?") from None


def _holds(flags: list[str]) -> str:
    return ("p" if "persistent" in flags else "") + ("s" if "state_setup" in flags else "") or "-"


def _valid(xid: int) -> int:
    if not MIN_XID <= xid <= MAX_XID:
        raise CloisonError(f"{xid} is no context id", hint=f"ids go from {MIN_XID} to {MAX_XID}", status=Exit.USAGE)
    return xid


def _creation(args: argparse.Namespace, *, init: bool) -> Creation:
    """Return how the new context starts; a bound such as '~sys_admin' starts from everything."""
    flags = ContextFlags(args.flags.value) if args.flags else NO_FLAGS
    nothing = Change()
    return Creation(
        flags | (ContextFlags.INFO_INIT if init else NO_FLAGS),
        init,
        args.caps or nothing,
        args.bound or nothing,
        args.name or "",
        args.umask or nothing,
        valid_tag(args.tag),
    )


def _launch(args: argparse.Namespace, argv: Sequence[str], creation: Creation | None = None) -> Launch:
    uid, gid = args.user or (0, 0)
    return Launch(
        tuple(argv),
        clean_environment(os.environ, dict(args.env), root=uid == 0),
        creation=creation,
        new_spaces=getattr(args, "unshare", None) or NO_SPACES,
        root=args.root,
        directory=args.directory,
        user=User(uid, gid) if args.user else None,
    )


def main(argv: Sequence[str] | None = None, *, kernel: Vserver | None = None, registry: Registry | None = None) -> int:
    """Run the command and return its exit status; every expected failure is one line and a hint."""
    words = list(sys.argv[1:] if argv is None else argv)
    running = bool(words) and words[0] in OWN_WORDS
    try:
        args = parse_arguments(words)
        tool = Tool(kernel or Vserver(), registry or Registry())
        return int(getattr(tool, f"do_{args.command.replace('-', '_')}")(args))
    except CloisonError as error:
        status = Exit.OWN if running and error.status is Exit.FAILED else error.status
        return output.report(CloisonError(error.message, hint=error.hint, status=status))
    except VserverError as error:
        told = lifecycle.explain(error, str(error.ident) if error.ident else "the kernel")
        return output.report(CloisonError(told.message, hint=told.hint, status=Exit.OWN if running else told.status))
    except NotImplementedError as error:
        return output.report(CloisonError(str(error)))
    except PermissionError as error:
        return output.report(CloisonError(str(error), hint="run it as root"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
