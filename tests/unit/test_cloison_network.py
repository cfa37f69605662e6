# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses as people write them and as the kernel shows them, and the order in which a network is made."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from tests.unit.cloison_fakes import FakeKernel

from cloison import network as network_module
from cloison.abi_network import AddressType
from cloison.context import Context
from cloison.flags import Change, ContextFlags, NetworkFlags
from cloison.launch import Creation, creation_steps
from cloison.network import Address, Network, Setup

TEXTS = [
    "10.0.0.2",
    "10.0.0.2/24",
    "net:10.0.0.0/24",
    "10.0.0.2-10.0.0.9",
    "2001:db8::2",
    "2001:db8::2/64",
    "net:2001:db8::/64",
]


@pytest.mark.parametrize("text", TEXTS)
def test_an_address_is_shown_as_it_is_written(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.2/33", "net:10.0.0.1/24", "10.0.0.9-10.0.0.2", "::1-::2", "::ffff:10.0.0.2", "host"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("[10.0.0.2-0.0.0.0/255.255.255.0:0010]", "10.0.0.2/24"),
        ("[10.0.0.2-0.0.0.0/255.255.255.255:0010]", "10.0.0.2"),
        ("[10.0.0.0-0.0.0.0/255.0.0.0:0020]", "net:10.0.0.0/8"),
        ("[10.0.0.2-10.0.0.9/255.255.255.255:0040]", "10.0.0.2-10.0.0.9"),
        (
            "[2001:0db8:0000:0000:0000:0000:0000:0002/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/64:0010]",
            "2001:db8::2/64",
        ),
    ],
)
def test_what_the_kernel_shows_is_read(line: str, text: str) -> None:
    assert str(network_module._shown(line)) == text


def test_an_address_reaches_the_kernel_whole() -> None:
    data = Address.parse("10.1.2.3/20").data()
    assert (data.type, bytes(data.ip), bytes(data.mask)) == (AddressType.ADDR, b"\n\1\2\3", b"\xff\xff\xf0\0")
    data = Address.parse("10.1.2.3-10.1.2.9").data()
    assert (data.type, bytes(data.ip)) == (AddressType.RANGE, b"\n\1\2\3")
    assert bytes(data.ip2) == b"\n\1\2\t"
    data = Address.parse("net:fd00::/9").data()
    assert (data.type, bytes(data.mask)) == (AddressType.MASK, b"\xff\x80" + bytes(14))


def test_the_network_is_ready_before_the_context_and_lasts_with_it() -> None:
    kernel = FakeKernel()
    setup = Setup((Address.parse("10.0.0.2"),), caps=Change(1, 1), loopback=IPv4Address("127.9.9.9"))
    creation = Creation(ContextFlags.PERSISTENT, network=setup)
    for _name, action in creation_steps(creation, Context(200, kernel.vserver())):
        action()
    assert kernel.log == [
        "net_create",
        "net_add_ipv4",
        "net_add_ipv4",
        "set_ncaps",
        "ctx_create",
        "set_nflags",
        "set_cflags",
    ]
    assert NetworkFlags(kernel.networks[200]) & NetworkFlags.PERSISTENT


def test_no_network_without_being_asked() -> None:
    kernel = FakeKernel()
    for _name, action in creation_steps(Creation(), Context(200, kernel.vserver())):
        action()
    assert not kernel.networks


def test_a_network_that_is_not_there_does_not_exist() -> None:
    kernel = FakeKernel()
    assert not Network(7, kernel.vserver()).exists()
    kernel.networks[7] = 0
    assert Network(7, kernel.vserver()).exists()
