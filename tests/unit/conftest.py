# SPDX-License-Identifier: GPL-2.0-or-later
"""Properties are tried without a limit of time, and in CI with the same examples every time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "cloison", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cloison")
