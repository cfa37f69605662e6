# SPDX-License-Identifier: GPL-2.0-or-later
"""The binding against the series' own C header: a C program prints what the compiler makes of it."""

from __future__ import annotations

import ctypes
import re
import subprocess
from enum import IntFlag
from pathlib import Path

import pytest

from cloison import abi
from cloison.devices import DeviceRights
from cloison.flags import ContextCaps, ContextFlags, FileAttributes, MigrateFlags

ROOT = Path(__file__).resolve().parents[2]
HEADER = "include/uapi/linux/vserver.h"
SERIES = sorted(path.parent for path in (ROOT / "patches").glob("*/series"))
FLAGS: tuple[tuple[str, type[IntFlag]], ...] = (
    ("VXF", ContextFlags),
    ("VXC", ContextCaps),
    ("VXM", MigrateFlags),
    ("VXA", FileAttributes),
)


def extract_header(series: Path, target: Path) -> Path:
    """Apply the series' patches, as far as they touch the header, in an empty folder."""
    subprocess.run(["git", "init", "-q", str(target)], check=True)
    for line in (series / "series").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            patch = series / line.split()[0]
            if f"+++ b/{HEADER}" in patch.read_text(encoding="utf-8"):
                subprocess.run(["git", "apply", f"--include={HEADER}", str(patch.resolve())], cwd=target, check=True)
    return target / HEADER


def expectations() -> dict[str, int]:
    """Return C expressions and the values that the binding gives them."""
    wanted = {f"VCMD_{command.name.lower()}": int(command) for command in abi.Command}
    wanted |= {f"VC_{category.name}": int(category) for category in abi.Category}
    wanted |= {f"{prefix}_{flag.name}": int(flag) for prefix, kind in FLAGS for flag in kind}
    wanted |= {f"VXD_{flag.name}": int(flag) for flag in DeviceRights}
    wanted |= {
        "VCI_VERSION": abi.INTERFACE_VERSION,
        "VX_ID_HOST": abi.HOST,
        "VX_ID_WATCH": abi.SPECTATOR,
        "VX_ID_MIN": abi.MIN_XID,
        "VX_ID_MAX": abi.MAX_XID,
        "CAP_CONTEXT": abi.CAP_CONTEXT,
        "VHIN_CONTEXT": abi.NAME_CONTEXT,
        "VHIN_SIZE": abi.NAME_SIZE,
        "VXDL_KEEP": abi.DLIMIT_KEEP,
        "VXDL_INFINITY": abi.DLIMIT_INFINITY,
        "VXDL_UNITS": abi.DLIMIT_UNITS,
        "VXDL_TOTAL_SHIFT": abi.DLIMIT_TOTAL_SHIFT,
    }
    for name, kind in abi.STRUCTURES.items():
        wanted[f"sizeof(struct vcmd_{name})"] = ctypes.sizeof(kind)
        for field in kind._fields_:
            member = getattr(kind, field[0])
            wanted[f"offsetof(struct vcmd_{name}, {field[0]})"] = member.offset
            wanted[f"sizeof(((struct vcmd_{name} *)0)->{field[0]})"] = member.size
    return wanted


def compiled(header: Path, expressions: list[str], folder: Path) -> list[int]:
    """Return the values of C expressions, as gcc computes them with the header."""
    rows = "\n".join(f'\tprintf("%llu\\n", (unsigned long long)({expression}));' for expression in expressions)
    source = folder / "values.c"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{header}"\nint main(void)\n{{\n{rows}\n\treturn 0;\n}}\n',
        encoding="ascii",
    )
    subprocess.run(["gcc", "-Wall", "-Werror", "-D__user=", "-o", str(folder / "values"), str(source)], check=True)
    answer = subprocess.run([str(folder / "values")], check=True, capture_output=True, text=True)
    return [int(line) for line in answer.stdout.split()]


@pytest.mark.parametrize("series", SERIES, ids=lambda path: path.name)
def test_binding_equals_the_header(series: Path, tmp_path: Path) -> None:
    header = extract_header(series, tmp_path)
    wanted = expectations()
    seen = dict(zip(wanted, compiled(header, list(wanted), tmp_path), strict=True))
    assert seen == wanted


@pytest.mark.parametrize("series", SERIES, ids=lambda path: path.name)
def test_binding_lacks_nothing_of_the_header_s_flags(series: Path, tmp_path: Path) -> None:
    text = extract_header(series, tmp_path).read_text(encoding="ascii")
    for prefix, kind in FLAGS:
        in_header = set(re.findall(rf"^#define {prefix}_([A-Z_]+)\s+\(1U(?:LL)? <<", text, re.MULTILINE))
        assert in_header == set(kind.__members__), prefix


def test_there_is_a_series_to_compare_with() -> None:
    assert SERIES
