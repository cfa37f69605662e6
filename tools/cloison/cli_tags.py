# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands ``tag`` and ``disk-limit``: whose files these are, and how much they may use."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from cloison import abi, output, procfs, tags
from cloison.context import Context
from cloison.disklimit import DiskLimits, Limit, Wish, mount_point, restore, save
from cloison.errors import CloisonError, Exit
from cloison.syscall import ExistsError, InvalidError, NoSuchContextError, Vserver, VserverError

HELP = (
    (
        "tag",
        "show or change the tag of files: the context that they belong to",
        "A process with a tag reaches files of its tag and of tag 0, on file systems that are mounted with the option"
        " 'tag' (ext4 with the feature 'project', tmpfs) or 'tagid=N' (one tag for all that is on it). New files get"
        " the tag of who makes them; --tag of create and run says which. Only the host changes tags.",
        (
            ("cloison tag get /srv/web/index.html", ""),
            ("cloison tag set 200 --recursive /srv/web", "give a whole tree to the context with tag 200"),
            ("cloison tag set 0 /srv/web/shared", "for everybody"),
        ),
    ),
    (
        "disk-limit",
        "limit what the files of a tag may use on a file system",
        "PATH is any file on the file system. Writing beyond a limit fails as on a full disk, for every process and"
        " whether or not quota is on; 'df' inside shows the limit. A new limit first counts what is used, during"
        " which nothing can be written with that tag. The reserve is for user 0. Limits end with the mount: 'save'"
        " prints them with what is used, 'restore' sets them again.",
        (
            ("cloison disk-limit set /srv --tag 200 --space 10G --inodes 200000", ""),
            ("cloison disk-limit set /srv --tag 200 --space none --reserve 5", "change what is named, keep the rest"),
            ("cloison disk-limit show /srv", "all of a file system"),
            ("cloison disk-limit remove /srv --tag 200", ""),
            ("cloison disk-limit save /srv > limits; cloison disk-limit restore < limits", "over a reboot"),
        ),
    ),
)
_MOST_INODES = abi.DLIMIT_KEEP - 1


def space(text: str) -> int:
    """Read a size, or 'none' as −1."""
    if text == "none":
        return -1
    try:
        return tags.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def fill(made: dict[str, argparse.ArgumentParser]) -> None:
    """Add the arguments of the two subcommands."""
    tag, limit = made["tag"], made["disk-limit"]
    tag.add_argument("action", choices=("get", "set"))
    tag.add_argument("words", nargs="+", metavar="[TAG] PATH", help="files; for set the tag comes first")
    tag.add_argument("--recursive", "-R", action="store_true", help="and what is below, on the same file system")
    limit.add_argument("action", choices=("set", "show", "remove", "save", "restore"))
    limit.add_argument("paths", nargs="*", metavar="PATH", help="a file on the file system")
    limit.add_argument("--tag", "-t", type=int, metavar="N", help="whose limit (0 to 65535)")
    limit.add_argument("--space", type=space, metavar="SIZE", help="10M, 1.5G, none (default for a new limit)")
    limit.add_argument("--inodes", type=int, metavar="N", help="how many files, folders, links, …")
    limit.add_argument("--reserve", type=int, metavar="PERCENT", help="part of it that only user 0 may use")
    limit.add_argument("--used", type=tags.size, metavar="SIZE", help="space in use, instead of counting it")
    limit.add_argument("--used-inodes", type=int, metavar="N", help="inodes in use, instead of counting them")
    for parser in (tag, limit):
        parser.add_argument("--json", action="store_true", help="print JSON for programs")


@contextmanager
def _about(path: str) -> Iterator[None]:
    """Turn a failure with a path into one line that names it."""
    try:
        yield
    except VserverError as error:
        raise CloisonError(f"{path}: {error.reason}", hint=_hint(error)) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CloisonError(f"{path}: {error.strerror}") from None


def _hint(error: VserverError) -> str:
    if isinstance(error, InvalidError):
        return "is it mounted with the option 'tag'? (ext4: mke2fs -O project; tmpfs)"
    if error.errno == errno.EOPNOTSUPP:
        return "ext4 and tmpfs count; give the context a file system of its own elsewhere"
    return "run it as root on the host" if os.geteuid() else ""


