# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of ``cloison``: every subcommand with its options, and help that teaches."""

from __future__ import annotations

import argparse
import signal
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cloison import __version__, attribute_commands, cli_tags, devices, unify
from cloison.errors import CloisonError, Exit
from cloison.flags import (
    BCAP_WORDS,
    CCAP_WORDS,
    CONTEXT_WORDS,
    SPACE_WORDS,
    UMASK_WORDS,
    WORD64,
    Change,
    Spaces,
    parse,
)

INTRODUCTION = """\
cloison keeps the processes of a Linux host apart in security contexts. A process in a context,
with user 0 and every capability that the context leaves, can neither see, signal, trace, schedule
nor limit a process outside. Contexts have a number, the xid (2 to 65535), and here also a name.
"""
EXAMPLES = """\
examples:
  cloison create web                     an empty context that stays until it is removed
  cloison exec web -- nginx -g 'daemon off;'
  cloison enter web                      a shell in it, on a terminal of its own
  cloison list                           all contexts
  cloison ps web                         the processes of one (the host's ps does not show them)
  cloison kill web -s HUP                signal everything in it
  cloison remove web --force             end it
  cloison run -- make test               a context for one command, gone when the last process ends

exit statuses: 0 good, 1 failed, 2 usage, 3 no such context, 4 timed out.
exec, enter and run return the command's own status (128 + n when signal n killed it), or 125 when
cloison failed, 126 when the command cannot be run, 127 when it is not found.
'cloison COMMAND --help' explains one command.
"""


@dataclass(frozen=True)
class Help:
    """What `--help` and the manual say of a subcommand."""

    name: str
    brief: str
    text: str
    examples: tuple[tuple[str, str], ...]


