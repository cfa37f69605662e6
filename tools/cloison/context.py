# SPDX-License-Identifier: GPL-2.0-or-later
"""Process contexts as objects. Each method is one command; nothing here starts a process.

`create` and `enter` move the *calling thread* for good: no way leads back to the host. Tools
therefore call them in a child (see `cloison.launch`), which must have a single thread.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from cloison import abi
from cloison.abi import Command
from cloison.devices import DeviceRights
from cloison.flags import JUST_ENTER, NO_SPACES, Change, ContextFlags, MigrateFlags, Spaces
from cloison.syscall import NoSuchContextError, Vserver, VserverError

ALL = 0
"""Target of `Context.kill`: every process of the context, init included."""
ALL_BUT_INIT = -1
"""Target of `Context.kill`: every process but init."""
INIT = 1
"""Target of `Context.kill`: init, where one is recorded."""


@dataclass(frozen=True)
class Ending:
    """How a context ended: the last reboot command (0 none) and the wait status of the last exit."""

    reboot: int
    wait_status: int

    @property
    def exit_code(self) -> int:
        """Exit code ≥ 0, or −signal, as `os.waitstatus_to_exitcode` gives it."""
        return os.waitstatus_to_exitcode(self.wait_status)


@dataclass(frozen=True)
class Information:
    """What ``vx_info`` and ``ctx_stat`` say: init's host pid (0 none), uses and tasks of the context."""

    xid: int
    init: int
    uses: int
    tasks: int


