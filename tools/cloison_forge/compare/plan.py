# SPDX-License-Identifier: GPL-2.0-or-later
"""What is compared: rows of work, machines, and the surroundings in which each machine does the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cloison_forge.core.errors import UsageError
from cloison_verify.catalogue import Check, Instead
from cloison_verify.scene import Scene, Seen

ROWS = {
    "syscall": "system call (getppid)",
    "switch": "context switch",
    "pipe": "pipe, one byte in and out",
    "fork": "fork, exit, wait",
    "exec": "exec of a static program, wait",
    "fault": "page fault",
    "create": "create and remove a file (tmpfs)",
    "udp": "UDP round trip",
    "tcp": "TCP round trip",
    "web": "web request of 4 KiB",
    "compile": "compile of 400 lines (tcc)",
}
IDLE = (1, 10, 100)
"""How many idle instances are held to see what memory they take."""

CONTAINERS = ("bubblewrap", "crun")
_TITLES = {"plain": "", "context": "in a context", "bubblewrap": "in bubblewrap", "crun": "in crun"}


@dataclass(frozen=True)
class Machine:
    """A machine to boot; without a lane it is the build host itself.

    `variant` is the kernel's. `own_clock` says that its clock counts work instead of time. A `slow` one is measured
    in a short form, unless all is asked for.
    """

    name: str
    title: str
    lane: str = ""
    way: str = ""
    variant: str = "on"
    accelerator: str = ""
    surroundings: tuple[str, ...] = ("plain", "context")
    own_clock: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Column:
    """A machine and a surrounding. `reference` is the column of the plain kernel on the same kind of machine."""

    machine: Machine
    surrounding: str
    reference: str

    @property
    def name(self) -> str:
        """The column's name, such as ``uml.context``."""
        return f"{self.machine.name}.{self.surrounding}"

    @property
    def title(self) -> str:
        """What people read."""
        return ", ".join(filter(None, (self.machine.title, _TITLES[self.surrounding])))


def _pair(name: str, title: str, lane: str, way: str, accelerator: str = "") -> list[Machine]:
    """Return a kind of machine twice: with the plain kernel, and with the patched one."""
    on = Machine(
        name,
        f"{title}, patched kernel",
        lane,
        way,
        accelerator=accelerator,
        own_clock=lane == "bochs",
        slow=lane in ("xen", "bochs"),
    )
    off = replace(
        on,
        name=f"{name}-off",
        title=f"{title}, plain kernel",
        variant="off",
        surroundings=("plain", *CONTAINERS),
    )
    return [off, on]


MACHINES: tuple[Machine, ...] = (
    Machine("native", "build host", surroundings=("plain", *CONTAINERS)),
    *_pair("uml", "UML", "uml", "direct"),
    *_pair("kvm", "QEMU KVM", "qemu", "direct", "kvm"),
    *_pair("tcg", "QEMU TCG", "qemu", "direct", "tcg"),
    *_pair("dom0", "Xen in TCG, first domain", "xen", "dom0"),
    *_pair("domu", "Xen in TCG, PV guest", "xen", "pv"),
    *_pair("bochs", "Bochs", "bochs", "bios"),
)


def chosen_machines(names: str) -> tuple[Machine, ...]:
    """Return the machines named, separated by commas (all if none); ``uml`` names both kernels of that kind."""
    kinds = [machine.name.removesuffix("-off") for machine in MACHINES]
    wanted = set(filter(None, names.split(",")))
    if unknown := sorted(wanted - set(kinds)):
        raise UsageError(f"no machine '{unknown[0]}'", hint=f"machines: {', '.join(dict.fromkeys(kinds))}")
    return tuple(machine for machine, kind in zip(MACHINES, kinds, strict=True) if not wanted or kind in wanted)


def chosen_rows(names: str) -> tuple[str, ...]:
    """Return the rows named, separated by commas (all if none), in their order."""
    wanted = set(filter(None, names.split(",")))
    if unknown := sorted(wanted - set(ROWS)):
        raise UsageError(f"no row '{unknown[0]}'", hint=f"rows: {', '.join(ROWS)}")
    return tuple(row for row in ROWS if not wanted or row in wanted)


def columns(machines: tuple[Machine, ...]) -> Iterator[Column]:
    """Give the columns of machines in their order."""
    for machine in machines:
        kind = machine.name.removesuffix("-off")
        reference = "native.plain" if kind == "native" else f"{kind}-off.plain"
        for surrounding in machine.surroundings:
            yield Column(machine, surrounding, reference)


def _nothing(_: Scene) -> Seen:
    raise AssertionError("measurements are no checks")


@dataclass(frozen=True)
class Sizes:
    """How much is measured: rows, rounds, milliseconds for each measurement, numbers of idle instances.

    `full` gives slow machines as much as the others.
    """

    rows: tuple[str, ...]
    rounds: int
    milliseconds: int
    idle: tuple[int, ...] = IDLE
    full: bool = False

    def of(self, machine: Machine) -> Sizes:
        """Return what one machine is to measure: a slow one has one round, of a third of the time."""
        if self.full or not machine.slow:
            return self
        return replace(self, rounds=1, milliseconds=max(1, self.milliseconds // 3), idle=self.idle[:2])


def pieces(machine: Machine, sizes: Sizes, seconds: int) -> tuple[Check, ...]:
    """Return what one machine is to measure, as a plan for PID 1: identifiers are ROUND.SURROUNDING.ROW.

    Rounds alternate over the surroundings, so that what changes with time changes all of them. Rows ``idleN``
    come last, once each.
    """
    control = Instead(_nothing, ("",), "nothing")
    limits = {
        f"r{number}.{surrounding}.{row}": seconds
        for number in range(sizes.rounds)
        for row in sizes.rows
        for surrounding in machine.surroundings
    }
    for surrounding in machine.surroundings:
        limits |= {f"r0.{surrounding}.idle{count}": min(3600, seconds + seconds * count // 20) for count in sizes.idle}
    return tuple(Check(name, name, "", ("",), control, _nothing, seconds=limit) for name, limit in limits.items())
