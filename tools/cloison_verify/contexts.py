# SPDX-License-Identifier: GPL-2.0-or-later
"""Contexts for the checks, made by the companion library as an administrator would make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloison_verify.scene import SceneError


@contextmanager
def _as_scene() -> Iterator[None]:
    """Turn what the library raises into a scene that could not be set."""
    from cloison.errors import CloisonError

    try:
        yield
    except (OSError, CloisonError) as error:
        raise SceneError(f"{type(error).__name__}: {error}") from error


class CompanionContexts:
    """Persistent contexts without flags of their own, grants or a name; ids are those that are free.

    The library is imported when a check first needs a context, for imports are slow on an emulated machine.
    """

    def create(self) -> int:
        """Make a context that lives on without processes; return its xid."""
        with _as_scene():
            from cloison import lifecycle
            from cloison.launch import Creation
            from cloison.syscall import Vserver

            made = lifecycle.create_anywhere(
                Vserver(), set(), lambda context: lifecycle.create_persistent(context, Creation())
            )
            return made.xid

    def enter(self, xid: int) -> None:
        """Move the calling process into the context."""
        with _as_scene():
            from cloison.context import Context

            Context(xid).enter()

    def destroy(self, xid: int) -> None:
        """Kill every process of the context, then end the context."""
        with _as_scene():
            from cloison import lifecycle
            from cloison.context import Context

            lifecycle.remove(Context(xid), force=True, grace=0)
