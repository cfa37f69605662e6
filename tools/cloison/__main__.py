# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 -m cloison``."""

import sys

from cloison.cli import main

sys.exit(main())
