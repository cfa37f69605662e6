# SPDX-License-Identifier: GPL-2.0-or-later
"""IPC beyond a context: what it leaves behind, queues that have names, and keyrings that outlive sessions."""

from __future__ import annotations

import base64
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import Spaces
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.acts import answering, ask, call, expect_ready
from cloison_verify.catalogue import check, instead
from cloison_verify.scene import Scene, SceneError, Seen, attempt

IPC_CREAT, IPC_RMID, IPC_STAT = 0o1000, 0, 2
KEY_PROCESS, SETPERM, LINK, UNLINK, SEARCH, GET_PERSISTENT = -2, 5, 8, 9, 10, 22
OPEN_TO_USER = 0x3F3F0000
BUFFER = ctypes.create_string_buffer(512)

_MAKE: dict[str, Callable[[int], int]] = {
    "shm": lambda key: call("shmget", key, 4096, IPC_CREAT | 0o666),
    "sem": lambda key: call("semget", key, 1, IPC_CREAT | 0o666),
    "msg": lambda key: call("msgget", key, IPC_CREAT | 0o666),
}


def _control(kind: str, ident: int, command: int) -> None:
    """Make a call that looks at an object or removes it."""
    middle = (0,) if kind == "sem" else ()
    call(f"{kind}ctl", ident, *middle, command, ctypes.addressof(BUFFER))


def _left(kind: str, *, inside: bool) -> Callable[[Scene], Seen]:
    """Return a probe that looks for an object whose maker has ended, and its context with it."""

    def probe(scene: Scene) -> Seen:
        xid = scene.contexts.create()

        def make() -> Seen:
            if inside:
                Context(xid, Vserver()).enter()
            return Seen(str(_MAKE[kind](0x30000 + os.getpid())))

        try:
            ident = int(scene.attack(make, inside=False).text)
        finally:
            scene.contexts.destroy(xid)
        try:
            return attempt(_control, kind, ident, IPC_STAT)
        finally:
            attempt(_control, kind, ident, IPC_RMID)

    return probe


for _kind in _MAKE:
    check(
        f"ipc.{_kind}-left",
        title="in the namespace of the host, an object of System V IPC ends with its context",
        attack=f"{_kind}ctl(IPC_STAT) on the host after the end of the context",
        expected=("EINVAL", "EIDRM"),
        control=instead(_left(_kind, inside=False), "ok", "an object that a process of the host has made"),
        vectors=["I05"],
    )(_left(_kind, inside=True))


def _queues(scene: Scene, *, inside: bool, own: bool = False) -> Seen:
    """Open a message queue that exists, make another, and remove the first."""
    first, second = (ctypes.create_string_buffer(f"cloison-{os.getpid()}-{word}".encode()) for word in ("a", "b"))
    context = Context(scene.xid, Vserver())

    def made(name: ctypes.Array[ctypes.c_char], flags: int = os.O_CREAT) -> None:
        os.close(call("mq_open", ctypes.addressof(name), os.O_RDWR | flags, 0o600, 0))

    def removed(name: ctypes.Array[ctypes.c_char]) -> None:
        call("mq_unlink", ctypes.addressof(name))

    def body() -> Seen:
        if own:
            System().unshare(int(Spaces.IPC))
            made(first)
        if inside:
            context.enter()
        steps = (lambda: made(second), lambda: removed(second), lambda: removed(first))
        return Seen(", ".join(attempt(step).text for step in (lambda: made(first, 0), *steps)))

    made(first)
    try:
        return scene.attack(body, inside=False)
    finally:
        attempt(removed, first)
        attempt(removed, second)


check(
    "ipc.queues",
    title="a context that has no IPC namespace of its own uses no POSIX message queue",
    attack="mq_open of a queue of the host, mq_open of a new one, mq_unlink of both",
    expected="EACCES, EACCES, EACCES, EACCES",
    control=instead(lambda scene: _queues(scene, inside=False), "ok, ok, ok, ok", "on the host"),
    vectors=["I05"],
)(lambda scene: _queues(scene, inside=True))
check(
    "ipc.queues-own",
    title="in an IPC namespace of its own a context uses POSIX message queues",
    attack="mq_open of a queue there, mq_open of a new one, mq_unlink of both",
    expected="ok, ok, ok, ok",
    control=instead(lambda scene: _queues(scene, inside=False), "ok, ok, ok, ok", "on the host"),
    vectors=["I05"],
)(lambda scene: _queues(scene, inside=True, own=True))


