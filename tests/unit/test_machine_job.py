# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host writes on a job disk, PID 1 reads; what leads out of its folder, PID 1 refuses."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.unit.machine_fakes import PLAN

from cloison_forge.core.errors import UsageError
from cloison_forge.machine import verification
from cloison_forge.machine.job import MAGIC, Job, Share, Window

INIT = Path(__file__).resolve().parents[2] / "images" / "init"

HARNESS = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "init.h"
int main(int argc, char *argv[])
{
	static struct job job;
	struct sha256 sum;
	char hex[65], data[1000];
	ssize_t length;

	if (argc > 1 && strcmp(argv[1], "sha256") == 0) {
		sha256_start(&sum);
		while ((length = read(0, data, sizeof(data))) > 0)
			sha256_add(&sum, data, (size_t)length);
		sha256_end(&sum, hex);
		puts(hex);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "json") == 0) {
		struct text text = { data, sizeof(data), 0, 0 };
		text_add_json(&text, argv[2]);
		puts(text.overflown ? "overflown" : data);
		return 0;
	}
	int found = job_find(&job);
	printf("found %d\n", found);
	if (found <= 0)
		return 0;
	printf("nonce %s mode %s channel %s terminal %s ending %s\n", job.nonce, job.mode, job.channel, job.terminal,
		job.ending);
	printf("share %s %s term %s %u %u\n", job.share_type, job.share_from, job.term, job.rows, job.columns);
	for (size_t i = 0; i < job.planned; i++)
		printf("check %s %u\n", job.plan[i].id, job.plan[i].seconds);
	fflush(stdout);
	printf("unpacked %d\n", job_unpack(&job));
	return 0;
}
"""


@pytest.fixture(name="reader", scope="module")
def fixture_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile PID 1's reader against a harness, with files in place of disks."""
    folder = tmp_path_factory.mktemp("init")
    (folder / "harness.c").write_text(HARNESS, encoding="utf-8")
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-g"]
    command += [f'-DJOB_FOLDER="{folder}/out"', f'-DJOB_DISKS="{folder}/missing", "{folder}/disk"', f"-I{INIT}"]
    sources = [str(INIT / name) for name in ("job.c", "util.c", "sha256.c")]
    subprocess.run([*command, "-o", str(folder / "reader"), str(folder / "harness.c"), *sources], check=True)
    return folder / "reader"


def read(reader: Path, disk: bytes) -> tuple[list[str], str, Path]:
    folder = reader.parent
    (folder / "disk").write_bytes(disk)
    out = folder / "out"
    if out.exists():
        subprocess.run(["rm", "-r", str(out)], check=True)
    result = subprocess.run([str(reader)], capture_output=True, text=True, check=True)
    return result.stdout.splitlines(), result.stderr, out


def test_pid_1_reads_what_the_host_writes(reader: Path, tmp_path: Path) -> None:
    job = Job(
        "verify",
        PLAN,
        command=("sh", "-c", 'echo "a  b"', ""),
        window=Window("xterm-256color", 24, 80),
        share=Share("hostfs", "/some/folder with blanks"),
    )
    job.write(tmp_path / "job.tar", channel="/dev/ttyS1", terminal="/dev/ttyS2", ending="reboot")
    disk = (tmp_path / "job.tar").read_bytes()
    assert len(disk) % 512 == 0
    lines, _, out = read(reader, disk)
    assert lines[0] == "found 1"
    assert lines[1] == f"nonce {job.nonce} mode verify channel /dev/ttyS1 terminal  ending reboot"
    assert lines[2] == "share hostfs /some/folder with blanks term xterm-256color 24 80"
    assert lines[3:] == [f"check {check.id} {check.seconds}" for check in PLAN] + ["unpacked 0"]
    assert (out / "argv").read_bytes() == b'sh\0-c\0echo "a  b"\0\0'
    package = INIT.parents[1] / "tools" / "cloison_verify"
    for path in package.rglob("*.py"):
        assert (out / "lib" / path.relative_to(package.parent)).read_bytes() == path.read_bytes()


