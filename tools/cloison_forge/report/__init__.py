# SPDX-License-Identifier: GPL-2.0-or-later
"""Verification results as a table, JSON, JUnit and a page."""
