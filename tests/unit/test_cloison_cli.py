# SPDX-License-Identifier: GPL-2.0-or-later
"""The command, the registry of names and the life of a context, against a fake kernel."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cloison_fakes import FakeKernel, Model

from cloison import cli, lifecycle, procfs, supervise
from cloison.abi import Command
from cloison.context import Context
from cloison.errors import CloisonError, Exit
from cloison.flags import ONE_TIME, ContextFlags, Spaces
from cloison.names import Registry
from cloison.parser import COMMANDS, parse_arguments
from cloison.syscall import Vserver

P = int(ContextFlags.PERSISTENT)


class Bench:
    """The command on a fake kernel; forks are replaced by plain calls, which the fake survives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.kernel = FakeKernel()
        self.registry = Registry(folder)
        self._capsys = capsys
        monkeypatch.setattr(supervise, "in_child", self._in_child)
        monkeypatch.setattr(lifecycle.create_persistent, "__kwdefaults__", {"in_child": self._in_child})
        monkeypatch.setattr(procfs, "contexts", lambda: sorted(self.kernel.contexts))

    def _in_child(self, action: Callable[[], bytes]) -> bytes:
        before = set(self.kernel.contexts)
        answer = action()
        for xid in set(self.kernel.contexts) - before:
            self.kernel.contexts[xid].tasks = 0
        self.kernel._reap()
        return answer

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = cli.main(argv, kernel=self.kernel.vserver(), registry=self.registry)
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path / "run", monkeypatch, capsys)


def test_create_list_show_remove(bench: Bench) -> None:
    assert bench("create", "web", "--flags", "virt_uptime", "--bound", "~sys_admin", "--json", "--umask", "ipc") == (
        0,
        '{\n  "name": "web",\n  "xid": 100\n}\n',
        "",
    )
    made = bench.kernel.contexts[100]
    assert ContextFlags(made.flags) == (
        ContextFlags.PERSISTENT | ContextFlags.VIRT_UPTIME | ONE_TIME & ~ContextFlags.STATE_SETUP
    )
    assert made.umask == int(Spaces.IPC)
    assert bench("create", "db", "--xid", "7")[0] == 0
    status, out, _ = bench("list")
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["XID", "NAME", "TASKS", "INIT", "HOLDS"],
        ["7", "db", "0", "-", "p"],
        ["100", "web", "0", "-", "p"],
    ]
    shown = json.loads(bench("show", "web", "--json")[1])
    assert shown["xid"] == 100
    assert "sys_admin" not in shown["bound"]
    assert len(shown["bound"]) == 63
    assert "all but sys_admin" in bench("show", "100")[1]
    assert bench("remove", "web") == (0, "", "")
    assert sorted(bench.kernel.contexts) == [7]
    assert bench.registry.all() == {"db": 7}


def test_a_taken_number_is_passed_over(bench: Bench) -> None:
    bench.kernel.contexts = {100: Model(P), 101: Model(P, tasks=1)}
    assert bench("create", "web")[1] == "web  102\n"
    status, _, err = bench("create", "--xid", "101")
    assert status == 1
    assert err == "cloison: 101: the id is in use\n  hint: choose another --xid, or leave it out\n"


def test_a_name_is_given_once_and_again_when_its_context_has_ended(bench: Bench) -> None:
    bench("create", "web")
    status, _, err = bench("create", "web")
    assert (status, "already called 'web'" in err) == (1, True)
    bench.kernel.contexts.clear()
    assert bench("create", "web")[0] == 0


def test_a_stale_name_is_forgotten(bench: Bench) -> None:
    bench("create", "web")
    bench.kernel.contexts.clear()
    assert bench("show", "web")[0] == Exit.ABSENT
    assert bench.registry.all() == {}


def test_a_name_does_not_lead_into_another_s_context(bench: Bench) -> None:
    bench("create", "web")
    bench.kernel.contexts = {100: Model(P, tasks=1, name=b"other")}
    status, _, err = bench("kill", "web")
    assert status == Exit.ABSENT
    assert "has ended" in err
    assert bench.kernel.killed == []


