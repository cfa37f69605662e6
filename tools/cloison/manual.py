# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual page cloison(8), made from the parser, so that it cannot miss an option.

``python3 -m cloison.manual > tools/cloison/share/cloison.8`` writes it; a test keeps the file equal.
"""

from __future__ import annotations

import argparse
import sys

from cloison import __version__
from cloison.parser import COMMANDS, INTRODUCTION, build

_FILES = """\
.SH FILES
.TP
.I /run/cloison/names/NAME
The xid that belongs to a name. The kernel keeps the name with the context too; where the two differ,
the name is taken as stale and forgotten.
.TP
.I /proc/virtual
The contexts as the kernel shows them to the host.
.SH EXIT STATUS
.TP
.B 0
good
.TP
.B 1
failed
.TP
.B 2
wrong use of the command
.TP
.B 3
no such context
.TP
.B 4
wait: timed out
.PP
exec, enter and run return the status of the command they ran, 128 + n when signal n killed it, or
.B 125
when cloison itself failed,
.B 126
when the command cannot be run,
.B 127
when it is not found.
.SH SECURITY
A process that has entered a context cannot come back. Therefore a child enters, while the command itself stays
on the host and waits. Before it enters, the child closes all descriptors but the three standard streams, starts a
session, gives up every standard stream that is a terminal of the host for one of its own, takes default signal
actions and a clean environment, and cannot be looked into through /proc until the command runs. A new context is
configured and sealed before the command's first instruction. User names are not accepted, because the
files that hold them belong to the context.
.PP
What runs in a context can still print escape sequences to the terminal that you look at.
.SH SEE ALSO
.BR namespaces (7),
.BR capabilities (7),
.BR unshare (1);
Documentation/admin-guide/vserver/ in the patched kernel
"""


def escape(text: str) -> str:
    """Return text as roff takes it literally."""
    made = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")
    made = made.replace("…", "\\&...")
    return "\\&" + made if made.startswith((".", "'")) else made


def option(action: argparse.Action) -> str:
    """Return the roff paragraph of one option or word."""
    names = ", ".join(f"\\fB{escape(name)}\\fR" for name in action.option_strings)
    value = ""
    if action.nargs != 0:
        value = f"\\fI{escape(str(action.metavar or action.dest.upper()))}\\fR"
    head = " ".join(part for part in (names, value) if part)
    return f".TP\n{head}\n{escape(action.help or '')}\n"


def subcommand(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the roff section of one subcommand."""
    text = COMMANDS[name]
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    made = (
        f".SS {escape(name)} \\(en {escape(text.brief)}\n.nf\n\\fB{escape(usage)}\\fR\n.fi\n.PP\n{escape(text.text)}\n"
    )
    made += "".join(option(action) for action in parser._actions if action.help != argparse.SUPPRESS)
    made += ".PP\n.nf\n.RS\n"
    for line, what in text.examples:
        made += f"{escape(line)}" + (f"   # {escape(what)}" if what else "") + "\n"
    return made + ".RE\n.fi\n"


def render() -> str:
    """Return the whole page."""
    _, made = build()
    page = '.\\" SPDX-License-Identifier: GPL-2.0-or-later\n.\\" Made by cloison.manual from the command\'s own help.\n'
    page += f'.TH CLOISON 8 "" "cloison {__version__}" "System Administration"\n'
    page += ".SH NAME\ncloison \\- keep the processes of a host apart in security contexts\n"
    page += ".SH SYNOPSIS\n.B cloison\n.I COMMAND\n[\\fIOPTION\\fR\\&...] [\\fIARGUMENT\\fR\\&...]\n"
    page += f".SH DESCRIPTION\n{escape(INTRODUCTION)}.SH COMMANDS\n"
    page += "".join(subcommand(name, parser) for name, parser in made.items())
    return page + _FILES


if __name__ == "__main__":
    sys.stdout.write(render())
