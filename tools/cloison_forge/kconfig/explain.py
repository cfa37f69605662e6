# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything about one symbol: type, prompt, value, where set, dependencies, who selects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloison_forge.core.errors import UsageError
from cloison_forge.kconfig import audit
from cloison_forge.kconfig.fragments import Setting
from cloison_forge.kconfig.profiles import close_matches


@dataclass(frozen=True)
class Need:
    """One part of a dependency: the expression, its value, and its symbols with their values and places."""

    expression: str
    value: str
    symbols: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        """Say whether this part allows the symbol to be on."""
        return self.value != "n"


@dataclass(frozen=True)
class Explanation:
    """What `explain` found out about a symbol in a profile.

    `asked` is the value that a fragment asks for and `place` where; both empty if none does. `reason`
    says why the two values differ, empty if they do not. `selected_by` holds what forces it on now,
    `selectors` all that could. `choice` names the members of its choice, the chosen one first.
    """

    symbol: str
    profile: str
    type: str
    prompts: tuple[str, ...]
    value: str
    asked: str
    place: str
    reason: str
    defined_at: tuple[str, ...]
    needs: tuple[Need, ...]
    selected_by: tuple[str, ...]
    selectors: tuple[str, ...]
    selects: tuple[str, ...]
    defaults: tuple[str, ...]
    choice: tuple[str, ...]
    help: str

    def as_json(self) -> dict[str, object]:
        """Return the explanation for programs."""
        return {"schema": "cloison-explain-1", **asdict(self)}

    @property
    def text(self) -> str:
        """Return the explanation for people."""
        lines = [f"{self.symbol}  ({self.type}{', ' + repr(self.prompts[0]) if self.prompts else ', no prompt'})"]

        def row(label: str, text: str) -> None:
            lines.append(f"  {label:<13} {text}")

        row("value", f"{self.value or 'empty'} in profile {self.profile}")
        row("asked for", f"{self.asked} at {self.place}" if self.asked else "by no fragment")
        if self.reason:
            row("lost", self.reason)
        for index, need in enumerate(self.needs):
            detail = f"   [{', '.join(need.symbols)}]" if need.symbols else ""
            row("needs" if index == 0 else "", f"{'✓' if need.met else '✗'} {need.expression} = {need.value}{detail}")
        if not self.needs:
            row("needs", "nothing")
        if self.choice:
            row("choice of", ", ".join(self.choice))
        row("selected by", ", ".join(self.selected_by) or "nothing that is on")
        others = [name for name in self.selectors if name not in self.selected_by]
        if others:
            more = f" and {len(others) - 8} more" if len(others) > 8 else ""
            row("could be by", ", ".join(others[:8]) + more)
        if self.selects:
            row("selects", ", ".join(self.selects))
        if self.defaults:
            row("default", "; ".join(self.defaults))
        row("defined at", ", ".join(self.defined_at))
        if self.help:
            lines += ["", *(f"  {line}".rstrip() for line in self.help.splitlines())]
        return "\n".join(lines)


def explain(name: str, kconf: Any, request: Mapping[str, Setting], profile: str) -> Explanation:
    """Explain the symbol called `name`, with or without ``CONFIG_``; `kconf` holds the resolved values."""
    import kconfiglib

    bare = name.strip().removeprefix("CONFIG_")
    symbol = kconf.syms.get(bare) or kconf.syms.get(bare.upper())
    if symbol is None or not symbol.nodes:
        known = [each for each, item in kconf.syms.items() if item.nodes]
        raise UsageError(
            f"no symbol '{bare}' in this kernel{close_matches(bare.upper(), known)}", hint="names are as in .config"
        )
    setting = request.get(symbol.name)
    differs = setting is not None and not _same(setting, symbol)
    return Explanation(
        symbol=symbol.name,
        profile=profile,
        type=kconfiglib.TYPE_TO_STR[symbol.orig_type],
        prompts=tuple(node.prompt[0] for node in symbol.nodes if node.prompt),
        value=symbol.str_value,
        asked=setting.value if setting else "",
        place=setting.place if setting else "",
        reason=audit.why(setting, kconf, request) if setting and differs else "",
        defined_at=tuple(f"{node.filename}:{node.linenr}" for node in symbol.nodes),
        needs=_needs(symbol, request),
        selected_by=tuple(audit.named(other, request) for other in audit.selected_by(symbol)),
        selectors=tuple(sorted({other.name for other in _selectors(symbol)})),
        selects=_selects(symbol),
        defaults=tuple(_default(value, condition, kconf) for value, condition in symbol.defaults),
        choice=_choice(symbol),
        help=next((node.help.rstrip() for node in symbol.nodes if node.help), ""),
    )


def _same(setting: Setting, symbol: Any) -> bool:
    return setting.value.strip('"') == symbol.str_value or (setting.value == "n" and symbol.str_value in ("", "n"))


def _needs(symbol: Any, request: Mapping[str, Setting]) -> tuple[Need, ...]:
    import kconfiglib

    values = {0: "n", 1: "m", 2: "y"}
    needs: list[Need] = []
    for part in kconfiglib.split_expr(symbol.direct_dep, kconfiglib.AND):
        text = kconfiglib.expr_str(part)
        if text == "y" or any(need.expression == text for need in needs):
            continue
        leaves = [leaf for leaf in kconfiglib.expr_items(part) if isinstance(leaf, kconfiglib.Symbol) and leaf.nodes]
        detail = sorted(f"{leaf.name} is {audit.value_and_place(leaf, request)}" for leaf in leaves)
        alone = len(leaves) == 1 and leaves[0].name == text and not request.get(text)
        needs.append(Need(text, values[kconfiglib.expr_value(part)], () if alone else tuple(detail)))
    return tuple(needs)


def _selectors(symbol: Any) -> list[Any]:
    import kconfiglib

    terms = kconfiglib.split_expr(symbol.rev_dep, kconfiglib.OR)
    firsts = [kconfiglib.split_expr(term, kconfiglib.AND)[0] for term in terms]
    return [first for first in firsts if isinstance(first, kconfiglib.Symbol) and first.nodes]


def _selects(symbol: Any) -> tuple[str, ...]:
    import kconfiglib

    texts = []
    for target, condition in symbol.selects:
        shown = kconfiglib.expr_str(condition)
        texts.append(target.name if shown == "y" else f"{target.name} if {shown}")
    return tuple(texts)


def _default(value: Any, condition: Any, kconf: Any) -> str:
    import kconfiglib

    shown = kconfiglib.expr_str(value)
    return shown if condition is kconf.y else f"{shown} if {kconfiglib.expr_str(condition)}"


def _choice(symbol: Any) -> tuple[str, ...]:
    if symbol.choice is None:
        return ()
    members = [member.name for member in symbol.choice.syms if member.name]
    chosen = symbol.choice.selection
    if chosen is not None:
        members = [f"{chosen.name} (chosen)", *(name for name in members if name != chosen.name)]
    return tuple(members)