COMMANDS: dict[str, Help] = {
    help_.name: help_
    for help_ in (
        Help(
            "create",
            "make an empty context that lasts until it is removed",
            "The context keeps existing without processes. Without --xid a free number is chosen. Everything is set"
            " and the context is sealed before the command returns, so nothing ever runs in a half-made context.",
            (
                ("cloison create web", "choose a number, give it the name web"),
                ("cloison create db --xid 200 --flags virt_uptime", "a number and flags of your own"),
                ("cloison create ci --bound all,~sys_admin,~net_raw", "bound what root in it may do"),
            ),
        ),
        Help(
            "run",
            "run a command in a context of its own",
            "Makes a context, runs the command in it and waits for it. The context ends with its last process."
            " With --init the command is the context's init: it sees itself as pid 1 and inherits orphans.",
            (
                ("cloison run -- sleep 60", "a context for one command"),
                ("cloison run --init --root /srv/guest --unshare mount,uts,ipc -- /sbin/init", "a whole guest"),
                ("cloison run --name job --user 1000:1000 -- ./build.sh", "as an ordinary user"),
            ),
        ),
        Help(
            "list",
            "show all contexts",
            "TASKS counts processes and threads. HOLDS shows what keeps a context: p, it is persistent;"
            " s, it is still being set up; -, its processes only.",
            (("cloison list", "a table"), ("cloison list --json", "the same for programs")),
        ),
        Help(
            "show",
            "show one context in full",
            "Identity, counts, flags, and what root of the context may do.",
            (("cloison show web", ""), ("cloison show 200 --json", "")),
        ),
        Help(
            "ps",
            "show the processes of one context, or of all",
            "The host's own ps does not show processes of contexts. A child of this command becomes the spectator"
            " (xid 1), who sees everything and can touch nothing, and reads /proc for it. Pids are the host's.",
            (("cloison ps web", "one context"), ("cloison ps", "every process of the machine with its context")),
        ),
        Help(
            "exec",
            "run a command in an existing context",
            "A child closes every descriptor but the standard streams, starts a session of its own with a clean"
            " environment, enters the context and runs the command; this process stays on the host, waits, and passes"
            " signals on. A standard stream that is a terminal is replaced by a terminal of the context's own:"
            " what runs inside never holds the host's.",
            (
                ("cloison exec web -- nginx -t", ""),
                ("tar c . | cloison exec web -- tar x -C /srv", "pipes pass through untouched"),
                ("cloison exec web --user 33:33 --env LANG=C -- id", "another user, one more variable"),
            ),
        ),
        Help(
            "enter",
            "open a shell in an existing context",
            "Like exec with the shell of the context (or the command given), on a terminal of its own.",
            (("cloison enter web", ""), ("cloison enter web --root /srv/web", "below another root directory")),
        ),
        Help(
            "kill",
            "send a signal to the processes of a context",
            "Sent with the kernel's authority: it reaches every process of the context, its init too. Without PID to"
            " all of them. This is the way to signal across the wall: the host's kill(1) finds no such process.",
            (
                ("cloison kill web", "SIGTERM to everything"),
                ("cloison kill web -s HUP 4711", "to one process, by its host pid"),
                ("cloison kill web -s INT --init", "ask init to shut down"),
                ("cloison kill web -s KILL --all-but-init", ""),
                ("cloison kill web -s 0", "only ask whether there is anybody"),
            ),
        ),
        Help(
            "wait",
            "wait until a context has ended",
            "Says how it ended: the status of the last process, and the reboot command if there was one.",
            (("cloison wait web", ""), ("cloison wait web --timeout 30", "status 4 when it takes longer")),
        ),
        Help(
            "remove",
            "end a context and forget its name",
            "A context with processes is left alone unless --force is given; then they get SIGTERM, and after the grace"
            " time SIGKILL until none is left.",
            (("cloison remove web", ""), ("cloison remove web --force --grace 30", "")),
        ),
        Help(
            "flags",
            "show or change the flags of a context",
            "CHANGE is a list such as 'virt_uptime,~private': a word, ^n for bit n, or a number; '~' clears. The flags"
            " state_setup, state_init and state_admin can be cleared and never set again."
            " Clearing state_admin closes the context to the host for ever.",
            (
                ("cloison flags web", "which are set"),
                ("cloison flags web private", "nobody enters any more"),
                ("cloison flags web ~persistent", "let it end with its last process"),
            ),
        ),
        Help(
            "caps",
            "show or change what root of a context may do",
            "Three words: the bound is the set of ordinary capabilities that can have effect inside; context"
            " capabilities allow single operations beyond it, and those named grant_… what contexts are refused by"
            " default; the umask is the set of namespaces that its processes may make. Lists as for flags. All hold at"
            " once, also for what runs. 'idle' shows capabilities of the bound that lack their grant.",
            (
                ("cloison caps web", "show them"),
                ("cloison caps web --bound ~sys_admin,~sys_ptrace", "take two away, even from what runs"),
                ("cloison caps web --caps set_utsname", "let root of the context set its host name"),
                ("cloison caps web --caps grant_time --bound sys_time", "let it set the clock of the machine"),
                ("cloison caps web --umask mount,uts", "let its root make such namespaces"),
            ),
        ),
        Help(
            "info",
            "show what the running kernel offers",
            "Interface version, configuration word, and the number of contexts.",
            (("cloison info", ""), ("cloison info --json", "")),
        ),
        *(Help(*words) for words in attribute_commands.HELP),
        *(Help(*row) for row in devices.HELP),
        *(Help(*words) for words in cli_tags.HELP),
        *(Help(*words) for words in unify.HELP),
    )
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and a hint, as all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of printing the whole usage."""
        raise CloisonError(f"{message}", hint=f"{self.prog} --help explains it", status=Exit.USAGE)


def change_of(words: dict[str, int], every: int = WORD64) -> Callable[[str], Change]:
    """Return a converter for a list of flags; `every` is what "all" means."""

    def convert(text: str) -> Change:
        try:
            return parse(text, words, every=every)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def signal_number(text: str) -> int:
    """Read a signal: a number from 0 to 64 or a name with or without SIG."""
    if text.isascii() and text.isdecimal() and int(text) <= 64:
        return int(text)
    name = "SIG" + text.upper().removeprefix("SIG")
    if name in signal.Signals.__members__:
        return int(signal.Signals[name])
    raise argparse.ArgumentTypeError(f"no signal is called '{text}'")


def spaces(text: str) -> Spaces:
    """Read a list of namespaces to create."""
    change = change_of({word: SPACE_WORDS[word] for word in ("mount", "uts", "ipc", "cgroup", "net")})(text)
    return Spaces(change.value)


def variable(text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def user(text: str) -> tuple[int, int]:
    """Read UID or UID:GID."""
    uid, _, gid = text.partition(":")
    numbers = (uid, gid or uid)
    if not all(part.isascii() and part.isdecimal() and int(part) < 2**32 - 1 for part in numbers):
        raise argparse.ArgumentTypeError(f"'{text}' is not UID or UID:GID (numbers: names belong to the context)")
    return int(numbers[0]), int(numbers[1])


def seconds(text: str) -> float:
    """Read a duration in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 10**8:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def _creation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the new context")
    group.add_argument("--xid", type=int, metavar="N", help="its number, 2 to 65535 (default: a free one)")
    group.add_argument("--tag", type=int, default=0, metavar="N", help="tag of its files (default 0, all files)")
    group.add_argument("--flags", type=change_of(CONTEXT_WORDS), metavar="LIST", help="flags to start with")
    _caps(group)


def _caps(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--caps", type=change_of(CCAP_WORDS), metavar="LIST", help="context capabilities")
    parser.add_argument("--bound", type=change_of(BCAP_WORDS), metavar="LIST", help="bound of ordinary capabilities")
    umask = change_of(UMASK_WORDS, sum(UMASK_WORDS.values()))
    parser.add_argument("--umask", type=umask, metavar="LIST", help="namespaces that its processes may make")


def _command(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the command")
    group.add_argument("--root", metavar="DIR", help="make DIR its root directory")
    group.add_argument("--directory", "-C", metavar="DIR", default="/", help="working directory (default /)")
    group.add_argument("--user", "-u", type=user, metavar="UID[:GID]", help="run as this user (default 0:0)")
    group.add_argument(
        "--env", "-e", type=variable, action="append", default=[], metavar="NAME=VALUE", help="add to its environment"
    )
    group.add_argument("--no-pty", action="store_true", help="hand the caller's own terminal in (unsafe)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _context(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument("context", metavar="CONTEXT", nargs="?" if optional else None, help="name or xid")


OWN_WORDS = {"exec": 1, "enter": 1, "run": 0}
"""Subcommands that run a command, and how many words of their own come before it."""
_USAGE = {
    "exec": "cloison exec [OPTION…] CONTEXT [--] COMMAND [ARGUMENT…]",
    "enter": "cloison enter [OPTION…] CONTEXT [[--] COMMAND [ARGUMENT…]]",
    "run": "cloison run [OPTION…] [--] COMMAND [ARGUMENT…]",
}


def build() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the whole command, and those of the subcommands by name."""
    parser = Parser(
        prog="cloison",
        description=INTRODUCTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cloison {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, text in COMMANDS.items():
        lines = [f"  {line:<58} {what}".rstrip() for line, what in text.examples]
        made[name] = commands.add_parser(
            name,
            usage=_USAGE.get(name),
            help=text.brief,
            description=textwrap.fill(text.text, 96),
            epilog="examples:\n" + "\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    _fill(made)
    return parser, made


def _fill(made: dict[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of every subcommand."""
    made["create"].add_argument("name", nargs="?", metavar="NAME", help="a name for it")
    _creation(made["create"])
    made["run"].add_argument("--name", metavar="NAME", help="a name for the context while it lives")
    made["run"].add_argument("--init", action="store_true", help="the command becomes init of the context (fakeinit)")
    made["run"].add_argument("--unshare", type=spaces, metavar="LIST", help="new namespaces: mount,uts,ipc,cgroup,net")
    _creation(made["run"])
    _command(made["run"])
    for name in ("show", "exec", "enter", "kill", "wait", "remove", "flags", "caps"):
        _context(made[name])
    _context(made["ps"], optional=True)
    _command(made["exec"])
    _command(made["enter"])
    kill = made["kill"]
    kill.add_argument("--signal", "-s", type=signal_number, default=int(signal.SIGTERM), metavar="SIG")
    kill.add_argument("--init", action="store_true", help="only init")
    kill.add_argument("--all-but-init", action="store_true", help="everything but init")
    kill.add_argument("pids", nargs="*", type=int, metavar="PID", help="host pids (cloison ps shows them)")
    made["wait"].add_argument("--timeout", type=seconds, metavar="SECONDS", help="give up after this time")
    made["remove"].add_argument("--force", "-f", action="store_true", help="end its processes first")
    made["remove"].add_argument("--grace", type=seconds, default=10.0, metavar="SECONDS", help="before SIGKILL (10)")
    made["flags"].add_argument("change", nargs="?", type=change_of(CONTEXT_WORDS), metavar="CHANGE")
    _caps(made["caps"])
    cli_tags.fill(made)
    for name in ("create", "list", "show", "ps", "wait", "flags", "caps", "info", "unify"):
        _json(made[name])
    attribute_commands.arguments(made)
    unify.add_arguments(made["unify"])
    devices.add_arguments(made, change_of)


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; raises `CloisonError`. Options may stand before, between or after other words.

    The command of exec, enter and run begins after ``--``, or, where that is left out, at the first
    word that can belong to nothing else: ``cloison exec web ls -l``. It becomes ``argv``.
    """
    parser, made = build()
    if not words or words[0] not in made:
        return parser.parse_args(words)
    name, rest = words[0], list(words[1:])
    valued = {option for action in made[name]._actions if action.nargs != 0 for option in action.option_strings}
    if name not in OWN_WORDS:
        options, others = _divide(rest, valued, len(rest))
        return parser.parse_args([name, *options, *others])
    head, dashes, tail = rest, "--" in rest, []
    if dashes:
        head, tail = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    options, others = _divide(head, valued, OWN_WORDS[name])
    if len(others) > OWN_WORDS[name]:
        others, tail = others[: OWN_WORDS[name]], [*others[OWN_WORDS[name] :], *(["--"] if dashes else []), *tail]
    args = parser.parse_args([name, *options, *others])
    args.argv = tail
    if not tail and name != "enter":
        parser.error(f"{name}: no command is given")
    return args


def _divide(words: Sequence[str], valued: set[str], limit: int) -> tuple[list[str], list[str]]:
    """Separate options, with their values, from other words; after `limit` other words all are others."""
    options: list[str] = []
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if len(others) >= limit and not word.startswith("-"):
            return options, [*others, word, *rest]
        if word.startswith("-") and len(word) > 1:
            options.append(word)
            if word in valued and rest:
                options.append(rest.pop(0))
        else:
            others.append(word)
    return options, others
