# SPDX-License-Identifier: GPL-2.0-or-later
"""Host side of Cloison: source, series, Kconfig, kernel, image, machine, report.

Each subpackage is one stage of ``fetch → patch → kconfig → kernel → image → boot → verify``
and offers plain functions; ``tasks.py`` and `tasks` only name them for Invoke.
"""

__version__ = "0.1.0"
