# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of netlink as the checks need: messages, attributes, generic families."""

from __future__ import annotations

import os
import socket
import struct

NETLINK_AUDIT, NETLINK_CONNECTOR, NETLINK_GENERIC = 9, 11, 16
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK = 1, 4
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data` by kind."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def message(kind: int, flags: int, payload: bytes) -> bytes:
    """Return one message."""
    return struct.pack("IHHII", 16 + len(payload), kind, flags, 1, 0) + payload


def request(end: socket.socket, kind: int, payload: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """Send a request and return the payload of the answer; an error answer is raised as `OSError`."""
    end.settimeout(5)
    end.send(message(kind, flags, payload))
    answer = end.recv(65536)
    _length, answer_kind = struct.unpack_from("IH", answer)
    if answer_kind == NLMSG_ERROR:
        code = -struct.unpack_from("i", answer, 16)[0]
        if code:
            raise OSError(code, os.strerror(code))
        return b""
    return answer[16:]


def generic(end: socket.socket, family: int, command: int, *parts: bytes) -> dict[int, bytes]:
    """Ask a generic family and return the attributes of its answer."""
    payload = struct.pack("BBH", command, 1, 0) + b"".join(parts)
    return attributes(request(end, family, payload)[4:])


def family(end: socket.socket, name: str) -> int:
    """Return the number of a generic family."""
    answer = generic(end, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"))
    return int(struct.unpack("H", answer[CTRL_ATTR_FAMILY_ID])[0])
