# SPDX-License-Identifier: GPL-2.0-or-later
"""What root of a context may do: bounds, context capabilities, umask, and who else in it profits."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from cloison.context import Context
from cloison.flags import BCAP_WORDS, Change, ContextCaps, Spaces
from cloison.syscall import Vserver
from cloison.system import System
from cloison_verify.acts import answering, ask, call, expect_ready
from cloison_verify.catalogue import check, instead
from cloison_verify.mounting import unshare
from cloison_verify.scene import Scene, Seen, attempt

NOTHING = ContextCaps(0)
NO_SPACES = Spaces(0)
USER = 1000
PR_SET_DUMPABLE = 4
CLONE_NEWUSER, CLONE_NEWUTS, CLONE_NEWNET, CLONE_NEWNS = 0x10000000, 0x04000000, 0x40000000, 0x00020000


def allow(scene: Scene, caps: ContextCaps = NOTHING, lacking: str = "", umask: Spaces = NO_SPACES) -> None:
    """Give the scene's context capabilities and a umask, and take `lacking` out of its bound."""
    context = Context(scene.xid, Vserver())
    if caps:
        context.set_caps(Change(int(caps), int(caps)))
    if lacking:
        context.set_bound(Change(0, BCAP_WORDS[lacking]))
    if umask:
        context.set_umask(Change(int(umask), int(umask)))


def become_user() -> None:
    """Become an ordinary user, whose own files in /proc stay its own."""
    System().become(USER, USER, ())
    call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def inside(
    operation: Callable[[], object],
    caps: ContextCaps = NOTHING,
    *,
    lacking: str = "",
    umask: Spaces = NO_SPACES,
    user: bool = False,
) -> Callable[[Scene], Seen]:
    """Return a probe that does `operation` in a context with these rights, as root or as a user."""

    def body() -> Seen:
        if user:
            become_user()
        return attempt(operation)

    def probe(scene: Scene) -> Seen:
        allow(scene, caps, lacking, umask)
        return scene.attack(body, inside=True)

    return probe


Maker = Callable[..., Callable[[Scene], Seen]]


def entering(prepare: Callable[[], object]) -> Maker:
    """Return a maker of probes as `inside`, whose attacker does `prepare` on the host before it enters."""

    def maker(
        operation: Callable[[], object], caps: ContextCaps = NOTHING, *, lacking: str = "", user: bool = False
    ) -> Callable[[Scene], Seen]:
        def probe(scene: Scene) -> Seen:
            allow(scene, caps, lacking)
            context = Context(scene.xid, Vserver())

            def body() -> Seen:
                prepare()
                context.enter()
                if user:
                    become_user()
                return attempt(operation)

            return scene.attack(body, inside=False)

        return probe

    return maker


with_own_names = entering(lambda: System().unshare(int(Spaces.UTS)))


def _set_name() -> None:
    socket.sethostname("guest")


check(
    "rights.host-name",
    title="a context without names of its own does not name the host",
    attack="sethostname with the capability set_utsname, in the host's UTS namespace",
    expected="EPERM",
    control=instead(with_own_names(_set_name, ContextCaps.SET_UTSNAME), "ok", "in a UTS namespace of its own"),
    vectors=["K08"],
)(inside(_set_name, ContextCaps.SET_UTSNAME))


