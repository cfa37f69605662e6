# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures: instruction counts for the kernel, wall-clock ratios for the toolkit. Never timed tests."""
