# SPDX-License-Identifier: GPL-2.0-or-later
"""The system call's number on each architecture, and its errors."""

from __future__ import annotations

import errno

import pytest

from cloison import abi
from cloison.abi import Command
from cloison.context import Context
from cloison.syscall import (
    AddressError,
    BusyError,
    ExistsError,
    InvalidError,
    NoSuchContextError,
    NotPermittedError,
    NotSupportedError,
    SealedError,
    Vserver,
    VserverError,
    number,
)


@pytest.mark.parametrize(
    ("machine", "bits", "expected"),
    [
        ("x86_64", 64, 236),
        ("x86_64", 32, 273),
        ("i686", 32, 273),
        ("aarch64", 64, 250),
        ("aarch64", 32, 313),
        ("riscv64", 64, 250),
        ("s390x", 64, 263),
        ("ppc64le", 64, 257),
    ],
)
def test_number(machine: str, bits: int, expected: int) -> None:
    assert number(machine, bits) == expected


def test_number_of_an_unknown_machine() -> None:
    with pytest.raises(NotImplementedError, match="pdp11"):
        number("pdp11", 32)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSYS, NotSupportedError),
        (errno.EPERM, NotPermittedError),
        (errno.ESRCH, NoSuchContextError),
        (errno.EACCES, SealedError),
        (errno.EEXIST, ExistsError),
        (errno.EBUSY, BusyError),
        (errno.EFAULT, AddressError),
    ],
)
def test_each_errno_has_its_type(code: int, kind: type[VserverError]) -> None:
    with pytest.raises(kind) as caught:
        Vserver(lambda *_: -code).call(Command.VX_INFO, 7, abi.VxInfo())
    assert type(caught.value) is kind
    assert caught.value.errno == code
    assert "vx_info of 7" in str(caught.value)


def test_an_errno_without_a_type_is_still_an_oserror() -> None:
    with pytest.raises(OSError, match="vx_info of 7") as caught:
        Vserver(lambda *_: -errno.ENOMEM).call(Command.VX_INFO, 7, abi.VxInfo())
    assert caught.value.errno == errno.ENOMEM


def test_an_errno_means_to_a_command_what_the_kernel_says() -> None:
    with pytest.raises(InvalidError, match="shares memory") as caught:
        Vserver(lambda *_: -errno.EINVAL).call(Command.CTX_MIGRATE, 7)
    assert caught.value.reason.startswith("the caller shares")
    with pytest.raises(InvalidError, match="vx_info of 7: invalid argument"):
        Vserver(lambda *_: -errno.EINVAL).call(Command.VX_INFO, 7)


def test_the_real_call_reaches_the_kernel() -> None:
    """On a kernel without contexts the slot answers ENOSYS; a kernel with them answers its version."""
    try:
        answer = Vserver().version()
    except NotSupportedError:
        answer = abi.INTERFACE_VERSION
    assert answer == abi.INTERFACE_VERSION


def test_words_are_built_from_their_parts() -> None:
    assert abi.word(46, 5, 0) == int(Command.VX_INFO) == 0x2E050000
    for bad in ((64, 0, 0), (0, 256, 0), (0, 0, 4096), (-1, 0, 0)):
        with pytest.raises(ValueError, match="no command word"):
            abi.word(*bad)


def test_context_passes_what_it_is_given() -> None:
    seen: list[tuple[int, int, bytes]] = []

    def raw(command: int, ident: int, data: object) -> int:
        assert isinstance(data, abi.CtxKill)
        seen.append((command, ident, bytes(data)))
        return 0

    Context(300, Vserver(raw)).kill(15, -1)
    assert seen == [(0x0C010000, 300, (-1).to_bytes(4, "little", signed=True) + (15).to_bytes(4, "little"))]
