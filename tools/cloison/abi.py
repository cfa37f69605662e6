# SPDX-License-Identifier: GPL-2.0-or-later
"""The vserver system call's binary interface: command words and structures.

Words and layouts follow interface version 0x00020308. ``tests/unit/test_cloison_abi_header.py``
compiles a C program against the series' own ``include/uapi/linux/vserver.h`` and compares every
word, size, offset and flag with what stands here, so that the two cannot drift apart.

A later subsystem extends this module by adding members to `Command` and classes to `STRUCTURES`;
nothing else has to know about them.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

INTERFACE_VERSION = 0x00020308
"""What ``get_version`` answers: high half major, low half minor."""

HOST = 0
"""xid of the host: no context."""
SPECTATOR = 1
"""xid of a process that watches all contexts and belongs to none."""
MIN_XID = 2
"""Smallest id of a context."""
MAX_XID = 65535
"""Largest id of a context."""
CAP_CONTEXT = 63
"""Number of the capability without which every command answers ENOSYS."""
SELF = 0xFFFFFFFF
"""Id that means "the caller's own context" where a command looks a context up (−1)."""

MAX_TAG = 65535
"""Largest tag that a task or a file can be given."""
DLIMIT_KEEP = 0xFFFFFFFE
"""A number of `DiskLimit` that stays as it is."""
DLIMIT_INFINITY = 0xFFFFFFFF
"""No limit of space; of inodes it is just a large number."""
DLIMIT_UNITS = 0x10
"""Flag of `DiskLimit`: bits 0 and 1 are the unit of space used, bits 2 and 3 of the total, as powers of 1024."""
DLIMIT_TOTAL_SHIFT = 2
"""Where the unit of the total stands in the flags of `DiskLimit`."""

NAME_CONTEXT = 0
"""The field of `VhiName` that holds a free text of the context's own."""
NAME_SIZE = 65
"""Bytes of a name with the zero at its end."""


class Category(IntEnum):
    """Subject and kind of a command: bits 24 to 29 of its word."""

    VERSION = 0
    VHOST = 2
    DEVICE = 6
    VPROC = 9
    PROCALT = 10
    PROCMIG = 11
    PROCTRL = 12
    TAGMIG = 35
    DLIMIT = 36
    INODE = 38
    VSTAT = 40
    VINFO = 46
    EVENT = 48
    FLAGS = 52
    VSPACE = 54


def word(category: int, index: int, version: int) -> int:
    """Return the command word of (category 0–63, index 0–255, version 0–4095), or raise ValueError."""
    if not (0 <= category <= 0x3F and 0 <= index <= 0xFF and 0 <= version <= 0xFFF):
        raise ValueError(f"no command word for category {category}, index {index}, version {version}")
    return category << 24 | index << 16 | version


