# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of plain system calls: x86-64's own table and the generic one of newer architectures."""

from __future__ import annotations

import platform

_TABLE: dict[str, tuple[int, int]] = {
    "acct": (163, 89),
    "capget": (125, 90),
    "capset": (126, 91),
    "clock_gettime": (228, 113),
    "clone3": (435, 435),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futex": (202, 98),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioprio_get": (252, 31),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "migrate_pages": (256, 238),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_notify": (244, 184),
    "mq_open": (240, 180),
    "mq_timedsend": (242, 182),
    "mq_unlink": (241, 181),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_getattr": (315, 275),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "setpgid": (109, 154),
    "statmount": (457, 457),
    "statx": (332, 291),
    "tgkill": (234, 131),
    "tkill": (200, 130),
}


def number(name: str) -> int:
    """Return the number of a system call on this machine; raises KeyError for a name not listed."""
    return _TABLE[name][0 if platform.machine() == "x86_64" else 1]
