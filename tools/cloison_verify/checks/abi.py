# SPDX-License-Identifier: GPL-2.0-or-later
"""The way in: the ``vserver`` system call, who may see it, and which words it knows."""

from __future__ import annotations

import os

from cloison_verify.catalogue import check, instead, kernel_without
from cloison_verify.scene import Scene, Seen, attempt
from cloison_verify.syscalls import capset, vserver

GET_VERSION = 0x00000000
VERSION = "0x00020308"
STRAY_BIT = 1 << 12  # bits 12 to 15 of a command word are zero in every command
NOBODY = 65534


def _version(command: int = GET_VERSION, identifier: int = 0) -> str:
    return f"0x{vserver(command, identifier):08x}"


def _as_root(scene: Scene) -> Seen:
    return scene.attack(lambda: attempt(_version))


@check(
    "abi.version",
    title="root reads the interface version",
    attack="vserver(get_version) as root",
    expected=VERSION,
    control=kernel_without("ENOSYS"),
)
def version(scene: Scene) -> Seen:
    """Ask for the version with every capability."""
    return _as_root(scene)


@check(
    "abi.version-any-id",
    title="the version does not depend on the id",
    attack="vserver(get_version, id) with ids that no context has",
    expected=f"{VERSION} {VERSION} {VERSION}",
    control=kernel_without("ENOSYS"),
)
def version_any_id(scene: Scene) -> Seen:
    """Ask for the version with ids that other commands would look up."""
    return scene.attack(lambda: attempt(lambda: " ".join(_version(identifier=number) for number in (1, 4711, -1))))


@check(
    "abi.ordinary-user",
    title="an ordinary user sees no vserver kernel",
    attack="vserver(get_version) as user nobody",
    expected="ENOSYS",
    control=instead(_as_root, VERSION, "the same call as root"),
)
def ordinary_user(scene: Scene) -> Seen:
    """Ask for the version as a user without capabilities."""

    def body() -> Seen:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return attempt(_version)

    return scene.attack(body)


@check(
    "abi.root-without-capabilities",
    title="user 0 alone is not enough",
    attack="vserver(get_version) as user 0 with empty capability sets",
    expected="ENOSYS",
    control=instead(_as_root, VERSION, "the same call with all capabilities"),
)
def root_without_capabilities(scene: Scene) -> Seen:
    """Ask for the version as user 0 that has given every capability away."""

    def body() -> Seen:
        capset(0, 0)
        return attempt(_version)

    return scene.attack(body)


@check(
    "abi.unknown-command",
    title="a word with a stray bit is no command",
    attack="vserver(get_version with bit 12 set) as root",
    expected="ENOSYS",
    control=instead(_as_root, VERSION, "the word without the stray bit"),
)
def unknown_command(scene: Scene) -> Seen:
    """Set a bit that no command word has."""
    return scene.attack(lambda: attempt(_version, GET_VERSION | STRAY_BIT))
