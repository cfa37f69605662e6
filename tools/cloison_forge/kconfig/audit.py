# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare what was asked for with what came out, and say by name what was lost and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloison_forge.core.errors import BuildError, UsageError
from cloison_forge.kconfig.fragments import Setting
from cloison_forge.kconfig.profiles import close_matches


@dataclass(frozen=True)
class Loss:
    """A setting that did not come out as asked: both values, where it was asked for, and the reason."""

    symbol: str
    asked: str
    got: str
    place: str
    reason: str
    waiver: str = ""

    @property
    def text(self) -> str:
        """One line: 'X lost: needs Y, which is n; set at FILE:LINE'."""
        what = "lost" if self.asked != "n" else f"is {self.got} although it is to be off"
        if self.asked not in ("n", "y", "m") and self.got not in ("", "n"):
            what = f"is {self.got}, not {self.asked}"
        return f"{self.symbol} {what}: {self.reason}; set at {self.place}"


@dataclass(frozen=True)
class Audit:
    """The comparison: `losses` that fail it, those `waived`, and `stale` waivers that were not needed.

    `base_changes` names what a distribution's own file sets and this kernel or compiler does not take; it
    fails nothing, since no fragment asks for it.
    """

    losses: tuple[Loss, ...] = ()
    waived: tuple[Loss, ...] = ()
    stale: tuple[str, ...] = ()
    asked: int = 0
    base_changes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the audit for ``audit.json``."""
        return {
            "schema": "cloison-audit-1",
            "asked": self.asked,
            "losses": [asdict(loss) for loss in self.losses],
            "waived": [asdict(loss) for loss in self.waived],
            "stale_waivers": list(self.stale),
            "base_changes": list(self.base_changes),
        }


def check_names(request: Mapping[str, Setting], kconf: Any) -> None:
    """Refuse symbols that the tree does not define, each with its place and close matches."""
    known = {name for name, symbol in kconf.syms.items() if symbol.nodes}
    wrong = [setting for setting in request.values() if setting.symbol not in known]
    if not wrong:
        return
    texts = [f"{s.symbol} at {s.place}{close_matches(s.symbol, known)}" for s in wrong]
    hint = "correct the fragment"
    if any(s.symbol.startswith("VSERVER") for s in wrong):
        hint = "the applied series does not define it; choose --variant absent, or apply the patch that brings it"
    raise UsageError(f"no such symbol in this kernel: {'; '.join(texts)}", hint=hint)


def compare(
    request: Mapping[str, Setting],
    result: Mapping[str, str],
    profiles: Collection[str],
    kconf: Any,
    base: Mapping[str, str] | None = None,
) -> Audit:
    """Compare the request with the resolved ``.config``.

    `profiles` is the lineage of the profile, for waivers; `kconf` holds the resolved values.
    """
    losses: list[Loss] = []
    waived: list[Loss] = []
    stale: list[str] = []
    for setting in request.values():
        got = result.get(setting.symbol, "")
        if got == setting.value or (setting.value == "n" and got == ""):
            if setting.waived_in(profiles) and setting.waiver_profiles:
                stale.append(f"{setting.symbol} at {setting.place}")
            continue
        reason = why(setting, kconf, request)
        loss = Loss(setting.symbol, setting.value, got, setting.place, reason, setting.waiver)
        (waived if setting.waived_in(profiles) else losses).append(loss)
    changes = [
        f"{symbol}: {value} became {result.get(symbol, 'n')}"
        for symbol, value in (base or {}).items()
        if value != "n" and symbol not in request and result.get(symbol, "n") != value and symbol in kconf.syms
    ]
    return Audit(tuple(losses), tuple(waived), tuple(stale), len(request), tuple(changes))


def require_whole(audit: Audit, profile: str) -> None:
    """Raise `BuildError` that names every lost setting, if there is any."""
    if not audit.losses:
        return
    count = len(audit.losses)
    lines = "".join(f"\n          {loss.text}" for loss in audit.losses)
    raise BuildError(
        f"profile {profile}: {count} setting{'s' * (count > 1)} did not survive the kernel's olddefconfig:{lines}",
        hint="set what is needed in a fragment, remove the line, or say '# waiver: why' above it; "
        "./invoke kconfig.explain SYMBOL tells more",
    )


def why(setting: Setting, kconf: Any, request: Mapping[str, Setting]) -> str:
    """Say why a symbol did not take the value that `setting` asks for."""
    symbol = kconf.syms[setting.symbol]
    if setting.value == "n":
        return _why_on(symbol, request)
    if symbol.orig_type in _numeric_types() or setting.value.startswith('"'):
        return _why_not_value(symbol, setting, request)
    if setting.value == "m" and symbol.str_value == "y":
        return "it cannot be a module here"
    if symbol.choice is not None and symbol.choice.selection not in (None, symbol):
        return f"the choice fell on {named(symbol.choice.selection, request)}"
    if unmet := unmet_needs(symbol, request):
        return "needs " + " and ".join(unmet)
    if not any(node.prompt for node in symbol.nodes):
        return "it has no prompt: only a default or a select sets it"
    return "its prompt is hidden" + hidden_by(symbol, request)


def _numeric_types() -> tuple[int, int]:
    import kconfiglib

    return kconfiglib.INT, kconfiglib.HEX


def _why_not_value(symbol: Any, setting: Setting, request: Mapping[str, Setting]) -> str:
    import kconfiglib

    if unmet := unmet_needs(symbol, request):
        return "needs " + " and ".join(unmet)
    for low, high, condition in symbol.ranges:
        if kconfiglib.expr_value(condition):
            return f"its range is {low.str_value} to {high.str_value}"
    kind = kconfiglib.TYPE_TO_STR[symbol.orig_type]
    if not any(node.prompt for node in symbol.nodes):
        return f"it has no prompt: the kernel computes this {kind}"
    return f"the kernel wants another value for this {kind} (asked: {setting.value})"


def _why_on(symbol: Any, request: Mapping[str, Setting]) -> str:
    selectors = [named(other, request) for other in selected_by(symbol)]
    if selectors:
        return f"selected by {', '.join(selectors)}"
    if not any(node.prompt for node in symbol.nodes):
        return "it has no prompt and its default is on"
    return "its default is on and its prompt is hidden" + hidden_by(symbol, request)


def selected_by(symbol: Any) -> list[Any]:
    """Return the symbols whose ``select`` holds `symbol` on at this moment."""
    import kconfiglib

    found: list[Any] = []
    for term in kconfiglib.split_expr(symbol.rev_dep, kconfiglib.OR):
        if kconfiglib.expr_value(term):
            selector = kconfiglib.split_expr(term, kconfiglib.AND)[0]
            if isinstance(selector, kconfiglib.Symbol) and selector.name not in ("y", "n", "m"):
                found.append(selector)
    return found


def hidden_by(symbol: Any, request: Mapping[str, Setting]) -> str:
    """Return ' because …' from the condition of the symbol's first prompt, or nothing."""
    import kconfiglib

    for node in symbol.nodes:
        if node.prompt and not kconfiglib.expr_value(node.prompt[1]):
            return " because " + " and ".join(_unmet(node.prompt[1], request))
    return ""


