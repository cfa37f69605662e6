# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own selftests of sockets, run with the series and without it: nobody's result may change.

They are those of ``tools/testing/selftests/net`` that need no second machine and no special hardware, each in a
network namespace of its own. What the plain kernel fails in such a machine (more processors, a protocol that is
not built in) it may fail with the series too; it is shown, and proves nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloison_forge.core import output, ui
from cloison_forge.core.errors import CheckError, ExitStatus
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage
from cloison_forge.machine import api
from cloison_forge.machine.kselftest import install_headers
from cloison_forge.pipeline import Request
from cloison_forge.report import ktap

SCHEMA = "cloison-kselftest-net-1"
FOLDER = "tools/testing/selftests/net"
WITH, WITHOUT = "on", "absent"
UNIX = ("diag_uid", "msg_oob", "scm_pidfd", "scm_rights", "unix_connect")
PLAIN = (
    *(
        "bind_timewait",
        "bind_wildcard",
        "reuseaddr_conflict",
        "reuseport_addr_any",
        "reuseport_bpf",
        "reuseport_bpf_cpu",
    ),
    *("reuseport_dualstack", "sk_bind_sendto_listen", "sk_connect_zero_addr", "sk_so_peek_off", "so_incoming_cpu"),
    *("so_netns_cookie", "socket", "tcp_inq", "tun", "netlink-dumps", *UNIX),
)
SCRIPTS = {
    "ip_local_port_range": "ip_local_port_range",
    "ipv6_flowlabel": "ipv6_flowlabel ipv6_flowlabel_mgr",
    "psock_snd": "psock_snd",
    "reuseaddr_ports_exhausted": "reuseaddr_ports_exhausted",
    "tcp_fastopen_backup_key": "tcp_fastopen_backup_key",
    "udpgso": "udpgso",
}
"""Programs that a script of the same name runs, several times or with settings."""
_GSO = "sh udpgso.sh test_dev_mtu -- ./udpgso"
COMMANDS = {
    **{name: f"sh in_netns.sh ./{name}" for name in PLAIN},
    **{name: f"bash ./{name}.sh" for name in SCRIPTS if name != "udpgso"},
    **{f"udpgso -{v} {how}": f"sh in_netns.sh {_GSO} -{v} {how}" for v in "46" for how in ("-C", "-C -s", "-C -m")},
}
"""What runs, by name. The script of udpgso wants more programs than the host image has."""
SECONDS = 120  # for one of them


@dataclass(frozen=True)
class Result:
    """How a command ended, and the status of each single test in it, if it speaks KTAP."""

    status: int
    tests: Mapping[str, str]
    output: str = ""

    def same(self, other: Result) -> bool:
        """Say whether both mean the same; the words may differ."""
        return (self.status, self.tests) == (other.status, other.tests)

    @property
    def told(self) -> str:
        """Return the result in a few words."""
        passed = sum(status == "passed" for status in self.tests.values())
        single = f", {passed} of {len(self.tests)} tests" if self.tests else ""
        return ("passed" if self.status == 0 else f"status {self.status}") + single


def _programs(request: Request) -> Stage:
    """Build the programs of the patched tree, static; the series changes none of them."""
    from cloison_forge import pipeline

    applied = pipeline.patched(request)
    folder = project().line(request.line)
    stage = Stage("kselftest", folder / "kselftest-net", {"tree": applied.key, "commands": _script()})

    def make(out: Path) -> None:
        log = folder / "logs" / "kselftest-net.log"
        log.unlink(missing_ok=True)
        names = [*(set(PLAIN) - set(UNIX)), *" ".join(SCRIPTS.values()).split()]
        with ui.step("kselftest", f"building {len(names) + len(UNIX)} of the kernel's own selftests"):
            words = [f"OUTPUT={out}", *install_headers(applied.path, out, log), "LDFLAGS=-static"]
            run(["make", "-C", applied.path / FOLDER, *words, *(f"{out}/{name}" for name in names)], log=log)
            run(["make", "-C", applied.path / FOLDER / "af_unix", *words], log=log)
        shutil.rmtree(out / "headers")
        for name in ("in_netns", *SCRIPTS):
            shutil.copy(applied.path / FOLDER / f"{name}.sh", out)

    if not stage.fresh():
        stage.ensure(make)
    return stage


def _script() -> str:
    """Return the shell script that runs all commands in a machine, each with its output in a numbered file."""
    lines = ["cd /mnt/share || exit 1", "PATH=$PATH:."]
    for number, command in enumerate(COMMANDS.values()):
        lines.append(f"timeout {SECONDS} {command} >{number}.out 2>&1; echo $? >{number}.status")
    return "\n".join(lines)


def read(place: Path, number: int) -> Result:
    """Read how a command ended in a machine; one without a status never ended."""
    text = (place / f"{number}.out").read_text(encoding="utf-8", errors="replace")
    status = int((place / f"{number}.status").read_text(encoding="utf-8"))
    tests = {}
    if "TAP version" in text:
        tests = {leaf.name: leaf.status for leaf in ktap.parse(text).leaves()}
    return Result(status, tests, text)


def measure(request: Request, lane: str, variant: str, programs: Path) -> dict[str, Result]:
    """Run everything in one machine whose kernel is a variant; the machine itself must end well."""
    with tempfile.TemporaryDirectory(prefix="cloison-kselftest-") as place:
        shutil.copytree(programs, place, dirs_exist_ok=True)
        ui.note("kselftest", f"{len(COMMANDS)} commands, lane {lane}, variant {variant}")
        options = api.ShellOptions(
            request=replace(request, variant=variant), lane=lane, share=place, command=("sh", "-c", _script())
        )
        status, machine = api.shell_run(options)
        if status != 0 or not machine.good:
            raise api.failure(machine, f"lane {lane}, variant {variant}: selftests (status {status})")
        return {name: read(Path(place), number) for number, name in enumerate(COMMANDS)}


def judge(before: Mapping[str, Result], after: Mapping[str, Result]) -> list[str]:
    """Return the names of those whose results differ; fail if the plain kernel passes none."""
    if not any(result.status == 0 for result in before.values()):
        raise CheckError("the kernel without the series passes none of its selftests", hint="so they compare nothing")
    return [name for name, result in before.items() if not result.same(after[name])]


def compare(request: Request, *, lane: str, json: str = "") -> ExitStatus:
    """Run all on both kernels, print both results of each, and return the status."""
    programs = _programs(request).out
    before, after = (measure(request, lane, variant, programs) for variant in (WITHOUT, WITH))
    differ = judge(before, after)
    if json:
        rows = [
            {"name": name, "without": vars(before[name]), "with": vars(after[name]), "same": name not in differ}
            for name in COMMANDS
        ]
        output.write(json, {"schema": SCHEMA, "lane": lane, "selftests": rows})
    if json != "-":
        table = [
            [name, before[name].told, after[name].told, "differs" if name in differ else "same"] for name in COMMANDS
        ]
        ui.table(f"the kernel's network selftests, lane {lane}", ["selftest", "without series", "with", ""], table)
    for name in differ:
        ui.say(f"kselftest: {name}: with the series: {after[name].output[-300:].strip()}")
    same = len(COMMANDS) - len(differ)
    ui.note("kselftest", f"{same} of {len(COMMANDS)} with the same result as on the kernel without the series")
    return ExitStatus.CHECK if differ else ExitStatus.GOOD
