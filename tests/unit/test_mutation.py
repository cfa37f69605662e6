# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hooks the series has, and what counts as a survivor."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison_forge import mutation
from cloison_forge.core.errors import ExitStatus
from cloison_forge.core.paths import project
from cloison_forge.mutation import Mutant, _not_compiled, _report, hooks, remembered
from cloison_verify import catalogue


def test_hooks_are_read_off_the_series(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("# first\none.patch\ntwo.patch\n")
    (tmp_path / "one.patch").write_text(
        "+#define vx_hook(name) true\n+\tif (vx_hook(FIND_PID) && !vx_hook(KILL_2))\n vx_hook(CONTEXT_LINE)\n"
    )
    (tmp_path / "two.patch").write_text("-\tif (vx_hook(KILL_2))\n+\tif (vx_hook(PTRACE))\n")
    assert hooks(tmp_path) == ["FIND_PID", "PTRACE"]


def test_a_hook_that_moves_to_another_file_stays(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("one.patch\ntwo.patch\n")
    (tmp_path / "one.patch").write_text("+++ b/kernel/info.c\n+\treturn vx_hook(BCAPS);\n")
    (tmp_path / "two.patch").write_text(
        "+++ b/kernel/caps.c\n+\treturn vx_hook(BCAPS);\n+++ b/kernel/info.c\n-\treturn vx_hook(BCAPS);\n"
    )
    assert hooks(tmp_path) == ["BCAPS"]


def test_hooks_are_not_read_off_documentation(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("one.patch\n")
    (tmp_path / "one.patch").write_text(
        "+++ b/Documentation/x.rst\n+what stands in ``vx_hook(HOOK)``\n+++ b/kernel/x.c\n+\treturn vx_hook(PTRACE);\n"
    )
    assert hooks(tmp_path) == ["PTRACE"]


def test_the_real_series_has_hooks() -> None:
    names = hooks(project().patches / "6.12")
    assert len(names) == len(set(names)) > 0
    assert "HOOK" not in names


def test_each_hook_has_a_check_that_noticed() -> None:
    memory, names, checks = remembered(), hooks(project().patches / "6.12"), catalogue.load()
    assert sorted(memory) == sorted(names), "run ./invoke mutate --hook NAME for a new hook, and add it to mutants.csv"
    assert set(memory.values()) <= set(checks)


def test_a_run_of_some_hooks_leaves_the_memory_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "MEMORY", tmp_path / "mutants.csv")
    mutation.MEMORY.write_text("hook,check\nGONE,a.x\nNEW,a.wrong\nOLD,a.x\nSILENT,a.y\nSTILL,a.z\n")
    mutation._record(
        [
            Mutant("NEW", "uml", ("a.b", "a.c"), "ready"),
            Mutant("STILL", "uml", ("a.b", "a.z"), "ready"),
            Mutant("SILENT", "uml", (), "ready"),
        ],
        ["NEW", "OLD", "SILENT", "STILL"],
    )
    assert remembered() == {"NEW": "a.b", "OLD": "a.x", "STILL": "a.z"}


def test_a_hook_that_is_not_compiled_is_no_survivor() -> None:
    assert _not_compiled(["PTRACE", "PERF_EVENT"], "CONFIG_VSERVER=y\n# CONFIG_PERF_EVENTS is not set") == [
        "PERF_EVENT"
    ]
    assert _not_compiled(["PTRACE", "PERF_EVENT"], "CONFIG_PERF_EVENTS=y") == []


@pytest.mark.parametrize(
    ("mutant", "survived"),
    [
        (Mutant("A", "uml", ("process.kill",), "ready"), False),
        (Mutant("A", "uml", (), "ready"), True),
        (Mutant("A", "uml", (), "panic"), False),
    ],
)
def test_only_silence_survives(mutant: Mutant, survived: bool) -> None:
    assert mutant.survived is survived


def test_one_survivor_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    caught, silent = Mutant("A", "uml", ("process.kill",), "ready"), Mutant("B", "uml", (), "ready")
    assert _report([caught], "") == ExitStatus.GOOD
    assert _report([caught, silent], "") == ExitStatus.CHECK
    assert "1 of 2 hooks can be turned off unnoticed: B" in capsys.readouterr().err