def _persistent(scene: Scene, *, inside: bool) -> Seen:
    """Ask for the persistent keyring of a user for whom somebody else has asked before, and use it."""
    user = 20000 + os.getpid() % 10000
    kind, name, secret = (ctypes.create_string_buffer(word) for word in (b"user", b"cloison", b"secret"))
    words = ctypes.addressof(kind), ctypes.addressof(name)

    def ring() -> int:
        return call("keyctl", GET_PERSISTENT, user, KEY_PROCESS & 0xFFFFFFFF)

    start = scene.insider if inside else scene.outsider
    first = int(ask(expect_ready(start(answering({"ring": ring}))), "ring"))

    def operation() -> str:
        mine = ring()
        call("add_key", *words, ctypes.addressof(secret), 6, mine)
        call("keyctl", SEARCH, mine, *words, 0)
        return "the same, works" if mine == first else "another, works"

    return scene.attack(lambda: attempt(operation), inside=False)


check(
    "ipc.persistent-keyring",
    title="the host gets no persistent keyring that a context has made",
    attack="keyctl(GET_PERSISTENT) on the host, for a user for whom a member has asked before",
    expected="another, works",
    control=instead(lambda scene: _persistent(scene, inside=False), "the same, works", "asked for on the host before"),
    vectors=["I08"],
)(lambda scene: _persistent(scene, inside=True))


CERTIFICATE = base64.b64decode(
    "MIICAjCCAWugAwIBAgIUB1J0aZs2KcnKZZI62t8rhpEJPUUwDQYJKoZIhvcNAQELBQAwEjEQMA4GA1UEAwwHY2xvaXNvbjAgFw0yNjExMjMw"
    "NDM2MDBaGA8yMTI2MTAzMDA0MzYwMFowEjEQMA4GA1UEAwwHY2xvaXNvbjCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEAusm9/NDgUGuq"
    "RK3AaB48HHTH8SQgOKN2aqbUpzI/QyyaSBhfhc3CgaXHQg9ujWWob2cHtl+Gjpqg1NXor5eOvWgpq9PzJTUm2LzO0W3dfIHRfTbhhK1UuKBU"
    "YVi8Wp8Hq8XlOZBmVa8KdekFt/nszvCrS5nZ1n2z3QFWL9y9trkCAwEAAaNTMFEwHQYDVR0OBBYEFLRMZKwRadbWn3wDpjM6V3v0bB8QMB8G"
    "A1UdIwQYMBaAFLRMZKwRadbWn3wDpjM6V3v0bB8QMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADgYEATS/EBGMbmp1gMRDYEmxq"
    "mt02S+LYqRnGqu94xJee6mntgeD/lJZQOorArjN4YzN+ZAjADjVbyHBzFA+UsTi5oS/pj6G2YfUnNSTGLwf6GwCLn58wnBtPOoXyfHYMjfLZ"
    "LpIKX/0xrgyYkLsJomGmqiqIRUMaWPJH1g8txKaek0I="
)
"""An X.509 certificate that nobody has the private key of."""


def _kernel_ring(name: str) -> int:
    for row in Path("/proc/keys").read_text(encoding="ascii").splitlines():
        words = row.split()
        if words[7:9] == ["keyring", f"{name}:"]:
            return int(words[0], 16)
    raise SceneError(f"the kernel has no keyring {name}")


def _loaded(kind: bytes, payload: bytes) -> Callable[[Scene], Seen]:
    """Return a probe in which a member searches a keyring of the kernel for a key that the host has put there."""

    def probe(scene: Scene) -> Seen:
        ring = _kernel_ring(".fs-verity")
        name = f"cloison-{os.getpid()}".encode()
        texts = [ctypes.create_string_buffer(word) for word in (kind, name, payload)]
        words = [ctypes.addressof(text) for text in texts]
        key = call("add_key", *words, len(payload), KEY_PROCESS & 0xFFFFFFFF)
        call("keyctl", SETPERM, key, OPEN_TO_USER, 0, 0)
        call("keyctl", LINK, key, ring, 0, 0)

        def search() -> str:
            call("keyctl", SEARCH, ring, *words[:2], 0)
            return "found"

        try:
            return scene.attack(lambda: attempt(search), inside=True)
        finally:
            call("keyctl", UNLINK, key, ring, 0, 0)

    return probe


check(
    "ipc.public-key",
    title="the keyrings of the kernel have the host's public keys for members too, so that signatures hold",
    attack="keyctl(SEARCH) of the keyring .fs-verity inside, for a certificate that root of the host has loaded",
    expected="found",
    control=instead(_loaded(b"user", b"secret"), ("ENOKEY", "EACCES"), "a secret of the host in the same keyring"),
)(_loaded(b"asymmetric", CERTIFICATE))
