# SPDX-License-Identifier: GPL-2.0-or-later
"""Lanes: ways to run the patched kernel, behind one interface with named outcomes."""
