# SPDX-License-Identifier: GPL-2.0-or-later
"""The flag words of contexts, and the words in which people write them.

A list such as ``fakeinit,~private,^38,0x100`` names flags: a word, ``^n`` for bit n, a number;
``~`` or ``!`` in front clears instead of setting. The words are those of the older tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

WORD64 = 0xFFFF_FFFF_FFFF_FFFF


class ContextFlags(IntFlag):
    """Flags of a process context."""

    INFO_LOCK = 0x1
    INFO_SCHED = 0x2
    INFO_NPROC = 0x4
    INFO_PRIVATE = 0x8
    INFO_INIT = 0x10
    INFO_HIDE = 0x20
    INFO_ULIMIT = 0x40
    INFO_NSPACE = 0x80
    SCHED_HARD = 0x100
    SCHED_PRIO = 0x200
    SCHED_PAUSE = 0x400
    VIRT_MEM = 0x10000
    VIRT_UPTIME = 0x20000
    VIRT_CPU = 0x40000
    VIRT_LOAD = 0x80000
    VIRT_TIME = 0x100000
    HIDE_MOUNT = 0x1000000
    HIDE_NETIF = 0x2000000
    HIDE_VINFO = 0x4000000
    STATE_SETUP = 1 << 32
    STATE_INIT = 1 << 33
    STATE_ADMIN = 1 << 34
    SC_HELPER = 1 << 36
    REBOOT_KILL = 1 << 37
    PERSISTENT = 1 << 38
    FORK_RSS = 1 << 48
    PROLIFIC = 1 << 49
    IGNEG_NICE = 1 << 52
    HOST_VISIBLE = 1 << 56


ONE_TIME = ContextFlags.STATE_SETUP | ContextFlags.STATE_INIT | ContextFlags.STATE_ADMIN
"""Flags that can be cleared and never set again."""


class MigrateFlags(IntFlag):
    """What a process becomes when it enters a context."""

    SET_INIT = 0x1
    SET_REAPER = 0x2


NO_FLAGS = ContextFlags(0)
JUST_ENTER = MigrateFlags(0)


class ContextCaps(IntFlag):
    """Context capabilities: what root of a context may do beyond its bound."""

    SET_UTSNAME = 0x1
    SET_RLIMIT = 0x2
    FS_SECURITY = 0x4
    FS_TRUSTED = 0x8
    TIOCSTI = 0x10
    RAW_ICMP = 0x100
    SYSLOG = 0x1000
    OOM_ADJUST = 0x2000
    AUDIT_CONTROL = 0x4000
    SECURE_MOUNT = 0x10000
    SECURE_REMOUNT = 0x20000
    BINARY_MOUNT = 0x40000
    DEV_MOUNT = 0x80000
    QUOTA_CTL = 0x100000
    ADMIN_MAPPER = 0x200000
    ADMIN_CLOOP = 0x400000
    KTHREAD = 0x1000000
    NAMESPACE = 0x2000000
    GRANT_IO_URING = 1 << 32
    GRANT_CORE_PIPE = 1 << 33
    GRANT_HELPER = 1 << 34
    GRANT_MODULE = 1 << 35
    GRANT_SYSCTL = 1 << 40
    GRANT_RAWIO = 1 << 41
    GRANT_TIME = 1 << 42
    GRANT_MAC = 1 << 43
    GRANT_PERF = 1 << 44
    GRANT_BPF = 1 << 45
    GRANT_CHECKPOINT = 1 << 46
    GRANT_KEXEC = 1 << 47
    GRANT_SWAP = 1 << 48
    GRANT_FANOTIFY = 1 << 49
    GRANT_USERFAULTFD = 1 << 50
    GRANT_HANDLE = 1 << 51
    GRANT_FS_IOCTL = 1 << 52
    GRANT_FAMILIES = 1 << 53
    GRANT_KERNEL_FS = 1 << 54


class FileAttributes(IntFlag):
    """Attributes of files; ADMIN, WATCH and HIDE belong to entries of /proc."""

    ADMIN = 0x1
    WATCH = 0x2
    HIDE = 0x4
    WRITE = 0x8
    BARRIER = 0x10000
    IXUNLINK = 0x20000
    IMMUTABLE = 0x40000
    COW = 0x80000
    TAG = 0x1000000


class Spaces(IntFlag):
    """Kinds of namespaces, with the values of clone(2); FS is the root and working directory."""

    TIME = 0x80
    FS = 0x200
    MOUNT = 0x20000
    CGROUP = 0x2000000
    UTS = 0x4000000
    IPC = 0x8000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


CAPABILITIES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""Ordinary capabilities in the order of their numbers."""

