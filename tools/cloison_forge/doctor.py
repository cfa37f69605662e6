# SPDX-License-Identifier: GPL-2.0-or-later
"""`./invoke doctor`: what this host has, what it lacks, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from cloison_forge.core import hostpackages, ui
from cloison_forge.core.paths import project
from cloison_forge.core.run import run

DISK_GIB = 12  # one line: tree 2, two object folders 2, images 2, caches 3, room to work
MEMORY_GIB = 4

VARIABLES = {
    "CI": "'true': plain progress lines, packages are installed without asking",
    "CLOISON_INSTALL": "'yes' installs missing packages without asking, 'all' also those on demand, 'no' none",
    "CLOISON_CACHE": "folder of downloads, compiler cache and root file systems, instead of ~/.cache/cloison",
    "CLOISON_BUILD": "output folder instead of build/ in the checkout",
    "NO_COLOR": "no colours",
}


@dataclass(frozen=True)
class Finding:
    """One row of the report; `state` is 'good', 'warning' or 'missing'."""

    item: str
    state: str
    detail: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at tools, accelerators, disk, memory and settings."""
    return [*_system(), *_tools(), *_space(), _kvm(), *_variables()]


def _system() -> list[Finding]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    known = "debian" in f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()
    return [
        Finding(
            "distribution",
            "good" if known else "warning",
            release.get("PRETTY_NAME", "unknown"),
            "" if known else "only Debian's package names are known; install the equivalents yourself",
        ),
        Finding("processors", "good", f"{len(os.sched_getaffinity(0))} usable, {platform.machine()}"),
        Finding("python", "good", f"{platform.python_version()} ({sys.executable})"),
    ]


def _tools() -> list[Finding]:
    findings = []
    for package in hostpackages.load():
        found = package.found()
        state = "good" if found else "warning" if package.on_demand else "missing"
        advice = "" if found else f"apt-get install {package.package} ({package.why})"
        findings.append(Finding(package.package, state, found or f"no {package.probe}", advice))
    return findings


def _space() -> list[Finding]:
    findings = []
    for name, folder in (("disk (build)", project().build), ("disk (cache)", project().cache)):
        present = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(present).free / 2**30
        enough = free >= DISK_GIB
        advice = "" if enough else f"a cold build needs {DISK_GIB} GiB; ./invoke clean says what it can remove"
        findings.append(Finding(name, "good" if enough else "warning", f"{free:.0f} GiB free, {folder}", advice))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = memory >= MEMORY_GIB
    advice = "" if enough else f"{MEMORY_GIB} GiB are needed to compile and boot side by side"
    findings.append(Finding("memory", "good" if enough else "warning", f"{memory:.0f} GiB", advice))
    if shutil.which("ccache") and project().ccache.exists():
        result = run(["ccache", "--print-stats"], env={"CCACHE_DIR": str(project().ccache)}, check=False)
        values = dict(line.split("\t") for line in result.output.splitlines() if line.count("\t") == 1)
        size = int(values.get("cache_size_kibibyte", "0")) / 2**20
        findings.append(Finding("compiler cache", "good", f"{size:.1f} GiB, {project().ccache}"))
    return findings


def _kvm() -> Finding:
    from cloison_forge.machine.kvm import probe

    verdict = probe()
    if verdict.usable:
        return Finding("KVM", "good", verdict.reason)
    return Finding("KVM", "warning", verdict.reason, "machines run in QEMU's emulator (TCG), ten times slower")


def _variables() -> list[Finding]:
    return [
        Finding(f"${name}", "good", repr(os.environ[name]) if name in os.environ else "not set", text)
        for name, text in VARIABLES.items()
    ]


def report(json_path: str = "") -> bool:
    """Print the findings as a table or write them as JSON; return whether nothing is missing."""
    from cloison_forge.core import output

    findings = examine()
    if json_path:
        output.write(json_path, {"schema": "cloison-doctor-1", "findings": [asdict(finding) for finding in findings]})
    else:
        marks = {"good": "ok", "warning": "!", "missing": "MISSING"}
        ui.table("", ["", "item", "seen", "advice"], [[marks[f.state], f.item, f.detail, f.advice] for f in findings])
    return not any(finding.state == "missing" for finding in findings)
