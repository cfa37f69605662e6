# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks' little netlink, against this machine's own kernel and against bytes."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from cloison_verify import netlink


def test_attributes_survive_padding_and_nesting_flags() -> None:
    data = netlink.attribute(1, b"abc") + netlink.attribute(2 | 0x8000, b"12345678")
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == {1: b"abc", 2: b"12345678"}


def test_the_controller_knows_itself() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end:
        assert netlink.family(end, "nlctrl") == netlink.GENL_ID_CTRL


def test_an_error_answer_is_raised() -> None:
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_GENERIC) as end,
        pytest.raises(OSError, match="No such file") as caught,
    ):
        netlink.family(end, "no-such-family")
    assert caught.value.errno == errno.ENOENT


def test_a_message_says_its_length() -> None:
    made = netlink.message(16, netlink.NLM_F_REQUEST, b"12345")
    assert struct.unpack_from("I", made)[0] == len(made) == 21
