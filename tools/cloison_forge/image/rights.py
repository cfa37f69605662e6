# SPDX-License-Identifier: GPL-2.0-or-later
"""What this process may do to files: tried, for user 0 of a container or of a user namespace is not root everywhere."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def may_own(folder: Path) -> bool:
    """Say whether files in `folder` can be given to other users and device nodes be made there."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(dir=folder, prefix=".rights.") as name:
        node = Path(name) / "null"
        try:
            os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(node, 1, 65534)
        except OSError:
            return False
    return True
