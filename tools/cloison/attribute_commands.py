# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands ``attr`` and ``unhide``: their help, their arguments, and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloison import attributes, output
from cloison.errors import CloisonError, Exit
from cloison.flags import ATTRIBUTE_WORDS, parse
from cloison.syscall import VserverError

if TYPE_CHECKING:
    from cloison.syscall import Vserver

HELP = (
    (
        "attr",
        "show or change attributes of files",
        "'attr get PATH…' shows them, 'attr set CHANGE PATH…' changes them; CHANGE is a list such as 'barrier,~cow', or"
        " none."
        " barrier: no context walks through this directory; set it on the directory that holds the roots of guests."
        " immutable: as by chattr +i. ixunlink: turns the immutability of names around; with immutable (together:"
        " iunlink) the content is fixed and the name can be replaced, which unified files use. hide, admin, watch:"
        " an entry of /proc is hidden from contexts, and from the host without admin, from the spectator without watch."
        " Symbolic links are not followed.",
        (
            ("cloison attr set barrier /srv/guests", "guests cannot walk up to their neighbours"),
            ("cloison attr get /srv/guests", ""),
            ("cloison attr set -R iunlink /srv/guests/web/usr", "everything below, as a unified tree"),
            ("cloison attr set ~hide /proc/uptime", "let contexts see one entry of /proc"),
        ),
    ),
    (
        "unhide",
        "let contexts see the harmless part of /proc",
        "A kernel with CONFIG_VSERVER_PROC_SECURE shows contexts nothing of /proc but their processes. This shows them"
        " what programs need and what tells little of others, or the ENTRIES given (relative to /proc; a slash at the"
        " end means all below as well). Run it once after each boot.",
        (
            ("cloison unhide", "what most guests need"),
            ("cloison unhide net/tcp net/udp bus/", "more of it"),
            ("cloison unhide --json", "and say which entries this kernel has"),
        ),
    ),
)


def arguments(made: dict[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of both subcommands."""
    attr = made["attr"]
    attr.add_argument("action", choices=("get", "set"), metavar="get|set", help="what to do")
    attr.add_argument("words", nargs="+", metavar="[CHANGE] PATH", help="for set, the change first; then files")
    attr.add_argument("-R", "--recursive", action="store_true", help="directories with all below them")
    attr.add_argument("-x", "--one-file-system", action="store_true", help="with -R: do not cross mount points")
    attr.add_argument("--json", action="store_true", help="print JSON for programs")
    unhide = made["unhide"]
    unhide.add_argument("entries", nargs="*", metavar="ENTRY", help="instead of the usual entries")
    unhide.add_argument("--json", action="store_true", help="print JSON for programs")


class AttributeCommands:
    """Mixed into the command's `Tool`."""

    kernel: Vserver

    def do_attr(self, args: argparse.Namespace) -> int:
        """Show or change attributes."""
        return self._attr_set(args) if args.action == "set" else self._attr_get(args)

    def _attr_paths(self, args: argparse.Namespace, paths: list[str]) -> list[str]:
        if not args.recursive:
            return paths
        return [found for path in paths for found in attributes.walk(path, one_file_system=args.one_file_system)]

    def _attr_get(self, args: argparse.Namespace) -> int:
        found: list[dict[str, Any]] = []
        for path in self._attr_paths(args, args.words):
            try:
                seen = attributes.get(self.kernel, path)
            except VserverError as error:
                raise attributes.explain(error, path) from None
            found.append({"path": path, "attributes": seen.words(), "tag": seen.tag})
        lines = [
            f"{', '.join(entry['attributes']) or '-':<24} {'-' if entry['tag'] is None else entry['tag']!s:>5}  "
            f"{entry['path']}"
            for entry in found
        ]
        output.show("\n".join(lines), found, as_json=args.json)
        return Exit.GOOD

    def _attr_set(self, args: argparse.Namespace) -> int:
        if len(args.words) < 2:
            raise CloisonError("attr set needs a change and a path", hint="cloison attr --help", status=Exit.USAGE)
        text, *paths = args.words
        try:
            wanted = parse(text, ATTRIBUTE_WORDS, every=int(attributes.STORED))
        except ValueError as error:
            raise CloisonError(str(error), hint="cloison attr --help explains the words", status=Exit.USAGE) from None
        for path in self._attr_paths(args, paths):
            try:
                attributes.change(self.kernel, path, wanted)
            except VserverError as error:
                raise attributes.explain(error, path) from None
        return Exit.GOOD

    def do_unhide(self, args: argparse.Namespace) -> int:
        """Let contexts see entries of /proc."""
        for entry in args.entries:
            if Path(entry).is_absolute() or ".." in Path(entry).parts:
                raise CloisonError(f"{entry}: not relative to /proc", status=Exit.USAGE)
        done = attributes.unhide(self.kernel, tuple(args.entries) or attributes.VISIBLE)
        output.show(f"{len(done)} entries of /proc can be seen in contexts", done, as_json=args.json)
        return Exit.GOOD
