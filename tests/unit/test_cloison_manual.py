# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed beside the package: manual page, completion, start script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cloison import manual
from cloison.parser import COMMANDS, build

SHARE = Path(manual.__file__).with_name("share")


def test_the_page_is_what_the_parser_says() -> None:
    assert (SHARE / "cloison.8").read_text(encoding="utf-8") == manual.render()


def test_the_page_has_every_option() -> None:
    page = manual.render()
    for parser in build()[1].values():
        for action in parser._actions:
            for name in action.option_strings:
                assert f"\\fB{manual.escape(name)}\\fR" in page


def test_completion_knows_every_subcommand_and_is_bash() -> None:
    text = (SHARE / "cloison.bash").read_text(encoding="utf-8")
    assert f"'{' '.join(COMMANDS)}'" in text
    subprocess.run(["bash", "-n", str(SHARE / "cloison.bash")], check=True)


def test_the_start_script_is_isolated_and_short() -> None:
    lines = (SHARE / "cloison").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/python3 -I"
    done = subprocess.run(
        [sys.executable, str(SHARE / "cloison"), "--version"],
        env={"PYTHONPATH": str(SHARE.parents[1])},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("cloison ")
