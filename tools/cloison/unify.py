# SPDX-License-Identifier: GPL-2.0-or-later
"""``cloison unify``: one file in the place of many that are the same."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloison import output, unify_apply, unify_plan
from cloison.errors import CloisonError, Exit
from cloison.syscall import NotSupportedError, Vserver
from cloison.unify_apply import Outcome, Status
from cloison.unify_plan import DEFAULT_EXCLUDES, Rules, Sums, Trees

LOCK = Path("/run/cloison/unify.lock")
BREAKS_LINKS = 1 << 8
"""Bit of the configuration word: the kernel gives a writer of a shared file its own copy (VCI_COWBL)."""
_SHOWN = 40
"""Names that a report for people lists at most."""

HELP = (
    (
        "unify",
        "make one file of many that are the same, in the roots of guests",
        "Looks for files of equal content, owner, mode, time and extended attributes below all ROOTs, and lets"
        " their names stand for one file, which is shared: nobody can change it, a guest can remove or replace its"
        " own names, and when it writes, the kernel gives it a copy under that name. Memory and cache are shared"
        " too. Each name is replaced in one step; what changes meanwhile, or is open for writing, is left alone.",
        (
            ("cloison unify --dry-run /srv/web /srv/mail", "say what could be one, and what that saves"),
            ("cloison unify --reference /srv/template /srv/web /srv/mail", "take files of a template"),
            ("cloison unify --exclude /opt/data --exclude '*.db' /srv/web /srv/mail", "leave places and names out"),
            ("cloison unify --check /srv/web /srv/mail", "what is shared, and what a crash left behind"),
            ("cloison unify --undo /srv/web", "give web files of its own again"),
        ),
    ),
)
"""What `cloison --help` says."""


def run(args: argparse.Namespace, kernel: Vserver) -> int:
    """Do what the command line says; returns the exit status."""
    rules = Rules(
        (() if args.no_default_exclude else DEFAULT_EXCLUDES) + tuple(args.exclude), args.min_size, not args.ignore_time
    )
    paths = [*args.reference, *args.roots]
    for path in paths:
        if not Path(path).is_dir():
            raise CloisonError(f"{path} is no directory", status=Exit.USAGE)
    if not args.dry_run and not args.check:
        _require(kernel)
    tell = _teller()
    with _alone(LOCK, needed=not args.dry_run), Trees(paths, len(args.reference)) as trees:
        if args.check:
            return _report_check(unify_apply.check(trees, rules, repair=args.repair), as_json=args.json)
        if args.undo:
            outcome = unify_apply.undo(trees, rules, tell)
            return _report(outcome, {}, "parted", args)
        return _unify(trees, rules, args, tell)


def _require(kernel: Vserver) -> None:
    """Fail on a kernel that would let nobody write to, or remove, what we share."""
    try:
        word = kernel.configuration()
    except NotSupportedError:
        word = 0
    if not word & BREAKS_LINKS:
        raise CloisonError(
            "this kernel does not give writers of shared files their own copy",
            hint="boot the patched kernel; --dry-run and --check work on any",
        )


@contextlib.contextmanager
def _alone(lock: Path, *, needed: bool) -> Iterator[None]:
    """Keep other unifiers out: a file that one of them has just shared is not yet sure to stay so."""
    if not needed:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CloisonError("another cloison unify is at work", hint="wait for its end") from None
        yield


def _teller() -> unify_plan.Tell:
    """Return what shows progress: one line that is written over, on a terminal only, a few times a second."""
    if not sys.stderr.isatty():
        return lambda _text: None
    last = 0.0

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 0.2:
            last = time.monotonic()
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    return tell


def _unify(trees: Trees, rules: Rules, args: argparse.Namespace, tell: unify_plan.Tell) -> int:
    skipped: Counter[str] = Counter()
    sums = Sums(None if args.no_cache else Path(args.cache))
    try:
        nodes = unify_plan.walk(trees, rules, skipped)
        found = unify_plan.classes(trees, nodes, rules, sums, skipped, tell)
    finally:
        sums.close()
    outcome = unify_apply.plan(trees, found) if args.dry_run else unify_apply.apply(trees, found, tell)
    outcome.skipped.update(skipped)
    counts = {
        "looked at": sum(len(node.names) for node in nodes),
        "read": sums.read,
        "known from before": sums.known,
    }
    return _report(outcome, counts, "would be unified" if args.dry_run else "unified", args)


def _report(outcome: Outcome, counts: dict[str, int], done: str, args: argparse.Namespace) -> int:
    """Print what happened; status 1 when files could not be treated for an error of the system."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    data: dict[str, Any] = {
        **{key.replace(" ", "_"): value for key, value in counts.items()},
        "done": done,
        "names": [{"name": name, "file": kept} for name, kept in outcome.names],
        "files": outcome.files,
        "saved": outcome.saved,
        "skipped": dict(sorted(outcome.skipped.items())),
    }
    facts: list[tuple[str, object]] = [
        *counts.items(),
        (done, f"{len(outcome.names)} names of {outcome.files} files"),
        ("saved", _size(outcome.saved)),
        *((f"left alone: {reason}", count) for reason, count in sorted(outcome.skipped.items())),
    ]
    text = output.facts(facts)
    if outcome.names and (args.verbose or args.dry_run):
        listed = outcome.names if args.verbose else outcome.names[:_SHOWN]
        text += "\n\n" + output.table(("NAME", "FILE"), listed)
        if len(listed) < len(outcome.names):
            text += f"\n… and {len(outcome.names) - len(listed)} more (--verbose)"
    output.show(text, data, as_json=args.json)
    return Exit.GOOD


def _report_check(status: Status, *, as_json: bool) -> int:
    data = vars(status)
    pairs: list[tuple[str, object]] = [
        ("shared files", status.files),
        ("names of them", status.names),
        ("saved", _size(status.saved)),
        ("half marked", len(status.stray)),
        ("left over", len(status.leftovers)),
    ]
    text = "\n".join([output.facts(pairs), *(f"  {path}" for path in [*status.stray, *status.leftovers])])
    output.show(text, data, as_json=as_json)
    return Exit.FAILED if status.stray or status.leftovers else Exit.GOOD


def _size(value: int) -> str:
    """Return bytes as people read them."""
    amount, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    default = os.environ.get("CLOISON_UNIFY_CACHE", "/var/cache/cloison/unify.sqlite")
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="a guest's root directory")
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="DIR",
        help="a tree whose files are kept for the others; its own names are not replaced (may be repeated)",
    )
    parser.add_argument("--dry-run", "-n", action="store_true", help="only say what would be unified")
    parser.add_argument("--undo", action="store_true", help="give every name below ROOT a file of its own again")
    parser.add_argument("--check", action="store_true", help="look at what is shared, and for leftovers of a crash")
    parser.add_argument("--repair", action="store_true", help="with --check: remove leftovers and half marks")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave this out: /etc/ssl is a place below ROOT, *.pyc any name (may be repeated)",
    )
    parser.add_argument(
        "--no-default-exclude",
        action="store_true",
        help=f"look below {', '.join(DEFAULT_EXCLUDES)} as well",
    )
    parser.add_argument("--min-size", type=int, default=1, metavar="BYTES", help="leave smaller files alone (1)")
    parser.add_argument("--ignore-time", action="store_true", help="unify files of different modification times")
    parser.add_argument("--cache", default=default, metavar="FILE", help=f"hashes of earlier runs ({default})")
    parser.add_argument("--no-cache", action="store_true", help="read everything again")
    parser.add_argument("--verbose", "-v", action="store_true", help="list every name")
