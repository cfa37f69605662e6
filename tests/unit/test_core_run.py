# SPDX-License-Identifier: GPL-2.0-or-later
"""The process runner: output, log, failure messages, time limits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloison_forge.core.errors import CommandError, ToolMissingError
from cloison_forge.core.run import run


def test_returns_output_and_writes_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    assert run(["echo", "a  b"], log=log).output == "a  b\n"
    assert log.read_text() == "+ echo 'a  b'\na  b\n"


def test_failure_names_command_last_lines_and_log(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        run(["sh", "-c", "echo first; echo last >&2; exit 7"], log=tmp_path / "log", hint="try harder")
    assert "failed with status 7" in caught.value.message
    assert "| last" in caught.value.message
    assert caught.value.hint == f"try harder; the whole output is in {tmp_path / 'log'}"


def test_a_signal_is_no_exit_status() -> None:
    with pytest.raises(CommandError, match="killed by signal 9"):
        run(["sh", "-c", "kill -9 $$"])


def test_missing_program_names_the_package() -> None:
    with pytest.raises(ToolMissingError) as caught:
        run(["cloison-no-such-program"])
    assert "apt-get install" in caught.value.hint


@pytest.mark.parametrize("streaming", [False, True])
def test_time_limit_ends_the_whole_group(tmp_path: Path, streaming: bool) -> None:
    with pytest.raises(CommandError, match="did not end within 1 s"):
        run(
            ["sh", "-c", f"(sleep 3; touch {tmp_path}/late) & echo x; wait"],
            timeout=1,
            on_line=(lambda line: None) if streaming else None,
        )
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_lines_are_seen_as_they_come() -> None:
    seen: list[str] = []
    assert run(["printf", "a\\nb\\n"], on_line=seen.append).output == "a\nb\n"
    assert seen == ["a", "b"]