def archive(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


TEXT = b"nonce 0123\nmode boot\nchannel /dev/ttyS0\n"


@pytest.mark.parametrize(
    ("disk", "answer"),
    [
        (b"", "found 0"),
        (b"\0" * 4096, "found 0"),
        (b"\xff" * 4096, "found 0"),
        (archive(("other", b"x")), "found 0"),
        (archive((MAGIC, b"")), "found -1"),
        (archive((MAGIC, b"nonce 1\nmode boot\n")), "found -1"),
        (archive((MAGIC, TEXT + b"colour blue\n")), "found -1"),
        (archive((MAGIC, TEXT + b"mode " + b"x" * 100 + b"\n")), "found -1"),
        (archive((MAGIC, TEXT + b"check a.b 0\n")), "found -1"),
        (archive((MAGIC, TEXT + b"check a.b\n")), "found -1"),
        (archive((MAGIC, TEXT))[:520], "found -1"),
    ],
)
def test_what_is_no_job_is_none(reader: Path, disk: bytes, answer: str) -> None:
    assert read(reader, disk)[0][0] == answer


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a/..", "/tmp/evil-cloison"])
def test_names_that_lead_out_are_refused(reader: Path, name: str) -> None:
    disk = archive((MAGIC, TEXT), (name, b"evil"))
    lines, errors, out = read(reader, disk)
    assert lines[-1] == "unpacked -1"
    assert "cannot unpack" in errors
    assert not (out.parent / "evil").exists()
    assert not Path("/tmp/evil-cloison").exists()


def test_links_and_damage_are_refused(reader: Path) -> None:
    buffer = io.BytesIO(archive((MAGIC, TEXT)))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.USTAR_FORMAT) as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert read(reader, buffer.getvalue())[0][-1] == "unpacked -1"
    damaged = bytearray(archive((MAGIC, TEXT), ("file", b"x" * 600)))
    damaged[1024 + 10] ^= 1
    assert read(reader, bytes(damaged))[0][-1] == "unpacked -1"
    assert read(reader, archive((MAGIC, TEXT), ("file", b"x" * 6000))[:2600])[0][-1] == "unpacked -1"


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 100_003])
def test_sha256_is_the_standard_one(reader: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    result = subprocess.run([str(reader), "sha256"], input=data[:size], capture_output=True, check=True)
    assert result.stdout.decode().strip() == hashlib.sha256(data[:size]).hexdigest()


def test_json_text_is_ascii_and_bounded(reader: Path) -> None:
    def told(text: str) -> str:
        return subprocess.run([str(reader), "json", text], capture_output=True, text=True, check=True).stdout.strip()

    assert told('a"b\\c\n') == r'"a\"b\\c\u000a"'
    assert told("é") == r'"\u00c3\u00a9"'
    assert told("x" * 2000) == "overflown"


def test_a_job_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line break"):
        Job("shell", share=Share("hostfs", "/a\nb")).text(channel="c", terminal="t", ending="e")
    with pytest.raises(UsageError, match="bytes long"):
        Job("shell", command=("x" * 200_000,)).write(tmp_path / "job", channel="c", terminal="t", ending="e")


def test_pid_1_compiles_without_a_warning(tmp_path: Path) -> None:
    out = tmp_path / "init"
    subprocess.run(["make", "-s", "-C", str(INIT), f"OUT={out}"], check=True)
    kind = subprocess.run(["file", str(out)], capture_output=True, text=True, check=False).stdout
    assert out.stat().st_size > 100_000
    assert not kind or "statically linked" in kind


def test_a_slow_kernel_gets_more_time() -> None:
    plan = verification.make_plan("uml", "abi")
    slow = verification.patient(plan, 8)
    assert [check.id for check in slow.checks] == [check.id for check in plan.checks]
    assert all(then.seconds == 8 * now.seconds for now, then in zip(plan.checks, slow.checks, strict=True))
    assert verification.patient(plan, 1000).checks[0].seconds == 3600
