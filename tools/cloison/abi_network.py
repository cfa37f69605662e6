# SPDX-License-Identifier: GPL-2.0-or-later
"""The structures of the commands about network contexts; `cloison.abi` has their words."""

from __future__ import annotations

import ctypes
from enum import IntEnum


class NxInfo(ctypes.Structure):
    """Output of `Command.NX_INFO`: the id."""

    nid: int
    _fields_ = (("nid", ctypes.c_uint32),)


class NetCreate(ctypes.Structure):
    """Input of `Command.NET_CREATE`: the flag word of the new network context."""

    flagword: int
    _fields_ = (("flagword", ctypes.c_uint64),)


class NetFlags(ctypes.Structure):
    """Flags of a network context, and which of them are meant (set) or can be set (get)."""

    flagword: int
    mask: int
    _fields_ = (("flagword", ctypes.c_uint64), ("mask", ctypes.c_uint64))


class NetCaps(ctypes.Structure):
    """Capabilities of a network context, and which of them are meant."""

    ncaps: int
    cmask: int
    _fields_ = (("ncaps", ctypes.c_uint64), ("cmask", ctypes.c_uint64))


class AddressType(IntEnum):
    """What an entry of an address list stands for; the last two set a single address of the context."""

    ADDR = 0x10
    MASK = 0x20
    RANGE = 0x40
    ANY = 0xFF
    BROADCAST = 0x110
    LOOPBACK = 0x210


class NetAddrIpv4(ctypes.Structure):
    """IPv4 addresses to add or remove, in network byte order: address, end of a range, mask."""

    type: int
    flags: int
    ip: bytes
    ip2: bytes
    mask: bytes
    _fields_ = (
        ("type", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("ip", ctypes.c_ubyte * 4),
        ("ip2", ctypes.c_ubyte * 4),
        ("mask", ctypes.c_ubyte * 4),
    )


class NetAddrIpv6(ctypes.Structure):
    """IPv6 addresses to add or remove; `prefix` is kept for show, `mask` counts."""

    type: int
    flags: int
    prefix: int
    ip: bytes
    mask: bytes
    _fields_ = (
        ("type", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("prefix", ctypes.c_uint32),
        ("ip", ctypes.c_ubyte * 16),
        ("mask", ctypes.c_ubyte * 16),
    )


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "nx_info_v0": NxInfo,
    "net_create": NetCreate,
    "net_flags_v0": NetFlags,
    "net_caps_v0": NetCaps,
    "net_addr_ipv4_v2": NetAddrIpv4,
    "net_addr_ipv6_v1": NetAddrIpv6,
}
"""Every structure under the name that it has in the interface's documentation."""