class Command(IntEnum):
    """The command words that this binding issues."""

    GET_VERSION = word(Category.VERSION, 0, 0)
    GET_VCI = word(Category.VERSION, 1, 0)
    SET_VHI_NAME = word(Category.VHOST, 1, 0)
    GET_VHI_NAME = word(Category.VHOST, 2, 0)
    SET_MAPPING = word(Category.DEVICE, 1, 0)
    UNSET_MAPPING = word(Category.DEVICE, 2, 0)
    CTX_CREATE_V0 = word(Category.VPROC, 1, 0)
    CTX_CREATE = word(Category.VPROC, 1, 1)
    ENTER_SPACE = word(Category.PROCALT, 1, 2)
    SET_SPACE = word(Category.PROCALT, 3, 2)
    CTX_MIGRATE_V0 = word(Category.PROCMIG, 1, 0)
    CTX_MIGRATE = word(Category.PROCMIG, 1, 1)
    CTX_KILL = word(Category.PROCTRL, 1, 0)
    GET_IATTR = word(Category.INODE, 1, 1)
    SET_IATTR = word(Category.INODE, 2, 1)
    FGET_IATTR = word(Category.INODE, 3, 0)
    FSET_IATTR = word(Category.INODE, 4, 0)
    TAG_MIGRATE = word(Category.TAGMIG, 1, 0)
    ADD_DLIMIT = word(Category.DLIMIT, 1, 0)
    REM_DLIMIT = word(Category.DLIMIT, 2, 0)
    SET_DLIMIT = word(Category.DLIMIT, 5, 0)
    GET_DLIMIT = word(Category.DLIMIT, 6, 0)
    CTX_STAT = word(Category.VSTAT, 0, 0)
    TASK_XID = word(Category.VINFO, 1, 0)
    TASK_TAG = word(Category.VINFO, 3, 0)
    VX_INFO = word(Category.VINFO, 5, 0)
    WAIT_EXIT = word(Category.EVENT, 99, 0)
    GET_CFLAGS = word(Category.FLAGS, 1, 0)
    SET_CFLAGS = word(Category.FLAGS, 2, 0)
    GET_CCAPS = word(Category.FLAGS, 3, 1)
    SET_CCAPS = word(Category.FLAGS, 4, 1)
    GET_BCAPS = word(Category.FLAGS, 9, 0)
    SET_BCAPS = word(Category.FLAGS, 10, 0)
    GET_UMASK = word(Category.FLAGS, 13, 0)
    SET_UMASK = word(Category.FLAGS, 14, 0)
    GET_WMASK = word(Category.FLAGS, 15, 0)
    SET_WMASK = word(Category.FLAGS, 16, 0)
    GET_SPACE_MASK = word(Category.VSPACE, 0, 1)
    GET_SPACE_DEFAULT = word(Category.VSPACE, 1, 0)


class CtxCreate(ctypes.Structure):
    """Input of `Command.CTX_CREATE`: the flag word of the new context."""

    flagword: int
    _fields_ = (("flagword", ctypes.c_uint64),)


class CtxMigrate(ctypes.Structure):
    """Input of `Command.CTX_MIGRATE`: `cloison.flags.MigrateFlags`."""

    flagword: int
    _fields_ = (("flagword", ctypes.c_uint64),)


class CtxFlags(ctypes.Structure):
    """Context flags, and which of them are meant (set) or can be set (get)."""

    flagword: int
    mask: int
    _fields_ = (("flagword", ctypes.c_uint64), ("mask", ctypes.c_uint64))


class CtxCaps(ctypes.Structure):
    """Context capabilities, and which of them are meant."""

    ccaps: int
    cmask: int
    _fields_ = (("ccaps", ctypes.c_uint64), ("cmask", ctypes.c_uint64))


class BoundCaps(ctypes.Structure):
    """The bound of ordinary capabilities, and which of them are meant."""

    bcaps: int
    bmask: int
    _fields_ = (("bcaps", ctypes.c_uint64), ("bmask", ctypes.c_uint64))


class UnshareMask(ctypes.Structure):
    """The namespaces that members may make (CLONE_* values), and which of them are meant."""

    umask: int
    mask: int
    _fields_ = (("umask", ctypes.c_uint64), ("mask", ctypes.c_uint64))


class WarnMask(ctypes.Structure):
    """A word that is kept for the tools, and which bits of it are meant."""

    wmask: int
    mask: int
    _fields_ = (("wmask", ctypes.c_uint64), ("mask", ctypes.c_uint64))


class CtxKill(ctypes.Structure):
    """Input of `Command.CTX_KILL`: target (0 all, −1 all but init, 1 init, else a host pid) and signal."""

    pid: int
    sig: int
    _fields_ = (("pid", ctypes.c_int32), ("sig", ctypes.c_int32))


class WaitExit(ctypes.Structure):
    """Output of `Command.WAIT_EXIT`: the last reboot command (0 none) and a wait status."""

    reboot_cmd: int
    exit_code: int
    _fields_ = (("reboot_cmd", ctypes.c_int32), ("exit_code", ctypes.c_int32))


