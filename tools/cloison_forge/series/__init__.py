# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch series: applying, editing, exporting and checking it."""
