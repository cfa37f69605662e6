# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes, places and controls: what a check says is what was seen, and a broken scene is no refusal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison_verify import runner
from cloison_verify.catalogue import Check, Control, Probe, instead, kernel_without, same_context
from cloison_verify.contexts import CompanionContexts
from cloison_verify.scene import Link, Placement, Scene, SceneError, Seen, attempt

HERE = {"xid": 0}


class MarkedContexts:
    """Contexts that only leave a mark in the process that enters."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.ended: list[int] = []

    def create(self) -> int:
        self.made.append(100 + len(self.made))
        return self.made[-1]

    def enter(self, xid: int) -> None:
        HERE["xid"] = xid

    def destroy(self, xid: int) -> None:
        self.ended.append(xid)


def where() -> Seen:
    return attempt(lambda: HERE["xid"])


def places(scene: Scene) -> Seen:
    def tell(link: Link) -> None:
        link.send(str(HERE["xid"]))

    victim, outsider = scene.victim(tell), scene.outsider(tell)
    return Seen(f"{scene.attack(where).text} {victim.link.receive()} {outsider.link.receive()}")


@pytest.mark.parametrize(
    ("placement", "seen"), [(Placement.PLAIN, "0 0 0"), (Placement.APART, "100 0 0"), (Placement.TOGETHER, "100 100 0")]
)
def test_everyone_is_in_their_place_and_nothing_stays(placement: Placement, seen: str) -> None:
    contexts = MarkedContexts()
    scene = Scene(placement, contexts)
    assert places(scene).text == seen
    pids = [actor.pid for actor in scene._actors]
    scene.close()
    assert contexts.made == contexts.ended
    assert len(contexts.made) == (placement is not Placement.PLAIN)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_attempt_tells_errors_by_name() -> None:
    assert attempt(lambda: None) == Seen("ok")
    assert attempt(lambda: 7) == Seen("7")
    assert attempt(os.stat, "/nonexistent") == Seen("ENOENT", "ENOENT")
    assert attempt(os.kill, 2**22 + 1, 0) == Seen("ESRCH", "ESRCH")


def test_an_actor_holds_no_descriptor_of_others() -> None:
    reading, writing = os.pipe()

    def descriptors() -> Seen:
        found = []
        for number in range(3, 1024):
            with contextlib.suppress(OSError):
                found.append(str(Path(f"/proc/self/fd/{number}").readlink()).split(":", 1)[0])
        return Seen(" ".join(sorted(found)))

    scene = Scene(Placement.PLAIN, MarkedContexts())
    try:
        assert scene.attack(descriptors).text == "socket"
        assert scene.attack(descriptors, keep=[writing]).text == "pipe socket"
    finally:
        scene.close()
        os.close(reading)
        os.close(writing)


def test_descriptors_travel_between_actors() -> None:
    def pass_one(link: Link) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"through")
        link.send("take", [reading])

    scene = Scene(Placement.PLAIN, MarkedContexts())
    text, descriptors = scene.victim(pass_one).link.receive_with_descriptors()
    assert (text, os.read(descriptors[0], 10)) == ("take", b"through")
    os.close(descriptors[0])
    scene.close()


def refused(scene: Scene) -> Seen:
    error = OSError(errno.ESRCH, "no such process")

    def kill() -> None:
        if HERE["xid"] and scene.placement is Placement.APART:
            raise error

    return scene.attack(lambda: attempt(kill))


def make(control: Control, probe: Probe = refused, expected: str = "ESRCH") -> Check:
    return Check("test.one", "title", "attack", (expected,), control, probe)


def plain_ok(_: Scene) -> Seen:
    return Seen("ok")


def broken_scene(scene: Scene) -> Seen:
    raise SceneError("no room")


def broken_probe(scene: Scene) -> Seen:
    Path("/nonexistent").stat()
    return Seen("ENOENT")


def broken_actor(scene: Scene) -> Seen:
    return scene.attack(lambda: Seen(str(Path("/nonexistent").stat())))


def test_a_good_check_passes_with_its_control() -> None:
    body = runner.perform(make(same_context("ok")), "main", MarkedContexts())
    assert body["status"] == "passed"
    assert body["errno"] == "ESRCH"
    assert body["control"] == {"kind": "same-context", "expected": "ok", "seen": "ok", "status": "passed"}


@pytest.mark.parametrize(
    ("check", "seen"),
    [
        (make(same_context("gone")), "ESRCH"),
        (make(instead(broken_scene, "ok", "elsewhere"), plain_ok, "ok"), "ok"),
        (make(instead(plain_ok, "ok", "as root"), plain_ok), "ok"),
        (make(instead(plain_ok, "ok", "as root"), broken_scene), "broken scene: no room"),
        (
            make(instead(plain_ok, "ok", "as root"), broken_probe, "ENOENT"),
            "broken probe: FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent'",
        ),
        (
            make(instead(plain_ok, "ok", "as root"), broken_actor, "ENOENT"),
            "broken scene: FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent'",
        ),
    ],
)
def test_what_is_not_seen_fails(check: Check, seen: str, capfd: pytest.CaptureFixture[str]) -> None:
    body = runner.perform(check, "main", MarkedContexts())
    assert (body["status"], body["seen"]) == ("failed", seen)
    capfd.readouterr()


def test_a_control_machine_wants_what_the_control_expects() -> None:
    check = make(kernel_without("ok"))
    assert runner.perform(check, "control", MarkedContexts())["status"] == "passed"
    main = runner.perform(make(kernel_without("ok"), plain_ok, "ok "), "main", MarkedContexts())
    assert main["control"] == {"kind": "kernel-without", "expected": "ok", "seen": None, "status": "elsewhere"}
    assert runner.perform(make(kernel_without("other")), "control", MarkedContexts())["status"] == "failed"


@pytest.fixture(name="socket_of_pid_1")
def fixture_socket_of_pid_1(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR)
    monkeypatch.setattr(runner, "PID1", descriptor)
    yield descriptor
    os.close(descriptor)


def no_pid_1(_: Scene) -> Seen:
    try:
        os.fstat(runner.PID1)
    except OSError:
        return Seen("closed")
    return Seen("open")


def dies(_: Scene) -> Seen:
    os.kill(os.getpid(), 9)
    return Seen("alive")


def leaves_a_child(_: Scene) -> Seen:
    if os.fork() == 0:
        import time

        time.sleep(60)
        os._exit(0)
    return Seen("ok")


@pytest.mark.parametrize(
    ("probe", "seen"),
    [
        (no_pid_1, "closed"),
        (dies, "the check's process ended with signal 9 and no answer"),
        (leaves_a_child, "ok"),
    ],
)
def test_each_check_runs_in_a_process_of_its_own(socket_of_pid_1: int, probe: Probe, seen: str) -> None:
    assert socket_of_pid_1 == runner.PID1
    check = make(instead(plain_ok, "ok", "x"), probe, "ok" if seen == "ok" else "closed")
    answer = json.loads(runner._run(check, "main", "-"))
    assert answer["seen"] == seen
    assert answer["status"] == ("passed" if seen in ("ok", "closed") else "failed")


def test_a_check_joins_its_control_group(socket_of_pid_1: int, tmp_path: Path) -> None:
    assert socket_of_pid_1 == runner.PID1
    answer = json.loads(runner._run(make(instead(plain_ok, "ok", "x"), plain_ok, "ok"), "main", str(tmp_path)))
    assert answer["status"] == "passed"
    assert int((tmp_path / "cgroup.procs").read_text(encoding="ascii")) > 1


def test_parameters_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "parameters.json"
    path.write_text('{"role": "control"}', encoding="utf-8")
    assert runner.Parameters.read(path).role == "control"
    path.write_text('{"colour": "blue"}', encoding="utf-8")
    with pytest.raises(TypeError):
        runner.Parameters.read(path)


def test_contexts_that_the_kernel_does_not_have_are_a_broken_scene() -> None:
    with pytest.raises(SceneError):
        CompanionContexts().create()