class VxInfo(ctypes.Structure):
    """Output of `Command.VX_INFO`: the id and the host pid of the init process (0 none)."""

    xid: int
    initpid: int
    _fields_ = (("xid", ctypes.c_uint32), ("initpid", ctypes.c_uint32))


class CtxStat(ctypes.Structure):
    """Output of `Command.CTX_STAT`: uses of the object and its tasks (one more when persistent)."""

    usecnt: int
    tasks: int
    _fields_ = (("usecnt", ctypes.c_uint32), ("tasks", ctypes.c_uint32))


class SpaceMaskV1(ctypes.Structure):
    """Output of `Command.GET_SPACE_MASK`: the namespaces that a space can hold (CLONE_* values)."""

    mask: int
    _fields_ = (("mask", ctypes.c_uint64),)


class SpaceMaskV2(ctypes.Structure):
    """Input of the space commands: CLONE_* values and which of the context's two spaces."""

    mask: int
    index: int
    _fields_ = (("mask", ctypes.c_uint64), ("index", ctypes.c_uint32))


class CtxIattr(ctypes.Structure):
    """Attributes of the file `name`; a symbolic link at its end is not followed."""

    name: bytes
    tag: int
    flags: int
    mask: int
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("tag", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("mask", ctypes.c_uint32),
    )


class CtxFiattr(ctypes.Structure):
    """Attributes of an open file; the id of the command is its descriptor."""

    tag: int
    flags: int
    mask: int
    _fields_ = (("tag", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("mask", ctypes.c_uint32))


class VhiName(ctypes.Structure):
    """A name of a context: which one (`NAME_CONTEXT`), and up to 64 bytes that end with a zero."""

    field: int
    name: bytes
    _fields_ = (("field", ctypes.c_uint32), ("name", ctypes.c_char * NAME_SIZE))


class SetMapping(ctypes.Structure):
    """Input of the commands about devices: paths of the device and of another of its kind, and rights."""

    device: bytes | None
    target: bytes | None
    flags: int
    _fields_ = (("device", ctypes.c_char_p), ("target", ctypes.c_char_p), ("flags", ctypes.c_uint32))


class DiskLimitBase(ctypes.Structure):
    """Input of `Command.ADD_DLIMIT` and `Command.REM_DLIMIT`: a path on the file system. The id is a tag."""

    name: bytes
    flags: int
    _fields_ = (("name", ctypes.c_char_p), ("flags", ctypes.c_uint32))


class DiskLimit(ctypes.Structure):
    """Input and output of `Command.SET_DLIMIT` and `Command.GET_DLIMIT`. `reserved` is in percent."""

    name: bytes
    space_used: int
    space_total: int
    inodes_used: int
    inodes_total: int
    reserved: int
    flags: int
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("space_used", ctypes.c_uint32),
        ("space_total", ctypes.c_uint32),
        ("inodes_used", ctypes.c_uint32),
        ("inodes_total", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "ctx_create": CtxCreate,
    "ctx_migrate": CtxMigrate,
    "ctx_flags_v0": CtxFlags,
    "ctx_caps_v1": CtxCaps,
    "bcaps": BoundCaps,
    "umask": UnshareMask,
    "wmask": WarnMask,
    "ctx_kill_v0": CtxKill,
    "wait_exit_v0": WaitExit,
    "vx_info_v0": VxInfo,
    "ctx_stat_v0": CtxStat,
    "space_mask_v1": SpaceMaskV1,
    "space_mask_v2": SpaceMaskV2,
    "vhi_name_v0": VhiName,
    "ctx_iattr_v1": CtxIattr,
    "ctx_fiattr_v0": CtxFiattr,
    "set_mapping_v0": SetMapping,
    "ctx_dlimit_base_v0": DiskLimitBase,
    "ctx_dlimit_v0": DiskLimit,
}
"""Every structure under the name that it has in the interface's documentation."""