class TagCommands:
    """The subcommands, as methods for `cloison.cli.Tool`."""

    kernel: Vserver

    def do_tag(self, args: argparse.Namespace) -> int:
        """Show or change tags of files."""
        paths = list(args.words)
        if args.action == "get":
            return self._show_tags(paths, args)
        word = paths.pop(0)
        if not (word.isascii() and word.isdecimal()) or not paths:
            raise CloisonError("tag set: a number and a path", hint="cloison tag set 200 /srv/web", status=Exit.USAGE)
        tag = tags.valid(int(word))
        for path in self._files(paths, args.recursive):
            with _about(path):
                tags.put(self.kernel, path, tag)
        return Exit.GOOD

    def _files(self, paths: list[str], recursive: bool) -> Iterator[str]:
        for path in paths:
            if not recursive:
                yield path
                continue
            with _about(path):
                # Inodes that are changed while a folder is read do not move in it.
                yield from (name for name, _seen in tags.walk(path))

    def _show_tags(self, paths: list[str], args: argparse.Namespace) -> int:
        found = []
        for path in self._files(paths, args.recursive):
            with _about(path):
                found.append({"path": path, "tag": tags.get(self.kernel, path)})
        rows = [("-" if entry["tag"] is None else entry["tag"], entry["path"]) for entry in found]
        output.show(output.table(("TAG", "PATH"), rows), found, as_json=args.json)
        return Exit.GOOD

    def do_disk_limit(self, args: argparse.Namespace) -> int:
        """Show, change, keep disk limits."""
        if args.action == "restore":
            return self._restore(Path(args.paths[0]).read_text("utf-8") if args.paths else sys.stdin.read())
        if not args.paths:
            raise CloisonError(f"disk-limit {args.action}: no path is given", status=Exit.USAGE)
        if args.action == "save":
            points = {mount_point(path): None for path in args.paths}
            print(save((point, *entry) for point in points for entry in self._limits(point, args.tag)), end="")
            return Exit.GOOD
        path = args.paths[0]
        if args.action == "show":
            return self._show_limits(path, args)
        if args.tag is None:
            raise CloisonError(f"disk-limit {args.action}: --tag is not given", status=Exit.USAGE)
        limits = DiskLimits(self.kernel, path)
        with _about(path):
            if args.action == "remove":
                limits.remove(tags.valid(args.tag))
            else:
                self._set(limits, tags.valid(args.tag), _wish(args))
        return Exit.GOOD

    def _set(self, limits: DiskLimits, tag: int, wish: Wish, *, count: bool = True) -> None:
        """Change a limit, or make it: closed, counted, and only then opened."""
        try:
            limits.add(tag)
        except ExistsError:
            limits.set(tag, wish)
            return
        try:
            now = limits.get(tag)
            used = tags.Usage(now.space_used, now.inodes_used)
            if count and wish.space_used is None and not used.inodes:
                used = self._count(limits.path, tag)
            limits.set(
                tag,
                Wish(
                    used.space if wish.space_used is None else wish.space_used,
                    -1 if wish.space_total is None else wish.space_total,
                    used.inodes if wish.inodes_used is None else wish.inodes_used,
                    _MOST_INODES if wish.inodes_total is None else wish.inodes_total,
                    wish.reserved or 0,
                ),
            )
        except InvalidError:
            limits.remove(tag)
            raise CloisonError(
                f"the files of tag {tag} use {tags.human(used.space)} and {used.inodes} inodes, more than that",
                hint="delete some, or give them more",
            ) from None
        except BaseException:
            limits.remove(tag)
            raise

    def _count(self, path: str, tag: int) -> tags.Usage:
        return tags.usage(mount_point(path), tag, lambda name: tags.get(self.kernel, name))

    def _limits(self, path: str, tag: int | None) -> list[tuple[int, Limit]]:
        with _about(path):
            limits = DiskLimits(self.kernel, path)
            return list(limits.all() if tag is None else limits.all([tags.valid(tag)]))

    def _show_limits(self, path: str, args: argparse.Namespace) -> int:
        found = self._limits(path, args.tag)
        if args.tag is not None and not found:
            raise CloisonError(f"{path}: tag {args.tag} has no disk limit there", status=Exit.ABSENT)
        rows = [
            (tag, tags.human(e.space_used), tags.human(e.space_total), e.inodes_used, e.inodes_total, e.reserved)
            for tag, e in found
        ]
        head = ("TAG", "USED", "SPACE", "INODES USED", "INODES", "RESERVE %")
        data = [{"tag": tag, **asdict(entry)} for tag, entry in found]
        output.show(output.table(head, rows) if rows else "no disk limits", data, as_json=args.json)
        return Exit.GOOD

    def _restore(self, text: str) -> int:
        for path, tag, limit in restore(text):
            total = -1 if limit.space_total is None else limit.space_total
            wish = Wish(limit.space_used, total, limit.inodes_used, limit.inodes_total, limit.reserved)
            with _about(path):
                self._replace(DiskLimits(self.kernel, path), tags.valid(tag), wish)
        return Exit.GOOD

    def _replace(self, limits: DiskLimits, tag: int, wish: Wish) -> None:
        """Set all of a limit, except that what the kernel has counted itself is truer than what was saved."""
        with suppress(ExistsError):
            limits.add(tag)
        counted = limits.get(tag)
        if counted.inodes_used:
            wish = Wish(None, wish.space_total, None, wish.inodes_total, wish.reserved)
        try:
            limits.set(tag, wish)
        except NoSuchContextError:
            raise CloisonError(f"{limits.path}: the limit of tag {tag} was removed meanwhile") from None


def tag_of(context: Context) -> int:
    """Return the file tag that a context was made with; 0 from a kernel without tags."""
    try:
        return procfs.status(context.xid).tag
    except FileNotFoundError:
        return 0


def _wish(args: argparse.Namespace) -> Wish:
    if args.inodes is not None and not 0 <= args.inodes <= _MOST_INODES:
        raise CloisonError(f"{args.inodes} is no number of inodes", hint=f"up to {_MOST_INODES}", status=Exit.USAGE)
    if args.reserve is not None and not 0 <= args.reserve <= 100:
        raise CloisonError(f"{args.reserve} is no percentage", status=Exit.USAGE)
    return Wish(args.used, args.space, args.used_inodes, args.inodes, args.reserve)
