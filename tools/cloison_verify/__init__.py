# SPDX-License-Identifier: GPL-2.0-or-later
"""The isolation checks: they run as root inside the booted machine; Python's standard library only."""
