# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check declares, and the register of all checks.

The same modules are imported on the host, which plans and judges, and in the machine, which runs
the probes. A check is a probe (a function of a `scene.Scene` that returns what it saw), what it
must see, and a positive control: the same operation where it must succeed, so that a refusal means
isolation and not a broken probe.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloison_verify.scene import Scene, Seen

Probe = Callable[["Scene"], "Seen"]

HOST_IMAGE = "host"
LANES = ("uml", "qemu", "xen", "bochs")
_IDENTIFIER = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)+")


class CatalogueError(Exception):
    """A check is declared in a way that cannot be right."""


@dataclass(frozen=True)
class KernelWithout:
    """Control: the same probe in a machine whose kernel was built with the series turned off."""

    expected: tuple[str, ...]
    kind = "kernel-without"


@dataclass(frozen=True)
class SameContext:
    """Control: the same probe with the attacker and its aim inside one context."""

    expected: tuple[str, ...]
    kind = "same-context"


@dataclass(frozen=True)
class Instead:
    """Control: another probe on the same machine; `what` says in a few words how it differs."""

    probe: Probe
    expected: tuple[str, ...]
    what: str
    kind = "instead"


Control = KernelWithout | SameContext | Instead


@dataclass(frozen=True)
class Check:
    """One check.

    `expected` holds the acceptable sights: names of errors such as ``ESRCH``, or values. `vectors`
    are rows of ``vectors.csv`` that it proves. `not_on` maps lanes that cannot run it to the reason,
    or, as ``qemu-microvm``, a lane and one way to boot it.
    `seconds` is its time limit, its control included, on a machine without acceleration. `image` is the one
    of ``images/`` whose programs it needs.
    """

    id: str
    title: str
    attack: str
    expected: tuple[str, ...]
    control: Control
    probe: Probe
    vectors: tuple[str, ...] = ()
    not_on: Mapping[str, str] = field(default_factory=dict)
    seconds: int = 20
    image: str = HOST_IMAGE

    def why_not_on(self, lane: str, way: str) -> str:
        """Say why a lane that boots one of its ways cannot run it; '' if it can."""
        return self.not_on.get(lane) or self.not_on.get(f"{lane}-{way}", "")

    @property
    def suite(self) -> str:
        """The suite: the part of the identifier before the first dot."""
        return self.id.split(".", 1)[0]

    def validate(self) -> None:
        """Raise `CatalogueError` when the declaration cannot be right."""
        if not _IDENTIFIER.fullmatch(self.id) or "." not in self.id or len(self.id) > 90:
            raise CatalogueError(f"'{self.id}' is no identifier of the form suite.name")
        if not self.expected or not self.control.expected:
            raise CatalogueError(f"{self.id} expects nothing, so it could not fail")
        if not isinstance(self.control, Instead) and set(self.expected) & set(self.control.expected):
            raise CatalogueError(f"{self.id}: the control expects what the check expects, so it proves nothing")
        unknown = [lane for lane in self.not_on if lane.split("-")[0] not in LANES]
        if unknown or not all(self.not_on.values()):
            raise CatalogueError(f"{self.id}: a lane left out must be a known one, with a reason")
        if not 1 <= self.seconds <= 3600:
            raise CatalogueError(f"{self.id}: a time limit of {self.seconds} s is none")


_checks: dict[str, Check] = {}


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def kernel_without(expected: str | Sequence[str]) -> KernelWithout:
    """Return the control that runs the same probe on a kernel without the series."""
    return KernelWithout(_words(expected))


def same_context(expected: str | Sequence[str]) -> SameContext:
    """Return the control that runs the same probe inside one context."""
    return SameContext(_words(expected))


def instead(probe: Probe, expected: str | Sequence[str], what: str) -> Instead:
    """Return the control that runs `probe` on the same machine."""
    return Instead(probe, _words(expected), what)


def check(
    identifier: str,
    *,
    title: str,
    attack: str,
    expected: str | Sequence[str],
    control: Control,
    vectors: Sequence[str] = (),
    not_on: Mapping[str, str] | None = None,
    seconds: int = 20,
    image: str = HOST_IMAGE,
) -> Callable[[Probe], Probe]:
    """Register the decorated probe as a check; see `Check` for the meaning of each word."""

    def register(probe: Probe) -> Probe:
        words, rows = _words(expected), tuple(vectors)
        made = Check(identifier, title, attack, words, control, probe, rows, dict(not_on or {}), seconds, image)
        made.validate()
        if identifier in _checks:
            raise CatalogueError(f"{identifier} is declared twice")
        _checks[identifier] = made
        return probe

    return register


def load() -> dict[str, Check]:
    """Import every module of ``checks`` and return all checks by identifier, in order of identifier."""
    from cloison_verify import checks

    for module in sorted(pkgutil.iter_modules(checks.__path__), key=lambda found: found.name):
        importlib.import_module(f"{checks.__name__}.{module.name}")
    return dict(sorted(_checks.items()))
