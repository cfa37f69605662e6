# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of the steps into a context, and that a failed step is the last."""

from __future__ import annotations

import errno
import os
import sys
from typing import cast

import pytest
from tests.unit.cloison_fakes import FakeKernel, Model, RecordingSystem

from cloison.abi import Command
from cloison.context import Context
from cloison.flags import ONE_TIME, Change, ContextFlags, Spaces
from cloison.launch import Creation, Failure, Launch, User, clean_environment, run_child
from cloison.system import System

XID = 42
EXISTING = Launch(("id",), {}, root="/srv/web", directory="/tmp", user=User(33, 33))
NEW = Launch(
    ("id",),
    {},
    creation=Creation(ContextFlags.INFO_INIT, init=True, caps=Change(1, 1), bound=Change(0, 1 << 21), name="web"),
    new_spaces=Spaces.UTS | Spaces.IPC,
    root="/srv/web",
    user=User(33, 33),
)


def play(launch: Launch, kernel: FakeKernel, fail_at: str = "") -> tuple[int, Failure | None]:
    """Run the child's side with fakes; return its status and what it reported."""
    read_end, write_end = os.pipe()
    system = RecordingSystem(kernel.log, fail_at)
    status = run_child(
        launch, Context(XID, kernel.vserver()), cast(System, system), report=write_end, streams={}, terminal=None
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        data = stream.read()
    return status, Failure.decode(data) if data else None


def test_entering_an_existing_context() -> None:
    kernel = FakeKernel({XID: Model(0, tasks=1)})
    play(EXISTING, kernel)
    assert kernel.log == [
        "new_session",
        "standard_streams",
        "keep_only",
        "harden",
        "get_space_mask",
        "enter_space",
        "change_root /srv/web",
        "nx_info",
        "ctx_migrate",
        "become 33:33",
        "change_directory /tmp",
        "execute id",
    ]


def test_making_a_context_seals_it_before_the_command_runs() -> None:
    kernel = FakeKernel()
    play(NEW, kernel)
    assert kernel.log == [
        "new_session",
        "standard_streams",
        "keep_only",
        "harden",
        "unshare 0xc000000",
        "change_root /srv/web",
        "ctx_create",
        "get_space_mask",
        "set_space",
        "set_ccaps",
        "set_bcaps",
        "set_vhi_name",
        "set_cflags",
        "become 33:33",
        "change_directory /",
        "execute id",
    ]
    made = kernel.contexts[XID]
    assert ContextFlags(made.flags) & (ContextFlags.STATE_SETUP | ContextFlags.STATE_INIT) == 0
    assert ContextFlags.STATE_ADMIN | ContextFlags.INFO_INIT in ContextFlags(made.flags)
    assert (made.ccaps, made.bcaps >> 21 & 1, made.name) == (1, 0, b"web")


def test_a_context_without_init_keeps_its_place_for_one() -> None:
    kernel = FakeKernel()
    play(Launch(("id",), {}, creation=Creation()), kernel)
    assert ContextFlags(kernel.contexts[XID].flags) == ONE_TIME & ~ContextFlags.STATE_SETUP


def test_a_root_of_its_own_is_remembered_for_later_commands() -> None:
    kernel = FakeKernel()
    play(Launch(("id",), {}, creation=Creation(), root="/srv/web"), kernel)
    assert kernel.log.index("change_root /srv/web") < kernel.log.index("set_space") < kernel.log.index("set_cflags")
    kernel = FakeKernel()
    play(Launch(("id",), {}, creation=Creation()), kernel)
    assert "set_space" not in kernel.log


STEPS = [
    (EXISTING, "new_session"),
    (EXISTING, "keep_only"),
    (EXISTING, "harden"),
    (EXISTING, "change_root /srv/web"),
    (EXISTING, "become 33:33"),
    (EXISTING, "change_directory /tmp"),
    (NEW, "unshare 0xc000000"),
]


@pytest.mark.parametrize(("launch", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_failed_step_is_the_last_and_is_named(launch: Launch, step: str) -> None:
    kernel = FakeKernel({XID: Model(0, tasks=1)} if launch is EXISTING else {})
    status, failure = play(launch, kernel, fail_at=step)
    assert kernel.log[-1] == step
    assert status == 125
    assert failure is not None
    assert failure.errno == errno.EACCES


@pytest.mark.parametrize("command", [Command.CTX_CREATE, Command.SET_BCAPS, Command.SET_CFLAGS, Command.SET_SPACE])
def test_nothing_runs_in_a_context_that_could_not_be_made(command: Command) -> None:
    kernel = FakeKernel(refuse={command: errno.EPERM})
    status, failure = play(NEW, kernel)
    assert kernel.log[-1] == command.name.lower()
    assert status == 125
    assert failure is not None
    assert failure.command == command
    assert failure.errno == errno.EPERM


def test_the_network_of_the_context_is_entered_before_it() -> None:
    kernel = FakeKernel({XID: Model(0, tasks=1)}, networks={XID: 0})
    play(EXISTING, kernel)
    assert kernel.log.index("nx_info") < kernel.log.index("net_migrate") < kernel.log.index("ctx_migrate")


def test_a_kernel_without_spaces_is_no_obstacle() -> None:
    kernel = FakeKernel({XID: Model(0, tasks=1)}, refuse={Command.GET_SPACE_MASK: errno.ENOSYS})
    play(EXISTING, kernel)
    assert "enter_space" not in kernel.log
    assert kernel.log[-1] == "execute id"


def test_nothing_is_imported_once_the_root_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module would come from the context's own files; the failing path must not need one either."""
    kernel = FakeKernel({XID: Model(0, tasks=1)})
    asked: list[str] = []

    class Watcher:
        def find_spec(self, name: str, *_: object) -> None:
            if any(entry.startswith("change_root") for entry in kernel.log):
                asked.append(name)

    monkeypatch.setattr(sys, "meta_path", [Watcher(), *sys.meta_path])
    for fail_at in ("", "become 33:33", "execute id"):
        kernel.log.clear()
        play(EXISTING, kernel, fail_at=fail_at)
    assert asked == []


def test_environment_is_clean() -> None:
    made = clean_environment({"TERM": "xterm", "LD_PRELOAD": "/evil.so", "SSH_AUTH_SOCK": "/s"}, {"A": "1"})
    assert made == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "container": "cloison",
        "TERM": "xterm",
        "A": "1",
    }


def test_failure_survives_the_pipe_and_garbage_does_not() -> None:
    failure = Failure("root /x", 2, "No such file or directory", 5, 6)
    assert Failure.decode(failure.encode()) == failure
    for garbage in (b"", b"{", b"[1]", b"[1, 2, 3]"):
        with pytest.raises(ValueError, match=r"Expecting|unpack"):
            Failure.decode(garbage)
