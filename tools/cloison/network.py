# SPDX-License-Identifier: GPL-2.0-or-later
"""Network contexts as objects, and the addresses that people write for them.

A network context says which addresses of the machine its processes can use and see. It has an id
of its own, the nid; this package gives it the number of the process context that it belongs to.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from cloison import abi, abi_network
from cloison.abi import Command
from cloison.abi_network import AddressType
from cloison.flags import NETWORK_DEFAULT, Change, NetworkFlags
from cloison.procfs import PROC, pairs
from cloison.syscall import NoSuchContextError, Vserver


@dataclass(frozen=True)
class Address:
    """An entry of a context's address list.

    `kind` says what `first` stands for: one address (with the `prefix` of its network), a whole
    network, or the first of a range that ends with `last`.
    """

    kind: AddressType
    first: IPv4Address | IPv6Address
    last: IPv4Address | IPv6Address
    prefix: int

    @staticmethod
    def parse(text: str) -> Address:
        """Read ``10.0.0.2``, ``10.0.0.2/24`` (an address in a network), ``net:10.0.0.0/24``, ``10.0.0.2-10.0.0.9``.

        Raises ValueError with one line that says what is wrong.
        """
        if text.startswith("net:"):
            network = ipaddress.ip_network(text[4:])
            return Address(AddressType.MASK, network.network_address, network.network_address, network.prefixlen)
        if "-" in text:
            first, last = (ipaddress.ip_address(part) for part in text.split("-", 1))
            if not isinstance(first, IPv4Address) or not isinstance(last, IPv4Address) or last < first:
                raise ValueError(f"'{text}' is no range of IPv4 addresses, smallest first")
            return Address(AddressType.RANGE, first, last, 32)
        interface = ipaddress.ip_interface(text)
        ip = interface.ip
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            raise ValueError(f"'{text}' is an IPv4 address; write {ip.ipv4_mapped}")
        return Address(AddressType.ADDR, ip, ip, interface.network.prefixlen)

    def __str__(self) -> str:
        if self.kind is AddressType.RANGE:
            return f"{self.first}-{self.last}"
        if self.kind is AddressType.MASK:
            return f"net:{self.first}/{self.prefix}"
        return str(self.first) if self.prefix == self.first.max_prefixlen else f"{self.first}/{self.prefix}"

    def data(self) -> abi_network.NetAddrIpv4 | abi_network.NetAddrIpv6:
        """Return the structure of the kernel."""
        ones = (1 << self.prefix) - 1 << self.first.max_prefixlen - self.prefix
        mask = ones.to_bytes(self.first.max_prefixlen // 8, "big")
        if isinstance(self.first, IPv4Address):
            end = self.last.packed if self.kind is AddressType.RANGE else bytes(4)
            return _ipv4(self.kind, self.first.packed, end, mask)
        data = abi_network.NetAddrIpv6(type=self.kind, prefix=self.prefix)
        data.ip[:], data.mask[:] = self.first.packed, mask  # type: ignore[index]
        return data


def _ipv4(kind: int, first: bytes, last: bytes = bytes(4), mask: bytes = bytes(4)) -> abi_network.NetAddrIpv4:
    data = abi_network.NetAddrIpv4(type=kind)
    data.ip[:], data.ip2[:], data.mask[:] = first, last, mask  # type: ignore[index]
    return data


def _shown(text: str) -> Address:
    """Read an entry as /proc/virtnet shows it: ``[ip-ip2/mask:type]`` or ``[ip/mask/prefix:type]``."""
    body, _, kind = text.strip("[]").rpartition(":")
    head, _, tail = body.partition("/")
    first, dash, last = head.partition("-")
    if dash:
        prefix = ipaddress.ip_network(f"0.0.0.0/{tail}").prefixlen
        end = IPv4Address(last) if int(kind, 16) == AddressType.RANGE else IPv4Address(first)
        return Address(AddressType(int(kind, 16)), IPv4Address(first), end, prefix)
    ip = IPv6Address(first)
    return Address(AddressType(int(kind, 16)), ip, ip, int(tail.rpartition("/")[2]))


@dataclass(frozen=True)
class Setup:
    """How a new network context starts: addresses in order, flags beyond the default, capabilities."""

    addresses: tuple[Address, ...] = ()
    flags: Change = field(default_factory=Change)
    caps: Change = field(default_factory=Change)
    broadcast: IPv4Address | None = None
    loopback: IPv4Address | None = None


@dataclass(frozen=True)
class Network:
    """A network context by its nid (2 to 65535). Methods raise subclasses of `VserverError`."""

    nid: int
    kernel: Vserver = field(default_factory=Vserver, repr=False, compare=False)

    def create(self, flags: NetworkFlags = NETWORK_DEFAULT) -> None:
        """Make the network context; **the caller is inside afterwards**."""
        self.kernel.call(Command.NET_CREATE, self.nid, abi_network.NetCreate(flagword=int(flags)))

    def enter(self) -> None:
        """Move the calling thread into the network context; its open sockets stay what they are."""
        self.kernel.call(Command.NET_MIGRATE, self.nid)

    def exists(self) -> bool:
        """Say whether a network context has this id now."""
        try:
            self.kernel.call(Command.NX_INFO, self.nid, abi_network.NxInfo())
        except NoSuchContextError:
            return False
        return True

    def flags(self) -> NetworkFlags:
        """Return the flags."""
        data = abi_network.NetFlags()
        self.kernel.call(Command.GET_NFLAGS, self.nid, data)
        return NetworkFlags(data.flagword)

    def set_flags(self, change: Change) -> None:
        """Change flags. One-time flags can only be cleared."""
        self.kernel.call(Command.SET_NFLAGS, self.nid, abi_network.NetFlags(change.value, change.mask))

    def caps(self) -> int:
        """Return the network capabilities."""
        data = abi_network.NetCaps()
        self.kernel.call(Command.GET_NCAPS, self.nid, data)
        return int(data.ncaps)

    def set_caps(self, change: Change) -> None:
        """Change the network capabilities."""
        self.kernel.call(Command.SET_NCAPS, self.nid, abi_network.NetCaps(change.value, change.mask))

    def add(self, address: Address) -> None:
        """Append an address, a network or a range. Raises `ExistsError`, `InvalidError`."""
        v4 = isinstance(address.first, IPv4Address)
        self.kernel.call(Command.NET_ADD_IPV4 if v4 else Command.NET_ADD_IPV6, self.nid, address.data())

    def remove(self, address: Address) -> None:
        """Remove exactly this entry. Raises `NoSuchContextError` where there is none."""
        v4 = isinstance(address.first, IPv4Address)
        self.kernel.call(Command.NET_REM_IPV4 if v4 else Command.NET_REMOVE_IPV6, self.nid, address.data())

    def remove_all(self) -> None:
        """Remove every entry of both lists."""
        self.kernel.call(Command.NET_REM_IPV4, self.nid, abi_network.NetAddrIpv4(type=AddressType.ANY))
        self.kernel.call(Command.NET_REMOVE_IPV6, self.nid, abi_network.NetAddrIpv6(type=AddressType.ANY))

    def set_broadcast(self, address: IPv4Address) -> None:
        """Set the broadcast address (255.255.255.255 from birth)."""
        self.kernel.call(Command.NET_ADD_IPV4, self.nid, _ipv4(AddressType.BROADCAST, address.packed))

    def set_loopback(self, address: IPv4Address) -> None:
        """Set what 127.0.0.1 stands for (127.x.y.1 from birth, where x.y is the nid)."""
        self.kernel.call(Command.NET_ADD_IPV4, self.nid, _ipv4(AddressType.LOOPBACK, address.packed))

    def configure(self, setup: Setup) -> None:
        """Give a new context what it starts with."""
        for address in setup.addresses:
            self.add(address)
        if setup.broadcast is not None:
            self.set_broadcast(setup.broadcast)
        if setup.loopback is not None:
            self.set_loopback(setup.loopback)
        if setup.caps:
            self.set_caps(setup.caps)
        if setup.flags:
            self.set_flags(setup.flags)

    def addresses(self) -> list[Address]:
        """Return the entries in order, IPv4 first, from /proc/virtnet; FileNotFoundError when it has ended."""
        lines = (PROC / "virtnet" / str(self.nid) / "info").read_text(encoding="ascii").splitlines()
        return [_shown(line.split("\t")[1]) for line in lines if line.split(":")[0].isdecimal()]

    def fixed(self) -> tuple[IPv4Address, IPv4Address]:
        """Return the broadcast and the loopback address, from /proc/virtnet."""
        found = pairs((PROC / "virtnet" / str(self.nid) / "info").read_text(encoding="ascii"))
        return IPv4Address(found["Bcast"]), IPv4Address(found["Lback"])


def watch_networks(kernel: Vserver) -> None:
    """Turn the calling thread into the spectator of networks, who sees the sockets of all."""
    kernel.call(Command.NET_MIGRATE, abi.SPECTATOR)
