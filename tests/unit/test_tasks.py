# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks as a user meets them: names, help, one-line errors, exit statuses; and a README that tells the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloison_forge.core.paths import project

ROOT = project().root


def invoke(*words: str, build: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"CLOISON_BUILD": str(build), "CLOISON_CACHE": str(build / "cache")} if build else {})}
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words], cwd=ROOT, env=env, text=True, capture_output=True, timeout=120
    )


@pytest.fixture(scope="module")
def listed() -> set[str]:
    lines = invoke("--list").stdout.splitlines()
    found = [match for line in lines if (match := re.match(r"  ([a-z][a-z.]*)(?: \(([a-z]+)\))?(?:  |$)", line))]
    return {name for match in found for name in match.groups() if name}


def test_every_task_of_the_agreed_list_exists(listed: set[str]) -> None:
    wanted = [
        "doctor",
        "fetch",
        "patch",
        "kconfig",
        "kernel",
        "image",
        "boot",
        "verify",
        "build",
        "test",
        "shell",
        "clean",
    ]
    wanted += ["patch.edit", "patch.export", "patch.check", "kconfig.explain", "mutate", "bench"]
    assert set(wanted) <= listed


def test_every_command_in_the_documentation_exists(listed: set[str]) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"\./invoke ([a-z][a-z.]*)", page.read_text("utf-8"))}
    assert named
    assert named - listed == set()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("kernel", "--line", "9.9"), 2, "no kernel line '9.9'"),
        (("verify", "--lane", "vmware"), 2, "no lane 'vmware'"),
        (("test", "--gate", "nothing"), 2, "no gate 'nothing'"),
        (("verify", "--suite", "nothing"), 2, "nothing"),
        (("mutate", "--hook", "NOTHING"), 2, "no hook 'NOTHING'"),
        (("shell", "--share", "/no/such/folder", "--", "true"), 2, "is no folder"),
        (("fetch", "--origin", "floppy"), 2, "floppy"),
        (("clean", "--line", "6.12"), 2, "nothing is built"),
    ],
)
def test_bad_input_ends_in_one_line_and_a_hint(words: tuple[str, ...], status: int, text: str, tmp_path: Path) -> None:
    result = invoke(*words, build=tmp_path)
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert "hint" in result.stderr
    assert result.returncode == status


def test_clean_says_what_it_would_remove_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "6.12").mkdir()
    (tmp_path / "6.12" / "file").write_bytes(b"x" * 5000)
    result = invoke("clean", "--dry-run", build=tmp_path)
    assert f"would remove {tmp_path}" in result.stderr
    assert (tmp_path / "6.12" / "file").exists()
    assert invoke("clean", build=tmp_path).returncode == 0
    assert not tmp_path.exists()


def test_json_goes_to_standard_output_alone() -> None:
    result = invoke("verify", "--coverage", "--json", "-")
    assert json.loads(result.stdout)["schema"] == "cloison-coverage-1"


def test_task_files_stay_names_and_options_only() -> None:
    for path in (ROOT / "tasks.py", *(ROOT / "tools" / "cloison_forge" / "tasks").glob("*.py")):
        for function in re.split(r"^def ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            body = [line for line in function.splitlines() if line.strip()]
            assert len(body) < 40, body[0]
