# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommand ``network``, and what create and run say of a context's network."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from cloison import output, rights
from cloison.context import Context
from cloison.errors import CloisonError, Exit
from cloison.flags import NCAP_WORDS, NETWORK_WORDS, Change, describe
from cloison.network import Address, Network, Setup
from cloison.syscall import ExistsError, InvalidError, NoSuchContextError, NotSupportedError, Vserver

HELP = (
    (
        "network",
        "show or change the network context of a context",
        "A network context says which addresses of the machine the processes of a context can use and see. It has"
        " the number of the context, and is made by create or run with --address or --no-address. An ADDRESS is"
        " 10.0.0.2, 10.0.0.2/24 (an address and its network), net:10.0.0.0/24 (every address of it),"
        " 10.0.0.2-10.0.0.9, or the same of IPv6 without ranges. It must be configured on the machine, as by"
        " ip address add. 127.0.0.1 and ::1 are the context's own. Removal takes an entry as it is shown.",
        (
            ("cloison network web", "its addresses, flags and capabilities"),
            ("cloison network web --add 10.0.0.3/24 --remove 10.0.0.2/24", "move it; open connections stay"),
            ("cloison network web --caps raw_icmp", "let root of the context ping"),
            ("cloison network web --flags ~hide_netif", "let it see all interfaces"),
        ),
    ),
)
Converter = Callable[[dict[str, int]], Callable[[str], Change]]


def address(text: str) -> Address:
    """Read an entry of an address list."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def ipv4(text: str) -> IPv4Address:
    """Read one IPv4 address."""
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(parser: argparse._ActionsContainer, change_of: Converter, flags: str, caps: str) -> None:
    parser.add_argument(flags, type=change_of(NETWORK_WORDS), metavar="LIST", help="flags of its network")
    parser.add_argument(caps, type=change_of(NCAP_WORDS), metavar="LIST", help="capabilities of its network")
    parser.add_argument("--broadcast", type=ipv4, metavar="IP", help="its broadcast address")
    parser.add_argument("--loopback", type=ipv4, metavar="IP", help="what 127.0.0.1 stands for")


def fill(made: dict[str, argparse.ArgumentParser], change_of: Converter) -> None:
    """Add the arguments of the subcommand, and those of create and run."""
    for name in ("create", "run"):
        group = made[name].add_argument_group("its network", "without any of these, the host's")
        group.add_argument(
            "--address", "-a", type=address, action="append", metavar="ADDRESS", help="see cloison network"
        )
        group.add_argument("--no-address", action="store_true", help="none but its own 127.0.0.1 and ::1")
        _settings(group, change_of, "--network-flags", "--network-caps")
    network = made["network"]
    network.add_argument("--add", type=address, action="append", default=[], metavar="ADDRESS", help="append it")
    network.add_argument("--remove", type=address, action="append", default=[], metavar="ADDRESS", help="remove it")
    _settings(network, change_of, "--flags", "--caps")


def network_setup(args: argparse.Namespace) -> Setup | None:
    """Return how the network of a new context starts, or None for the host's network."""
    flags, caps = args.network_flags or Change(), args.network_caps or Change()
    wanted = args.no_address or flags or caps or args.broadcast or args.loopback
    if args.address and args.no_address:
        raise CloisonError("--address and --no-address exclude each other", status=Exit.USAGE)
    if not args.address and not wanted:
        return None
    return Setup(tuple(args.address or ()), flags, caps, args.broadcast, args.loopback)


def apply(network: Network, args: argparse.Namespace) -> None:
    """Make the changes that the options ask for, additions first, so that no moment is without an address."""
    for address in args.add:
        _change(network, address, add=True)
    for address in args.remove:
        _change(network, address, add=False)
    network.configure(Setup((), args.flags or Change(), args.caps or Change(), args.broadcast, args.loopback))


def _change(network: Network, address: Address, *, add: bool) -> None:
    try:
        network.add(address) if add else network.remove(address)
    except ExistsError:
        raise CloisonError(f"{address}: the context has this address already") from None
    except NoSuchContextError:
        shown = ", ".join(str(entry) for entry in network.addresses()) or "none"
        raise CloisonError(f"{address}: the context has no such address", hint=f"it has: {shown}") from None
    except InvalidError:
        raise CloisonError(f"{address}: the kernel does not take this address") from None


def describe_network(network: Network) -> dict[str, Any]:
    """Return what a network context is, for people and programs."""
    broadcast, loopback = network.fixed()
    return {
        "nid": network.nid,
        "addresses": [str(address) for address in network.addresses()],
        "broadcast": str(broadcast),
        "loopback": str(loopback),
        "flags": describe(int(network.flags()), NETWORK_WORDS),
        "caps": describe(network.caps(), NCAP_WORDS),
    }


def network_of(context: Context) -> dict[str, Any]:
    """Return what cloison show says of the network: its addresses, "host", or nothing from a kernel without."""
    network = Network(context.xid, context.kernel)
    try:
        return {"network": [str(entry) for entry in network.addresses()] if network.exists() else "host"}
    except NotSupportedError:
        return {}


class NetworkCommands:
    """The subcommand, as a method for `cloison.cli.Tool`."""

    kernel: Vserver
    live: Callable[[str], Context]

    def do_network(self, args: argparse.Namespace) -> int:
        """Show or change the network context."""
        network = Network(self.live(args.context).xid, self.kernel)
        if not network.exists():
            raise CloisonError(
                f"{args.context}: the context has no network of its own",
                hint="cloison create and run make one with --address or --no-address",
            )
        apply(network, args)
        data = describe_network(network)
        output.show(output.facts([(key, rights.text(value)) for key, value in data.items()]), data, as_json=args.json)
        return Exit.GOOD
