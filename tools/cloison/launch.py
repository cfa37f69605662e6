# SPDX-License-Identifier: GPL-2.0-or-later
"""The child's side of running a command in a context: one straight sequence of steps, in one order.

The order is the point. Descriptors of the host are closed and the session is left before anything
of the context can look; namespaces and root come before the context, because entering it takes the
right to change them away; a new context is configured and sealed before a single instruction of
the command runs; the user changes last, while the capability to do so is still there.

Nothing is imported here after the root has changed: a module would be taken from the context's files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloison.context import Context, supported_spaces
from cloison.errors import Exit
from cloison.flags import NO_FLAGS, NO_SPACES, ONE_TIME, Change, ContextFlags, Spaces
from cloison.syscall import NotSupportedError, VserverError
from cloison.system import System

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class User:
    """Numeric identity; names are not looked up, because the files that hold them belong to the context."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Creation:
    """How a new context starts. `flags` come on top of the one-time flags; the changes are made before sealing.

    With `init` the command becomes init and reaper of the context; the kernel keeps `name` and `tag` with it.
    """

    flags: ContextFlags = NO_FLAGS
    init: bool = False
    caps: Change = field(default_factory=Change)
    bound: Change = field(default_factory=Change)
    name: str = ""
    umask: Change = field(default_factory=Change)
    tag: int = 0


@dataclass(frozen=True)
class Launch:
    """A command to run in a context, new (`creation`) or existing. `environment` is all it gets.

    `tag` is the file tag of an existing context, taken before the command enters it.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    creation: Creation | None = None
    new_spaces: Spaces = NO_SPACES
    root: str | None = None
    directory: str = "/"
    user: User | None = None
    tag: int = 0


def clean_environment(caller: Mapping[str, str], extra: Mapping[str, str], *, root: bool = True) -> dict[str, str]:
    """Return a small known environment: PATH, HOME, and of the caller's only what a terminal needs."""
    kept = {name: caller[name] for name in ("TERM", "LANG", "COLORTERM") if name in caller}
    return {"PATH": CLEAN_PATH, "HOME": "/root" if root else "/", "container": "cloison", **kept, **extra}


@dataclass(frozen=True)
class Failure:
    """Why a child could not run its command: the step, the errno (0 unknown) and one line of text."""

    step: str
    errno: int
    text: str
    command: int = -1
    ident: int = 0

    def encode(self) -> bytes:
        """Return the failure as bytes for the pipe to the parent."""
        return json.dumps([self.step, self.errno, self.text, self.command, self.ident]).encode()

    @staticmethod
    def decode(data: bytes) -> Failure:
        """Read what `encode` wrote; raises ValueError on anything else."""
        step, code, text, command, ident = json.loads(data)
        return Failure(str(step), int(code), str(text), int(command), int(ident))


def steps(launch: Launch, context: Context, system: System) -> list[tuple[str, Callable[[], None]]]:
    """Return the named steps between having closed the host's descriptors and running the command."""
    todo: list[tuple[str, Callable[[], None]]] = [("harden", system.harden)]
    creation = launch.creation
    if launch.new_spaces:
        todo.append(("new namespaces", lambda: system.unshare(int(launch.new_spaces))))
    if creation is None:
        todo.append(("namespaces of the context", lambda: _enter_spaces(context)))
    if launch.root is not None:
        todo.append((f"root {launch.root}", lambda: system.change_root(str(launch.root))))
    if creation is None:
        if launch.tag:
            todo.append((f"file tag {launch.tag}", lambda: context.kernel.take_tag(launch.tag)))
        todo.append(("enter the context", context.enter))
    else:
        root = NO_SPACES if launch.root is None else Spaces.FS
        todo.extend(creation_steps(creation, context, launch.new_spaces | root))
    if launch.user is not None:
        user = launch.user
        todo.append(("user", lambda: system.become(user.uid, user.gid, user.groups)))
    todo.append((f"directory {launch.directory}", lambda: system.change_directory(launch.directory)))
    return todo


def creation_steps(
    creation: Creation, context: Context, spaces: Spaces = NO_SPACES
) -> list[tuple[str, Callable[[], None]]]:
    """Return the steps that make, configure and seal a context from inside.

    `spaces` of the caller are recorded, so that later commands enter them; FS is the root directory.
    """
    todo: list[tuple[str, Callable[[], None]]] = []
    if creation.tag:
        todo.append((f"file tag {creation.tag}", lambda: context.kernel.take_tag(creation.tag)))
    todo.append(("create the context", lambda: context.create(creation.flags | ONE_TIME)))
    if spaces:
        todo.append(("remember namespaces and root", lambda: _remember_spaces(context, spaces)))
    if creation.caps:
        todo.append(("context capabilities", lambda: context.set_caps(creation.caps)))
    if creation.bound:
        todo.append(("capability bound", lambda: context.set_bound(creation.bound)))
    if creation.umask:
        todo.append(("namespaces that may be made", lambda: context.set_umask(creation.umask)))
    if creation.name:
        todo.append(("name", lambda: context.set_name(creation.name)))
    sealed = ContextFlags.STATE_SETUP | (ContextFlags.STATE_INIT if creation.init else NO_FLAGS)
    todo.append(("seal the context", lambda: context.set_flags(Change(0, int(sealed)))))
    return todo


def _enter_spaces(context: Context) -> None:
    try:
        supported_spaces(context.kernel)
    except NotSupportedError:
        return
    context.enter_spaces()


def _remember_spaces(context: Context, spaces: Spaces) -> None:
    """Record what later commands are to enter; a kernel without spaces keeps nothing."""
    try:
        known = supported_spaces(context.kernel)
    except NotSupportedError:
        return
    context.remember_spaces(spaces & known)


def run_child(
    launch: Launch,
    context: Context,
    system: System,
    *,
    report: int,
    streams: Mapping[int, int],
    terminal: int | None,
) -> int:
    """Do everything and run the command; returns an exit status only on failure, which `report` has got."""
    step = "session"
    try:
        system.new_session(terminal)
        system.standard_streams(streams)
        report = system.keep_only(report)
        for name, action in steps(launch, context, system):
            step = name
            action()
        step = f"run {launch.argv[0]}"
        system.execute(launch.argv, launch.environment)
        return Exit.OWN
    except FileNotFoundError as error:
        _tell(report, Failure(step, error.errno or 0, error.strerror or str(error)))
        return Exit.NOT_FOUND if step.startswith("run ") else Exit.OWN
    except VserverError as error:
        _tell(report, Failure(step, error.errno or 0, error.reason, error.command, error.ident))
        return Exit.OWN
    except OSError as error:
        _tell(report, Failure(step, error.errno or 0, error.strerror or str(error)))
        return Exit.CANNOT_RUN if step.startswith("run ") else Exit.OWN
    except BaseException as error:
        _tell(report, Failure(step, 0, f"{type(error).__name__}: {error}"))
        return Exit.OWN


def _tell(report: int, failure: Failure) -> None:
    """Write to the parent in one piece (a pipe takes up to 4096 bytes at once)."""
    os.write(report, failure.encode()[:4000])
