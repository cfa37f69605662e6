# SPDX-License-Identifier: GPL-2.0-or-later
"""What root of a context may do: its bound, its context capabilities and grants, its umask.

Three words of the kernel rule it. The *bound* masks ordinary capabilities. *Context capabilities* are
for single operations, and *grants* among them are for what no context has by its bound alone. The
*umask* names the namespaces that processes of the context may make.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from cloison.context import Context
from cloison.flags import BCAP_WORDS, CAPABILITIES, CCAP_WORDS, UMASK_WORDS, describe, without_effect
from cloison.syscall import NotSupportedError

Data = dict[str, Any]


def described(context: Context) -> Data:
    """Return the words of a context as lists of names; None for what this kernel does not know yet.

    ``idle`` are capabilities inside the bound that have no effect, because the context lacks their grant.
    """

    def ask(question: Callable[[], int]) -> int | None:
        try:
            return int(question())
        except NotSupportedError:
            return None

    def words(value: int | None, names: dict[str, int]) -> list[str] | None:
        return None if value is None else describe(value, names)

    caps, bound, umask = ask(context.caps), ask(context.bound), ask(context.umask)
    return {
        "caps": words(caps, CCAP_WORDS),
        "bound": words(bound, BCAP_WORDS),
        "umask": words(umask, UMASK_WORDS),
        "idle": None if caps is None or bound is None or umask is None else without_effect(bound, caps),
    }


def change(context: Context, args: argparse.Namespace) -> None:
    """Make the changes of a command line; what is not named there stays."""
    for wanted, apply in (
        (args.caps, context.set_caps),
        (args.bound, context.set_bound),
        (args.umask, context.set_umask),
    ):
        if wanted:
            apply(wanted)


def text(value: object) -> object:
    """Return a value for people; a nearly full set is shown by what it lacks."""
    if value is None:
        return "(not offered by this kernel)"
    if not isinstance(value, list):
        return value
    if len(value) == 64:
        return "all"
    if len(value) > 32:
        known = (*CAPABILITIES, *(f"^{bit}" for bit in range(len(CAPABILITIES), 63)), "context")
        return "all but " + ", ".join(word for word in known if word not in value)
    return ", ".join(value) or "none"
