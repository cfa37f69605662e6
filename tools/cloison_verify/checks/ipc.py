# SPDX-License-Identifier: GPL-2.0-or-later
"""System V objects and keys, which users own: another context's root is another user here."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Spaces
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.acts import answering, ask, call, expect_ready, victim
from cloison_verify.catalogue import check, instead, same_context
from cloison_verify.checks.rights import become_user
from cloison_verify.places import unhidden
from cloison_verify.scene import Scene, Seen, attempt

IPC_CREAT, IPC_RMID, IPC_STAT = 0o1000, 0, 2
SHM_RDONLY, SHM_STAT_ANY, GETVAL = 0o10000, 15, 12
KEY_SESSION, KEY_USER, KEY_USER_SESSION, KEY_PROCESS = -3, -4, -5, -2
JOIN, SETPERM, SEARCH, READ = 1, 5, 10, 11
OPEN_TO_USER = 0x3F3F0000
BUFFER = ctypes.create_string_buffer(512)


def _do(name: str, *arguments: int) -> None:
    """Make a system call whose result tells nothing."""
    call(name, *arguments)


def _text(words: bytes) -> int:
    """Return the address of a text that stays."""
    _KEPT.append(ctypes.create_string_buffer(words))
    return ctypes.addressof(_KEPT[-1])


_KEPT: list[ctypes.Array[ctypes.c_char]] = []
_MAKE: dict[str, Callable[[int], int]] = {
    "shm": lambda key: call("shmget", key, 4096, IPC_CREAT | 0o666),
    "sem": lambda key: call("semget", key, 1, IPC_CREAT | 0o666),
    "msg": lambda key: call("msgget", key, IPC_CREAT | 0o666),
}
_REMOVE: dict[str, Callable[[int], object]] = {
    "shm": lambda ident: _do("shmctl", ident, IPC_RMID, 0),
    "sem": lambda ident: _do("semctl", ident, 0, IPC_RMID, 0),
    "msg": lambda ident: _do("msgctl", ident, IPC_RMID, 0),
}


def _attach(ident: int, _key: int) -> None:
    call("shmat", ident, 0, SHM_RDONLY)


def _operate(ident: int, _key: int) -> None:
    operation = ctypes.create_string_buffer(struct.pack("Hhh", 0, 1, 0))
    call("semop", ident, ctypes.addressof(operation), 1)


def _remove(kind: str) -> Callable[[int, int], object]:
    return lambda ident, _key: _REMOVE[kind](ident)


def _address() -> int:
    return ctypes.addressof(BUFFER)


def _object(kind: str, operation: Callable[[int, int], object]) -> Callable[[Scene], Seen]:
    """Return a probe that attacks an object of the victim; the host removes it in the end."""

    def probe(scene: Scene) -> Seen:
        key = 0x10000 + os.getpid()
        aim = victim(scene, {"make": lambda: _MAKE[kind](key)})
        ident = int(ask(aim, "make"))
        try:
            return scene.attack(lambda: attempt(operation, ident, key))
        finally:
            attempt(_REMOVE[kind], ident)

    return probe


for _name, _kind, _attack, _operation, _rows in (
    ("shm-key", "shm", "shmget of its key", lambda _i, key: _do("shmget", key, 0, 0), ["I01"]),
    ("shm-attach", "shm", "shmat", _attach, ["I01"]),
    ("shm-stat", "shm", "shmctl(IPC_STAT)", lambda i, _k: _do("shmctl", i, IPC_STAT, _address()), ["I01"]),
    ("shm-remove", "shm", "shmctl(IPC_RMID)", _remove("shm"), ["I05"]),
    ("sem-value", "sem", "semctl(GETVAL)", lambda i, _k: _do("semctl", i, 0, GETVAL, 0), ["I02"]),
    ("sem-operation", "sem", "semop", _operate, ["I02"]),
    ("sem-remove", "sem", "semctl(IPC_RMID)", _remove("sem"), ["I02", "I05"]),
    ("msg-stat", "msg", "msgctl(IPC_STAT)", lambda i, _k: _do("msgctl", i, IPC_STAT, _address()), ["I05"]),
    ("msg-remove", "msg", "msgctl(IPC_RMID)", _remove("msg"), ["I05"]),
):
    check(
        f"ipc.{_name}",
        title="an object of System V IPC is its context's, in a namespace that is shared",
        attack=f"{_attack} of an object made outside",
        expected=("EACCES", "EINVAL", "ENOENT"),
        control=same_context("ok"),
        vectors=_rows,
    )(_object(_kind, _operation))


def _any(ident: int, _key: int) -> str:
    """Look for the segment by index, as ipcs does."""
    for index in range(64):
        seen = attempt(call, "shmctl", index, SHM_STAT_ANY, _address())
        if seen.text == str(ident):
            return "listed"
    return "not listed"


check(
    "ipc.shm-list",
    title="a listing by index does not show segments of others",
    attack="shmctl(SHM_STAT_ANY) over all indices",
    expected="not listed",
    control=same_context("listed"),
    vectors=["I04"],
)(_object("shm", _any))


def _own_namespace(scene: Scene, *, own: bool) -> Seen:
    """List segments in an IPC namespace of the context's own, or in the host's."""
    ident = _MAKE["shm"](0x20000 + os.getpid())
    context = Context(scene.xid, Vserver())

    def body() -> Seen:
        if own:
            System().unshare(int(Spaces.IPC))
            context.enter()
        rows = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
        return Seen("listed" if any(int(row.split()[1]) == ident for row in rows) else "not listed")

    try:
        return scene.attack(body, inside=False)
    finally:
        _REMOVE["shm"](ident)


check(
    "ipc.namespace",
    title="in an IPC namespace of its own a context sees its own objects",
    attack="/proc/sysvipc/shm in a context with a namespace of its own",
    expected="not listed",
    control=instead(lambda scene: _own_namespace(scene, own=False), "listed", "the same file on the host"),
    vectors=["I04"],
)(lambda scene: _own_namespace(scene, own=True))


# Keys.


def _add(description: bytes, ring: int) -> int:
    return call("add_key", _text(b"user"), _text(description), _text(b"secret"), 6, ring & 0xFFFFFFFF)


def _search(ring: int, description: bytes) -> str:
    call("keyctl", SEARCH, ring & 0xFFFFFFFF, _text(b"user"), _text(description), 0)
    return "found"


def _description() -> bytes:
    return f"cloison-{os.getpid()}".encode()


def _in_ring(ring: int) -> Callable[[Scene], Seen]:
    """Return a probe in which the victim keeps a key in the keyring that the attacker searches."""

    def probe(scene: Scene) -> Seen:
        name = _description()
        aim = victim(scene, {"add": lambda: _add(name, ring)})
        ask(aim, "add")
        return scene.attack(lambda: attempt(_search, ring, name))

    return probe


for _title, _ring in (("user keyring", KEY_USER), ("user session keyring", KEY_USER_SESSION)):
    check(
        f"ipc.{_title.replace(' ', '-')}",
        title=f"a context has a {_title} of its own",
        attack=f"keyctl(SEARCH) of the {_title} of user 0, in which user 0 outside keeps a key",
        expected=("ENOKEY", "EACCES"),
        control=same_context("found"),
        vectors=["I08"],
    )(_in_ring(_ring))


@check(
    "ipc.key-number",
    title="a key outside is neither read by its number nor listed",
    attack="keyctl(READ) of a guessed number, and /proc/keys",
    expected=("ENOKEY, not listed", "EACCES, not listed"),
    control=same_context("6, listed"),
    vectors=["I10"],
)
def key_number(scene: Scene) -> Seen:
    """Read a key that user 0 outside has in its user keyring."""
    name = _description()
    aim = victim(scene, {"add": lambda: _add(name, KEY_USER)})
    number = int(ask(aim, "add"))

    def body() -> Seen:
        read = attempt(call, "keyctl", READ, number, _address(), 64, 0)
        listed = f"{number:08x}" in Path("/proc/keys").read_text(encoding="ascii")
        return Seen(f"{read.text}, {'listed' if listed else 'not listed'}")

    with unhidden("/proc/keys"):
        return scene.attack(body)


@check(
    "ipc.named-keyring",
    title="a session keyring outside is not joined by its name",
    attack="keyctl(JOIN_SESSION_KEYRING) with the name of one that is open to user 0",
    expected=("ENOKEY", "EACCES"),
    control=same_context("found"),
    vectors=["I11"],
)
def named_keyring(scene: Scene) -> Seen:
    """Join a keyring and search it for a key."""
    name = _description()

    def make() -> int:
        ring = call("keyctl", JOIN, _text(name), 0, 0, 0)
        call("keyctl", SETPERM, ring, OPEN_TO_USER, 0, 0)
        return _add(name, KEY_SESSION)

    ask(victim(scene, {"make": make}), "make")

    def operation() -> str:
        call("keyctl", JOIN, _text(name), 0, 0, 0)
        return _search(KEY_SESSION, name)

    return scene.attack(lambda: attempt(operation))


def _planted(scene: Scene, *, inside: bool) -> Seen:
    """Let the host join a keyring that somebody has given a name and filled."""
    name = _description()

    def make() -> int:
        ring = call("keyctl", JOIN, _text(name), 0, 0, 0)
        call("keyctl", SETPERM, ring, OPEN_TO_USER, 0, 0)
        return _add(name, KEY_SESSION)

    def operation() -> str:
        call("keyctl", JOIN, _text(name), 0, 0, 0)
        return _search(KEY_SESSION, name)

    start = scene.insider if inside else scene.outsider
    ask(expect_ready(start(answering({"make": make}))), "make")
    return scene.attack(lambda: attempt(operation), inside=False)


check(
    "ipc.planted-keyring",
    title="the host joins no session keyring that a context has named",
    attack="keyctl(JOIN_SESSION_KEYRING) on the host, with a name that a member has taken",
    expected=("ENOKEY", "EACCES"),
    control=instead(lambda scene: _planted(scene, inside=False), "found", "a keyring of the host"),
    vectors=["I11"],
)(lambda scene: _planted(scene, inside=True))


def _kept_session(scene: Scene, *, enter: bool) -> Seen:
    """Search the session keyring that a process had before it entered, and use the one that it has then."""
    name = _description()
    context = Context(scene.xid, Vserver())

    def use() -> str:
        _add(b"own", KEY_SESSION)
        return _search(KEY_SESSION, b"own")

    def body() -> Seen:
        call("keyctl", JOIN, 0, 0, 0, 0)
        _add(name, KEY_SESSION)
        if enter:
            context.enter()
        return Seen(", ".join(attempt(step).text for step in (lambda: _search(KEY_SESSION, name), use)))

    return scene.attack(body, inside=False)


check(
    "ipc.session-keyring",
    title="who enters a context leaves the session keyring behind, and has one inside",
    attack="keyctl(SEARCH) of the session keyring, joined on the host before",
    expected=("ENOKEY, found", "EACCES, found"),
    control=instead(lambda scene: _kept_session(scene, enter=False), "found, found", "without entering"),
    vectors=["I08"],
)(lambda scene: _kept_session(scene, enter=True))


def _fill() -> str:
    """Use up the quota of an ordinary user."""
    become_user()
    count = 0
    while count < 5000 and attempt(_add, f"fill-{count}".encode(), KEY_PROCESS).errno is None:
        count += 1
    return "full"


@check(
    "ipc.key-quota",
    title="the quota of keys is the context's",
    attack="add_key as user 1000, whose quota is used up outside",
    expected="ok",
    control=same_context("EDQUOT"),
    vectors=["I14"],
    seconds=60,
)
def key_quota(scene: Scene) -> Seen:
    """Add a key where another process of the same user can add none."""
    ask(victim(scene, {"fill": _fill}), "fill")

    def body() -> Seen:
        become_user()
        return attempt(lambda: _add(b"mine", KEY_PROCESS) and None)

    return scene.attack(body)


def _upcall(scene: Scene, *, inside: bool) -> Seen:
    """Ask for a key that does not exist, with information for a helper of the host."""
    mark, helper = Path(f"/run/cloison/upcall-{os.getpid()}"), Path("/sbin/request-key")
    helper.write_text(f"#!/bin/sh\n: > {mark}\n", encoding="ascii")
    helper.chmod(0o700)

    def body() -> Seen:
        call("keyctl", JOIN, 0, 0, 0, 0)
        attempt(call, "request_key", _text(b"user"), _text(_description()), _text(b"callout"), 0)
        return Seen("helper" if mark.exists() else "no helper")

    try:
        return scene.attack(body, inside=inside)
    finally:
        helper.unlink()
        mark.unlink(missing_ok=True)


check(
    "ipc.upcall",
    title="no helper of the host makes keys for a context",
    attack="request_key with callout information",
    expected="no helper",
    control=instead(lambda scene: _upcall(scene, inside=False), "helper", "the same on the host"),
    vectors=["I13", "F53"],
)(lambda scene: _upcall(scene, inside=True))