def _raise_limit() -> None:
    """Lower the hard limit of open files, and raise it again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = hard - 1 if hard != resource.RLIM_INFINITY else soft
    for value in (lower, hard):
        data = ctypes.create_string_buffer(struct.pack("QQ", lower, value))
        call("prlimit64", 0, resource.RLIMIT_NOFILE, ctypes.addressof(data), 0)


def _spare_from_oom() -> None:
    Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")


def _expose_to_oom() -> None:
    """Let root raise the score of the process, below which it needs a capability to go again."""
    Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _set_login() -> None:
    """Set the login id, which is set, to another one."""
    path = Path("/proc/self/loginuid")
    path.write_text("7", encoding="ascii")
    path.write_text("8", encoding="ascii")


def attribute(name: str) -> Callable[[], None]:
    """Return an operation that sets and reads an extended attribute of a file that anybody may write."""

    def operation() -> None:
        path = Path("/run/cloison", f"attribute-{os.getpid()}")
        path.touch()
        try:
            os.setxattr(path, name, b"x")
            os.getxattr(path, name)
            os.removexattr(path, name)
        finally:
            path.unlink()

    return operation


for _name, _cap, _capability, _operation, _error, _what, _maker in (
    ("host-name", "set_utsname", "sys_admin", _set_name, "EPERM", "sethostname", with_own_names),
    ("limits", "set_rlimit", "sys_resource", _raise_limit, "EPERM", "prlimit64 above the hard limit", inside),
    ("oom", "oom_adjust", "sys_resource", _spare_from_oom, "EACCES", "oom_score_adj=0", entering(_expose_to_oom)),
    ("login", "audit_control", "audit_control", _set_login, "EPERM", "a second write to loginuid", inside),
):
    _bit = ContextCaps[_cap.upper()]
    check(
        f"rights.{_name}-bound",
        title=f"without {_cap} the bound decides",
        attack=f"{_what} as root of a context without {_capability} in its bound",
        expected=_error,
        control=instead(_maker(_operation, _bit, lacking=_capability), "ok", f"a context with {_cap}"),
        vectors=["K28", *(["P62"] if _name == "oom" else [])],
    )(_maker(_operation, lacking=_capability))
    check(
        f"rights.{_name}-user",
        title=f"{_cap} serves root of the context only",
        attack=f"{_what} as an ordinary user of a context with {_cap}",
        expected=_error,
        control=instead(_maker(_operation, _bit, lacking=_capability), "ok", "as its root"),
        vectors=["K26"],
    )(_maker(_operation, _bit, lacking=_capability, user=True))

for _name, _grant in (("trusted", ContextCaps.FS_TRUSTED), ("security", ContextCaps.FS_SECURITY)):
    _set = attribute(f"{_name}.cloison")
    check(
        f"rights.{_name}-attribute",
        title=f"attributes {_name}.* need a context capability, whatever the bound",
        attack=f"setxattr({_name}.…) as root of a context with the full bound",
        expected="EPERM",
        control=instead(
            inside(_set, _grant, lacking="sys_admin"), "ok", f"with fs_{_name}, and without sys_admin in the bound"
        ),
        vectors=["F64"],
    )(inside(_set))


def _clock() -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time())


def _adjust() -> None:
    data = ctypes.create_string_buffer(struct.pack("I4xqq", 2, 0, 0) + bytes(256))
    call("adjtimex", ctypes.addressof(data))


def _map_file() -> None:
    """Follow a link that takes CAP_CHECKPOINT_RESTORE, which Linux has had since 5.9."""
    next(Path("/proc/self/map_files").iterdir()).stat()


for _name, _what, _operation, _grant, _capability, _rows in (
    ("clock", "clock_settime", _clock, ContextCaps.GRANT_TIME, "", ["K07"]),
    ("adjust", "adjtimex", _adjust, ContextCaps.GRANT_TIME, "", ["K07"]),
    ("later", "stat(/proc/self/map_files/…)", _map_file, ContextCaps.GRANT_CHECKPOINT, "sys_admin", ["K25"]),
):
    check(
        f"rights.{_name}",
        title=f"{_what} takes a grant, although the bound has the capability",
        attack=f"{_what} as root of a context",
        expected="EPERM",
        control=instead(inside(_operation, _grant, lacking=_capability), "ok", "a context with the grant"),
        vectors=_rows,
    )(inside(_operation, lacking=_capability))


def _unshare(*steps: int) -> Callable[[], None]:
    def operation() -> None:
        for flags in steps:
            unshare(flags)

    return operation


def _clone() -> None:
    """Make a child in a UTS namespace of its own by clone3, whose flags come with an exit signal."""
    data = ctypes.create_string_buffer(struct.pack("QQQQQQQQ", CLONE_NEWUTS, 0, 0, 0, 17, 0, 0, 0))
    pid = call("clone3", ctypes.addressof(data), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


for _name, _title, _operation, _capability, _umask, _rows in (
    ("user-namespace", "a context makes no user namespace", _unshare(CLONE_NEWUSER), "", Spaces.USER, ["K13"]),
    ("net-namespace", "a context makes no network of its own", _unshare(CLONE_NEWNET), "", Spaces.NET, ["K14"]),
    ("unshare", "without umask the bound decides", _unshare(CLONE_NEWUTS), "sys_admin", Spaces.UTS, ["K28"]),
    ("clone", "the same for clone", _clone, "sys_admin", Spaces.UTS, ["K28"]),
):
    check(
        f"rights.{_name}",
        title=_title,
        attack="unshare or clone3 as root of a context",
        expected="EPERM",
        control=instead(inside(_operation, lacking=_capability, umask=_umask), "ok", "with a umask that has it"),
        vectors=_rows,
    )(inside(_operation, lacking=_capability))

check(
    "rights.namespace-owner",
    title="the owner of a user namespace has no capability in it that the bound lacks",
    attack="unshare(NEWUSER), which the umask has, then unshare(NEWNS), which it has not",
    expected="EPERM",
    control=instead(inside(_unshare(CLONE_NEWUSER, CLONE_NEWNS), umask=Spaces.USER), "ok", "with the full bound"),
    vectors=["K13"],
)(inside(_unshare(CLONE_NEWUSER, CLONE_NEWNS), lacking="sys_admin", umask=Spaces.USER))
check(
    "rights.namespaces-at-once",
    title="the umask holds for namespaces that come with a user namespace of their own",
    attack="unshare(NEWUSER | NEWNS), of which the umask has the first only, without sys_admin in the bound",
    expected="EPERM",
    control=instead(
        inside(_unshare(CLONE_NEWUSER | CLONE_NEWNS), lacking="sys_admin", umask=Spaces.USER | Spaces.MOUNT),
        "ok",
        "with a umask that has both",
    ),
    vectors=["K13"],
)(inside(_unshare(CLONE_NEWUSER | CLONE_NEWNS), lacking="sys_admin", umask=Spaces.USER))
check(
    "rights.umask-user",
    title="the umask serves root of the context only",
    attack="unshare(NEWUTS), which the umask has, as an ordinary user",
    expected="EPERM",
    control=instead(inside(_unshare(CLONE_NEWUTS), umask=Spaces.UTS), "ok", "as root"),
    vectors=["K26"],
)(inside(_unshare(CLONE_NEWUTS), umask=Spaces.UTS, user=True))


def _raw_socket() -> str:
    def operation() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    return attempt(operation).text


def _changing(scene: Scene, *, change: bool) -> Seen:
    """Ask a member three times for a raw socket; the host narrows the bound, and widens it, in between."""
    context = Context(scene.xid, Vserver())
    bit = BCAP_WORDS["net_raw"]
    member = expect_ready(scene.insider(answering({"try": _raw_socket})))
    seen = [ask(member, "try")]
    for value in (0, bit):
        if change:
            context.set_bound(Change(value, bit))
        seen.append(ask(member, "try"))
    return Seen(", ".join(seen))


check(
    "rights.revoked",
    title="the host takes a capability from a running process, and gives it back",
    attack="socket(SOCK_RAW) by one member before, while and after the bound lacks net_raw",
    expected="ok, EPERM, ok",
    control=instead(lambda scene: _changing(scene, change=False), "ok, ok, ok", "the bound stays"),
    vectors=["K28"],
)(lambda scene: _changing(scene, change=True))


def _words(scene: Scene, *, host: bool) -> Seen:
    """Set and read umask and wmask, from the host or from a sealed context."""
    context = Context(scene.xid, Vserver())

    def operation() -> str:
        context.set_umask(Change(int(Spaces.UTS | Spaces.IPC), int(Spaces.UTS | Spaces.IPC)))
        context.set_umask(Change(0, int(Spaces.IPC)))
        context.set_wmask(Change(6, 7))
        return f"{int(context.umask()):x} {context.wmask():x}"

    return scene.attack(lambda: attempt(operation), inside=not host)


check(
    "rights.own-words",
    title="a context does not change its own umask",
    attack="set_umask with the own id, as root of a sealed context",
    expected="EPERM",
    control=instead(lambda scene: _words(scene, host=True), "4000000 6", "the same on the host"),
    vectors=["K20"],
)(lambda scene: _words(scene, host=False))
