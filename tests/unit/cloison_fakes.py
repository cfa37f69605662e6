# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of a few lines: answers the commands as the interface says and keeps a log of them."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cloison import abi
from cloison.abi import Command
from cloison.flags import ContextFlags
from cloison.syscall import Vserver

ALL_BITS = 0xFFFF_FFFF_FFFF_FFFF


@dataclass
class Model:
    """One context of the fake kernel."""

    flags: int
    tasks: int = 0
    init: int = 0
    ccaps: int = 0
    bcaps: int = ALL_BITS
    umask: int = 0
    name: bytes = b""


@dataclass
class FakeKernel:
    """`refuse` maps commands to the errno that they fail with; `log` has (command name, id) in order."""

    contexts: dict[int, Model] = field(default_factory=dict)
    refuse: dict[int, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    killed: list[tuple[int, int, int]] = field(default_factory=list)
    mapped: list[tuple[int, bytes | None, bytes | None, int]] = field(default_factory=list)
    on_kill: Callable[[Model, int], None] | None = None
    configuration: int = 0x10000C01

    def vserver(self) -> Vserver:
        return Vserver(self)

    def __call__(self, command: int, ident: int, data: ctypes.Structure | None) -> int:
        known = Command(command)
        self.log.append(known.name.lower())
        if command in self.refuse:
            return -self.refuse[command]
        if known is Command.GET_VERSION:
            return abi.INTERFACE_VERSION
        if known is Command.GET_VCI:
            return self.configuration
        if known is Command.GET_SPACE_MASK:
            assert isinstance(data, abi.SpaceMaskV1)
            data.mask = 0x6C020200
            return 0
        if known is Command.CTX_CREATE:
            return self._create(ident, data)
        if known is Command.CTX_MIGRATE_V0 and ident == abi.SPECTATOR:
            return 1
        if isinstance(data, abi.SetMapping):
            return self._map(known, ident, data)
        context = self.contexts.get(ident)
        if context is None:
            return -errno.ESRCH
        return self._on_context(known, ident, context, data)

    def _map(self, command: Command, ident: int, data: abi.SetMapping) -> int:
        """Keep rules about devices by path; nodes that the tool makes for the call have a name of their own."""
        rule = (ident, data.device, data.target, data.flags)
        if command is Command.SET_MAPPING:
            self.mapped.append(rule)
            return 0
        for known in self.mapped:
            if known[:3] == rule[:3]:
                self.mapped.remove(known)
                return 1
        return -errno.ENOENT

    def _create(self, ident: int, data: ctypes.Structure | None) -> int:
        assert isinstance(data, abi.CtxCreate)
        if ident in self.contexts:
            return -errno.EEXIST
        self.contexts[ident] = Model(data.flagword, tasks=1)
        return ident

    def _on_context(self, command: Command, ident: int, context: Model, data: ctypes.Structure | None) -> int:
        match data:
            case abi.CtxFlags():
                if command is Command.SET_CFLAGS:
                    context.flags = context.flags & ~data.mask | data.flagword & data.mask
                    self._reap()
                else:
                    data.flagword, data.mask = context.flags, ALL_BITS
            case abi.CtxCaps() if command is Command.SET_CCAPS:
                context.ccaps = context.ccaps & ~data.cmask | data.ccaps & data.cmask
            case abi.CtxCaps():
                data.ccaps = context.ccaps
            case abi.BoundCaps() if command is Command.SET_BCAPS:
                context.bcaps = context.bcaps & ~data.bmask | data.bcaps & data.bmask
            case abi.BoundCaps():
                data.bcaps = context.bcaps
            case abi.UnshareMask() if command is Command.SET_UMASK:
                context.umask = context.umask & ~data.mask | data.umask & data.mask
            case abi.UnshareMask():
                data.umask = context.umask
            case abi.VhiName() if command is Command.SET_VHI_NAME:
                context.name = data.name
            case abi.VhiName():
                data.name = context.name
            case _:
                return self._look(ident, context, data)
        return 0

    def _look(self, ident: int, context: Model, data: ctypes.Structure | None) -> int:
        match data:
            case abi.VxInfo():
                data.xid, data.initpid = ident, context.init
            case abi.CtxStat():
                persistent = int(ContextFlags.PERSISTENT in ContextFlags(context.flags))
                data.usecnt, data.tasks = context.tasks + 1, context.tasks + persistent
            case abi.CtxKill():
                return self._kill(ident, context, data)
            case abi.WaitExit():
                data.exit_code = 3 << 8
        return 0

    def _kill(self, ident: int, context: Model, data: abi.CtxKill) -> int:
        if not context.tasks:
            return -errno.ESRCH
        self.killed.append((ident, data.pid, data.sig))
        if self.on_kill:
            self.on_kill(context, data.sig)
        self._reap()
        return 0

    def _reap(self) -> None:
        """End the contexts that have nothing left to live on."""
        self.contexts = {
            xid: model for xid, model in self.contexts.items() if model.tasks or model.flags & ContextFlags.PERSISTENT
        }


@dataclass
class RecordingSystem:
    """Takes the place of `cloison.system.System` and writes down what it is asked, into the kernel's log."""

    log: list[str]
    fail_at: str = ""

    def _note(self, name: str) -> None:
        self.log.append(name)
        if name == self.fail_at:
            raise PermissionError(errno.EACCES, "Permission denied")

    def new_session(self, terminal: int | None) -> None:
        self._note("new_session")

    def standard_streams(self, streams: Mapping[int, int]) -> None:
        self._note("standard_streams")

    def keep_only(self, report: int) -> int:
        self._note("keep_only")
        return report

    def harden(self) -> None:
        self._note("harden")

    def unshare(self, flags: int) -> None:
        self._note(f"unshare {flags:#x}")

    def change_root(self, root: str) -> None:
        self._note(f"change_root {root}")

    def change_directory(self, directory: str) -> None:
        self._note(f"change_directory {directory}")

    def become(self, uid: int, gid: int, groups: Sequence[int]) -> None:
        self._note(f"become {uid}:{gid}")

    def execute(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._note(f"execute {' '.join(argv)}")