def test_remove_leaves_a_busy_context_alone(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P, tasks=2)}
    status, _, err = bench("remove", "9")
    assert (status, err.splitlines()[0]) == (1, "cloison: context 9 still has 2 tasks")
    assert bench.kernel.killed == []


def test_remove_by_force_asks_first_and_kills_until_nothing_is_left(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P, tasks=3)}

    def lose_one(model: Model, sig: int) -> None:
        model.tasks -= sig == signal.SIGKILL

    bench.kernel.on_kill = lose_one
    assert bench("remove", "9", "--force", "--grace", "0.05")[0] == 0
    assert [sig for _, _, sig in bench.kernel.killed] == [15, 9, 9, 9]
    assert bench.kernel.contexts == {}


@pytest.mark.parametrize(
    ("words", "killed"),
    [
        ((), (9, 0, 15)),
        (("-s", "HUP"), (9, 0, 1)),
        (("-s", "SIGKILL", "--init"), (9, 1, 9)),
        (("-s", "0", "--all-but-init"), (9, -1, 0)),
        (("4711",), (9, 4711, 15)),
    ],
)
def test_kill(bench: Bench, words: tuple[str, ...], killed: tuple[int, int, int]) -> None:
    bench.kernel.contexts = {9: Model(P, tasks=3)}
    assert bench("kill", "9", *words)[0] == 0
    assert bench.kernel.killed == [killed]


def test_kill_with_nothing_there(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P)}
    status, _, err = bench("kill", "9")
    assert (status, err) == (1, "cloison: 9: no process to signal in this context\n")


def test_wait_says_how_it_ended(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P)}
    assert bench("wait", "9")[:2] == (0, "ended: last process exited with 3\n")


def test_wait_gives_up() -> None:
    calls = iter([-errno.EINTR, -errno.EINTR, -errno.EINTR])

    def sleeping(*_: object) -> int:
        signal.sigtimedwait([], 0.05)
        return next(calls)

    with pytest.raises(CloisonError, match=r"did not end within 0\.02 s") as caught:
        lifecycle.wait(Context(9, Vserver(sleeping)), 0.02)
    assert caught.value.status == Exit.TIMEOUT
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_flags(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P | int(ContextFlags.STATE_ADMIN))}
    assert bench("flags", "9", "private,~state_admin")[:2] == (0, "private, persistent\n")
    status, _, err = bench("flags", "9", "state_admin")
    assert (status, "cannot be set again" in err) == (1, True)
    assert bench("flags", "9", "~persistent")[:2] == (0, "the context has ended\n")


def test_caps(bench: Bench) -> None:
    bench.kernel.contexts = {9: Model(P)}
    out = bench("caps", "9", "--caps", "set_utsname,grant_io_uring", "--bound", "none,chown")[1]
    assert out.split("\n")[:2] == ["caps   set_utsname, grant_io_uring", "bound  chown"]
    assert out.split("\n")[2:] == ["umask  none", "idle   none", ""]
    out = bench("caps", "9", "--bound", "sys_time,bpf,syslog", "--caps", "grant_bpf", "--umask", "mount,uts", "--json")[
        1
    ]
    assert json.loads(out) == {
        "caps": ["set_utsname", "grant_io_uring", "grant_bpf"],
        "bound": ["chown", "sys_time", "syslog", "bpf"],
        "umask": ["mount", "uts"],
        "idle": ["sys_time", "syslog"],
    }
    bench("caps", "9", "--umask", "all,~user")
    assert bench.kernel.contexts[9].umask == 0x6E020080
    status, _, err = bench("caps", "9", "--umask", "fs")
    assert (status, "no flag is called 'fs'" in err) == (2, True)
    bench.kernel.refuse[Command.GET_BCAPS] = errno.ENOSYS
    assert "(not offered by this kernel)" in bench("caps", "9")[1]