CONTEXT_WORDS: dict[str, int] = {
    "lock": ContextFlags.INFO_LOCK,
    "nproc": ContextFlags.INFO_NPROC,
    "private": ContextFlags.INFO_PRIVATE,
    "fakeinit": ContextFlags.INFO_INIT,
    "hideinfo": ContextFlags.INFO_HIDE,
    "ulimit": ContextFlags.INFO_ULIMIT,
    "namespace": ContextFlags.INFO_NSPACE,
    **{flag.name.lower(): flag for flag in ContextFlags if flag.name is not None and not flag.name.startswith("INFO_")},
}
CCAP_WORDS: dict[str, int] = {flag.name.lower(): flag for flag in ContextCaps if flag.name is not None}
BCAP_WORDS: dict[str, int] = {name: 1 << number for number, name in enumerate(CAPABILITIES)} | {"context": 1 << 63}
ATTRIBUTE_WORDS: dict[str, int] = {
    **{flag.name.lower(): flag for flag in FileAttributes if flag.name not in (None, "TAG")},
    "iunlink": FileAttributes.IXUNLINK | FileAttributes.IMMUTABLE,
    "immu": FileAttributes.IXUNLINK | FileAttributes.IMMUTABLE,
    "iunlink-but-not-immutable": FileAttributes.IXUNLINK,
}
"""Words of attributes, also those of the older tools, in which iunlink means both bits of a unified file."""
NO_SPACES = Spaces(0)
NEEDED_GRANTS: dict[str, int] = {
    "sys_module": ContextCaps.GRANT_MODULE,
    "sys_rawio": ContextCaps.GRANT_RAWIO,
    "sys_time": ContextCaps.GRANT_TIME,
    "mac_override": ContextCaps.GRANT_MAC,
    "mac_admin": ContextCaps.GRANT_MAC,
    "perfmon": ContextCaps.GRANT_PERF,
    "bpf": ContextCaps.GRANT_BPF,
    "checkpoint_restore": ContextCaps.GRANT_CHECKPOINT,
    "syslog": 0,
}
"""Capabilities that have no effect in a context without this grant; 0 where no grant helps."""
SPACE_WORDS: dict[str, int] = {flag.name.lower(): flag for flag in Spaces if flag.name is not None}
UMASK_WORDS: dict[str, int] = {word: bits for word, bits in SPACE_WORDS.items() if word != "fs"}


@dataclass(frozen=True)
class Change:
    """What to do to a word: bits of `mask` take their value from `value`; the others stay."""

    value: int = 0
    mask: int = 0

    def __bool__(self) -> bool:
        return self.mask != 0

    def apply(self, old: int) -> int:
        """Return `old` with this change made."""
        return (old & ~self.mask | self.value & self.mask) & WORD64


def parse(text: str, words: Mapping[str, int], *, every: int = WORD64) -> Change:
    """Read a list of flags; raises ValueError that names the first item it does not know.

    `every` is what the word "all" means; "none" clears everything.
    """
    value = mask = 0
    for raw in text.replace(" ", ",").split(","):
        item = raw.strip().lower()
        if not item:
            continue
        clear = item[0] in "~!"
        bits = _bits(item.lstrip("~!"), words, every)
        if item == "none":
            bits, clear = every, True
        mask |= bits
        value = value & ~bits if clear else value | bits
    return Change(value, mask)


def _bits(item: str, words: Mapping[str, int], every: int) -> int:
    name = item.removeprefix("cap_")
    if item in ("all", "none"):
        return every
    if name in words:
        return int(words[name])
    try:
        bits = 1 << int(item[1:], 10) if item.startswith("^") else int(item, 0)
    except ValueError:
        raise ValueError(f"no flag is called '{item}' (known: {', '.join(words)})") from None
    if not 0 <= bits <= WORD64:
        raise ValueError(f"'{item}' does not fit into 64 bits")
    return bits


def without_effect(bound: int, caps: int) -> list[str]:
    """Return the capabilities inside the bound that have no effect, because the context lacks their grant."""
    return [name for name, grant in NEEDED_GRANTS.items() if bound & BCAP_WORDS[name] and not caps & grant]


def describe(value: int, words: Mapping[str, int]) -> list[str]:
    """Return the words of all bits set in `value`, lowest first; bits without a word as ``^n``."""
    by_bit = {bits: name for name, bits in reversed(list(words.items())) if bits and not bits & bits - 1}
    return [by_bit.get(1 << bit, f"^{bit}") for bit in range(64) if value >> bit & 1]