def unmet_needs(symbol: Any, request: Mapping[str, Setting]) -> list[str]:
    """Name the dependencies of `symbol` that are not met, with their values and where those were set."""
    import kconfiglib

    if kconfiglib.expr_value(symbol.direct_dep):
        return []
    return _unmet(symbol.direct_dep, request)


def _unmet(expression: Any, request: Mapping[str, Setting]) -> list[str]:
    """Return one text for each unmet part of a conjunction."""
    import kconfiglib

    texts: list[str] = []
    for part in kconfiglib.split_expr(expression, kconfiglib.AND):
        if kconfiglib.expr_value(part):
            continue
        text = _unmet_part(part, request)
        if text not in texts:
            texts.append(text)
    return texts


def _unmet_part(part: Any, request: Mapping[str, Setting]) -> str:
    import kconfiglib

    if isinstance(part, tuple) and part[0] is kconfiglib.NOT and isinstance(part[1], kconfiglib.Symbol):
        return f"{part[1].name} off, which is {value_and_place(part[1], request)}"
    if isinstance(part, kconfiglib.Symbol):
        return f"{part.name}, which is {value_and_place(part, request)}"
    leaves = [leaf for leaf in kconfiglib.expr_items(part) if isinstance(leaf, kconfiglib.Symbol) and leaf.nodes]
    values = ", ".join(f"{leaf.name} is {value_and_place(leaf, request)}" for leaf in sorted(leaves, key=_by_name)[:4])
    return f"{kconfiglib.expr_str(part)} ({values})"


def _by_name(symbol: Any) -> str:
    return str(symbol.name)


def named(item: Any, request: Mapping[str, Setting]) -> str:
    """Return a symbol's name, and in parentheses where a fragment sets it."""
    setting = request.get(item.name)
    return f"{item.name} (set at {setting.place})" if setting else str(item.name)


def value_and_place(symbol: Any, request: Mapping[str, Setting]) -> str:
    """Return a symbol's value and, if a fragment names it, the place: 'n, set at FILE:LINE'."""
    value = symbol.str_value if symbol.nodes else "not in this kernel"
    setting = request.get(symbol.name)
    return f"{value or 'empty'}, set at {setting.place}" if setting else (value or "empty")