@dataclass(frozen=True)
class Context:
    """A process context by its xid (2 to 65535). Methods raise subclasses of `VserverError`."""

    xid: int
    kernel: Vserver = field(default_factory=Vserver, repr=False, compare=False)

    def create(self, flags: ContextFlags) -> None:
        """Make the context; **the caller is inside afterwards**. Raises `ExistsError`, `BusyError`, …"""
        self.kernel.call(Command.CTX_CREATE, self.xid, abi.CtxCreate(flagword=int(flags)))

    def enter(self, flags: MigrateFlags = JUST_ENTER) -> None:
        """Move the caller into the context. Raises `SealedError` where it is private."""
        self.kernel.call(Command.CTX_MIGRATE, self.xid, abi.CtxMigrate(flagword=int(flags)))

    def exists(self) -> bool:
        """Say whether a context has this id now."""
        try:
            self.kernel.call(Command.VX_INFO, self.xid, abi.VxInfo())
        except NoSuchContextError:
            return False
        return True

    def information(self) -> Information:
        """Return init's pid and the counts."""
        info, stat = abi.VxInfo(), abi.CtxStat()
        self.kernel.call(Command.VX_INFO, self.xid, info)
        self.kernel.call(Command.CTX_STAT, self.xid, stat)
        return Information(self.xid, info.initpid, stat.usecnt, stat.tasks)

    def flags(self) -> ContextFlags:
        """Return the flags."""
        data = abi.CtxFlags()
        self.kernel.call(Command.GET_CFLAGS, self.xid, data)
        return ContextFlags(data.flagword)

    def set_flags(self, change: Change) -> None:
        """Change flags. One-time flags can only be cleared; a request to set one is ignored by the kernel."""
        self.kernel.call(Command.SET_CFLAGS, self.xid, abi.CtxFlags(change.value, change.mask))

    def caps(self) -> int:
        """Return the context capabilities."""
        data = abi.CtxCaps()
        self.kernel.call(Command.GET_CCAPS, self.xid, data)
        return int(data.ccaps)

    def set_caps(self, change: Change) -> None:
        """Change the context capabilities."""
        self.kernel.call(Command.SET_CCAPS, self.xid, abi.CtxCaps(change.value, change.mask))

    def bound(self) -> int:
        """Return the bound of ordinary capabilities: bit n stands for capability n."""
        data = abi.BoundCaps()
        self.kernel.call(Command.GET_BCAPS, self.xid, data)
        return int(data.bcaps)

    def set_bound(self, change: Change) -> None:
        """Change the bound of ordinary capabilities; it can be widened again."""
        self.kernel.call(Command.SET_BCAPS, self.xid, abi.BoundCaps(change.value, change.mask))

    def umask(self) -> Spaces:
        """Return the kinds of namespaces that processes of the context may make beyond its bound."""
        data = abi.UnshareMask()
        self.kernel.call(Command.GET_UMASK, self.xid, data)
        return Spaces(data.umask)

    def set_umask(self, change: Change) -> None:
        """Change the kinds of namespaces (values of `Spaces`) that processes of the context may make."""
        self.kernel.call(Command.SET_UMASK, self.xid, abi.UnshareMask(change.value, change.mask))

    def wmask(self) -> int:
        """Return the word that the kernel keeps for the tools and does not look at."""
        data = abi.WarnMask()
        self.kernel.call(Command.GET_WMASK, self.xid, data)
        return int(data.wmask)

    def set_wmask(self, change: Change) -> None:
        """Change the word that the kernel keeps for the tools."""
        self.kernel.call(Command.SET_WMASK, self.xid, abi.WarnMask(change.value, change.mask))

    def name(self) -> str:
        """Return the text that the kernel keeps with the context ('' if none)."""
        data = abi.VhiName(field=abi.NAME_CONTEXT)
        self.kernel.call(Command.GET_VHI_NAME, self.xid, data)
        return bytes(data.name).decode(errors="replace")

    def set_name(self, name: str) -> None:
        """Let the kernel keep a text with the context; up to 64 bytes."""
        self.kernel.call(Command.SET_VHI_NAME, self.xid, abi.VhiName(abi.NAME_CONTEXT, name.encode()))

    def kill(self, sig: int, target: int = ALL) -> None:
        """Send a signal with the kernel's authority to `ALL`, `ALL_BUT_INIT`, `INIT`, or one host pid.

        Signal 0 only tests. Raises `NoSuchContextError` when nothing matched.
        """
        self.kernel.call(Command.CTX_KILL, self.xid, abi.CtxKill(target, sig))

    def wait(self) -> Ending:
        """Sleep until the context has ended. Raises `InterruptedCallError` when a handler of a signal ran."""
        data = abi.WaitExit()
        self.kernel.call(Command.WAIT_EXIT, self.xid, data)
        return Ending(data.reboot_cmd, data.exit_code)

    def map_device(self, device: str | None, target: str | None, rights: DeviceRights) -> None:
        """Say what the context may do with a device, by path, or without one with all of the kind of `target`.

        xid 0 means every context that has no rule of its own. The newest rule counts.
        """
        self.kernel.call(Command.SET_MAPPING, self.xid, _mapping(device, target, rights))

    def unmap_device(self, device: str | None, target: str | None) -> None:
        """Take the newest such rule back. Raises FileNotFoundError where there is none."""
        try:
            self.kernel.call(Command.UNSET_MAPPING, self.xid, _mapping(device, target, DeviceRights(0)))
        except VserverError as error:
            if error.errno != errno.ENOENT:
                raise
            raise FileNotFoundError(errno.ENOENT, "no such rule") from error

    def remember_spaces(self, spaces: Spaces, index: int = 0) -> None:
        """Record the caller's namespaces of these kinds in the context."""
        self.kernel.call(Command.SET_SPACE, self.xid, abi.SpaceMaskV2(int(spaces), index))

    def enter_spaces(self, spaces: Spaces = NO_SPACES, index: int = 0) -> None:
        """Move the caller into the namespaces recorded in the context; 0 means all of them."""
        self.kernel.call(Command.ENTER_SPACE, self.xid, abi.SpaceMaskV2(int(spaces), index))


def _mapping(device: str | None, target: str | None, rights: DeviceRights) -> abi.SetMapping:
    encoded = [os.fsencode(path) if path is not None else None for path in (device, target)]
    return abi.SetMapping(encoded[0], encoded[1], int(rights))


def become_spectator(kernel: Vserver) -> None:
    """Turn the calling thread into the spectator, who sees all contexts and cannot go back."""
    kernel.call(Command.CTX_MIGRATE_V0, abi.SPECTATOR)


def supported_spaces(kernel: Vserver) -> Spaces:
    """Return the kinds of namespaces that a context can remember. Raises `NotSupportedError`."""
    data = abi.SpaceMaskV1()
    kernel.call(Command.GET_SPACE_MASK, 0, data)
    return Spaces(data.mask)
