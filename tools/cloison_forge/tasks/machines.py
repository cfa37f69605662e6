# SPDX-License-Identifier: GPL-2.0-or-later
"""Invoke tasks that boot machines: to see whether they come up, to prove the isolation, to work in them."""

from __future__ import annotations

import sys

from invoke.context import Context

from cloison_forge.pipeline import Request
from cloison_forge.tasks import command


@command("line", "lane", "way", "profile")
def boot(_: Context, line: str = "6.12", lane: str = "qemu", way: str = "", profile: str = "") -> int:
    """Boot a machine once and say how that ended."""
    from cloison_forge.machine import api

    return api.boot(api.BootOptions(request=Request(line=line, profile=profile), lane=lane, way=way))


@command(
    "line",
    "lane",
    "way",
    "json",
    "offline",
    profile="kernel profile instead of the lane's own, such as debug",
    suite="run only these suites or checks, separated by commas",
    junit="write JUnit XML to this path",
    html="write a page to this path",
    append="words to add to the kernel's command line",
    coverage="list the rows of the catalogue that no check proves, and stop",
)
def verify(
    _: Context,
    line: str = "6.12",
    lane: str = "uml",
    way: str = "",
    profile: str = "",
    suite: str = "",
    json: str = "",
    junit: str = "",
    html: str = "",
    append: str = "",
    coverage: bool = False,
    offline: bool = False,
) -> int:
    """Boot a machine and prove the isolation."""
    from cloison_forge.machine import api

    if coverage:
        return api.coverage(json)
    request = Request(line=line, profile=profile, offline=offline)
    options = api.VerifyOptions(
        request=request, lane=lane, way=way, suite=suite, json=json, junit=junit, html=html, append=append
    )
    return api.verify(options)


@command("line", "json", "offline")
def kunit(_: Context, line: str = "6.12", json: str = "", offline: bool = False) -> int:
    """Run the KUnit tests of the series."""
    from cloison_forge.machine import kunit as room

    return room.kunit(Request(line=line, offline=offline), json)


@command("line", "lane", "json", "offline")
def kselftest(_: Context, line: str = "6.12", lane: str = "uml", json: str = "", offline: bool = False) -> int:
    """Build the series' kselftests and run them in a machine."""
    from cloison_forge.machine import kselftest as room

    return room.kselftest(Request(line=line, offline=offline), lane=lane, json=json)


@command("line", "lane", "json", "offline")
def kselftest_net(_: Context, line: str = "6.12", lane: str = "qemu", json: str = "", offline: bool = False) -> int:
    """Run the kernel's own selftests of sockets with the series and without: no result may differ."""
    from cloison_forge.machine import kselftest_net as room

    return room.compare(Request(line=line, offline=offline), lane=lane, json=json)


@command(
    "line",
    "json",
    "offline",
    lane="the machines, uml or qemu; each hook where it is compiled if not given",
    hook="only these hooks, separated by commas",
    record="remember which check noticed",
)
def mutate(
    _: Context,
    line: str = "6.12",
    lane: str = "",
    hook: str = "",
    json: str = "",
    record: bool = False,
    offline: bool = False,
) -> int:
    """Turn off each hook of the series in turn, and name the check that notices."""
    from cloison_forge import mutation

    return mutation.mutate(Request(line=line, offline=offline), lane=lane, only=hook, json=json, record=record)


@command("line", "lane", "offline", profile="kernel profile instead of debug", minutes="how long, in minutes")
def stress(
    _: Context, line: str = "6.12", lane: str = "qemu", profile: str = "debug", minutes: int = 10, offline: bool = False
) -> int:
    """Create, enter, signal and end contexts all at once on a kernel that watches itself."""
    from cloison_forge import stress as room

    return room.stress(Request(line=line, profile=profile, offline=offline), lane=lane, minutes=minutes)


@command("line", "lane", "offline", "image", share="host folder to see at /mnt/share")
def shell(
    _: Context, line: str = "6.12", lane: str = "uml", share: str = "", offline: bool = False, image: str = "host"
) -> int:
    """Run a command as root in a machine (after --), or open a terminal."""
    from cloison_forge.machine import api

    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    options = api.ShellOptions(
        request=Request(line=line, offline=offline), lane=lane, share=share, command=tuple(words), image=image
    )
    return api.shell(options)