@pytest.mark.parametrize(
    ("argv", "status", "text"),
    [
        ((), 2, "required: COMMAND"),
        (("frobnicate",), 2, "invalid choice"),
        (("show",), 2, "required: CONTEXT"),
        (("show", "1"), 2, "1 is no context id"),
        (("show", "70000"), 2, "70000 is no context id"),
        (("show", "500"), 3, "500: no such context"),
        (("show", "nobody"), 3, "no context is called 'nobody'"),
        (("show", "../etc"), 2, "is no name"),
        (("create", "9lives"), 2, "is no name"),
        (("create", "--xid", "1"), 2, "1 is no context id"),
        (("create", "--flags", "bogus"), 2, "no flag is called 'bogus'"),
        (("kill", "9", "-s", "FOO"), 2, "no signal is called 'FOO'"),
        (("kill", "9", "--init", "77"), 2, "exclude each other"),
        (("kill", "9", "1"), 2, "at least 2"),
        (("exec", "9"), 2, "no command is given"),
        (("exec", "9", "--user", "root", "--", "id"), 2, "is not UID"),
        (("exec", "nobody", "--", "id"), 3, "no context is called"),
        (("remove", "9", "--grace", "-1"), 2, "number of seconds"),
    ],
)
def test_bad_input_is_one_line_and_at_most_one_hint(
    bench: Bench, argv: tuple[str, ...], status: int, text: str
) -> None:
    seen, out, err = bench(*argv)
    assert (seen, out) == (status, "")
    assert text in err
    assert len(err.splitlines()) <= 2
    assert err.startswith("cloison: ")


@pytest.mark.parametrize("command", [Command.GET_VERSION, Command.VX_INFO])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_refuses_is_explained(bench: Bench, command: Command, code: int) -> None:
    bench.kernel.refuse[command] = code
    argv = ("list",) if command is Command.GET_VERSION else ("show", "9")
    status, _, err = bench(*argv)
    assert status == 1
    assert len(err.splitlines()) == 2


def test_run_in_a_context_of_its_own_retries_a_taken_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def run(_launch: object, context: Context, *, own_terminal: bool) -> int:
        tried.append(context.xid)
        if len(tried) == 1:
            raise supervise.failure_of(b'["create the context", 17, "taken", 151060481, 100]')
        assert bench.registry.all() == {"job": context.xid}
        return 6

    monkeypatch.setattr(supervise, "run", run)
    assert bench("run", "--name", "job", "--", "true")[0] == 6
    assert tried == [100, 101]
    assert bench.registry.all() == {}


@pytest.mark.parametrize(
    ("given", "context", "command"),
    [
        ("exec web ls -l", "web", "ls -l"),
        ("exec -u 3 web ls -u 4", "web", "ls -u 4"),
        ("exec web --user 3 -- ls", "web", "ls"),
        ("exec web --root / ls --root", "web", "ls --root"),
        ("exec web -- a -- b", "web", "a -- b"),
        ("exec web a -- b", "web", "a -- b"),
        ("enter web", "web", ""),
        ("enter web --root /x -- bash -l", "web", "bash -l"),
    ],
)
def test_where_the_command_begins(given: str, context: str, command: str) -> None:
    args = parse_arguments(given.split())
    assert args.context == context
    assert args.argv == command.split()


def test_options_may_stand_anywhere() -> None:
    for given in ("kill web -s HUP 7 8", "kill -s HUP web 7 8", "kill web 7 8 -s HUP"):
        args = parse_arguments(given.split())
        assert (args.context, args.signal, args.pids) == ("web", 1, [7, 8])
    assert parse_arguments(["flags", "web", "--json", "private"]).json


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_teaches_by_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([name, "--help"])
    assert ended.value.code == 0
    assert "examples:" in capsys.readouterr().out
    assert COMMANDS[name].examples
    for line, _ in COMMANDS[name].examples:
        words = line.replace("tar c . | ", "").replace("'", "").split()
        assert words[0] == "cloison"
        assert parse_arguments(words[1:]).command == name


def test_registry_survives_foreign_files(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with registry.locked():
        registry.register("web", 100)
        registry.register("www", 100)
    (tmp_path / "names" / "broken").write_text("many", encoding="ascii")
    (tmp_path / "names" / ".hidden").write_text("5", encoding="ascii")
    assert registry.all() == {"www": 100}
    with pytest.raises(CloisonError, match="cannot be read"):
        registry.lookup("broken")
