# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that counts instructions: QEMU's TCG with `-icount shift=0`, where one tick is one instruction.

Two runs with the same kernel, command line, memory and clock agree to the instruction. They do not
resolve everything: another memory size moves an operation by a per cent. So each column is
measured in several placements. One processor; cache misses, mispredictions and contention are not seen.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloison_forge.core.errors import MachineError
from cloison_forge.core.paths import project
from cloison_forge.core.run import run
from cloison_forge.core.stage import Stage, digest_files

QEMU = "qemu-system-x86_64"
CLOCK = "2026-01-01T00:00:00"
COMMAND_LINE = "console=ttyS0 quiet nokaslr norandmaps panic=-1 random.trust_cpu=on tsc=reliable lpj=1000000"
TIME_LIMIT = 1200.0


@dataclass(frozen=True)
class Setting:
    """One run: a kernel image, the benchmark's own options, a placement (memory in MiB), and a disk if it needs one."""

    kernel: Path
    options: str
    memory: int
    disk: Path | None = None


def program() -> Path:
    """Compile PID 1 of the benchmark, and pack it as an initial file system; return the archive."""
    source = project().root / "tools" / "cloison_bench"
    files = sorted(source.glob("*.[ch]"))
    stage = Stage("bench", project().build / "bench", {"source": digest_files(files, source)})

    def make(folder: Path) -> None:
        binary = folder / "init"
        sources = [path for path in files if path.suffix == ".c"]
        run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", binary, *sources])
        (folder / "bench.cpio").write_bytes(_archive(binary))

    if not stage.fresh():
        stage.ensure(make)
    return stage.out / "bench.cpio"


def _archive(binary: Path) -> bytes:
    """Return a newc archive with /init and /dev/console (Documentation/driver-api/early-userspace)."""
    entries = (
        ("dev", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)),
        ("init", stat.S_IFREG | 0o755, binary.read_bytes(), (0, 0)),
        ("TRAILER!!!", 0, b"", (0, 0)),
    )
    archive = b""
    for number, (name, mode, data, device) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return archive


def measure(setting: Setting) -> list[dict[str, object]]:
    """Run the benchmark once and return its rows; a run without its last line is an error."""
    scratch = Path(tempfile.mkdtemp(prefix="cloison-bench-"))
    try:
        channel, console = scratch / "channel", scratch / "console"
        run(_command(setting, channel, console), timeout=TIME_LIMIT)
        text = channel.read_text(encoding="utf-8", errors="replace") if channel.exists() else ""
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        failed = next((str(row["error"]) for row in rows if "error" in row), "")
        if failed or not rows or rows[-1].get("bye") != 0:
            last = console.read_text(errors="replace").splitlines()[-3:] if console.exists() else []
            raise MachineError(
                f"the benchmark ended early in {setting.kernel}: {failed or ' / '.join(last) or 'nothing was said'}",
                hint=f"the same by hand: {' '.join(map(str, _command(setting, channel, console)))}",
            )
        return rows
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def empty_xfs(size: int) -> Iterator[Path]:
    """Make a disk of `size` bytes with an empty XFS; it takes room only as it is written to."""
    with tempfile.TemporaryDirectory(prefix="cloison-bench-") as folder:
        disk = Path(folder) / "disk"
        with disk.open("wb") as file:
            file.truncate(size)
        run(["mkfs.xfs", "-q", "-m", "reflink=1", disk])
        yield disk


def _command(setting: Setting, channel: Path, console: Path) -> list[str | os.PathLike[str]]:
    drive = ["-drive", f"file={setting.disk},format=raw,if=virtio,cache=unsafe"] if setting.disk else []
    return [
        QEMU, "-machine", "pc", "-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max",
        "-rtc", f"base={CLOCK},clock=vm", "-m", f"{setting.memory}M", "-smp", "1",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", setting.kernel, "-initrd", program(),
        "-serial", f"file:{console}", "-serial", f"file:{channel}",
        "-append", f"{COMMAND_LINE} {setting.options}", *drive,
    ]  # fmt: skip
