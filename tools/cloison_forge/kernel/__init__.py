# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling a kernel out of tree, reproducibly."""
