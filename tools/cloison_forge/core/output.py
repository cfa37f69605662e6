# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers for programs: `--json PATH`, with `-` for standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cloison_forge.core.errors import UsageError
from cloison_forge.core.stage import write_json


def write(target: str, value: object) -> None:
    """Write `value` as JSON to a file, whole or not at all, or to standard output when `target` is '-'."""
    if target == "-":
        json.dump(value, sys.stdout, indent=2, sort_keys=True, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    path = Path(target)
    if path.is_dir():
        raise UsageError(f"--json {target} is a folder", hint="name a file, or - for standard output")
    try:
        write_json(path, value)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}", hint="name another file, or -") from None
