# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison: the same work natively, in contexts and containers, and in every kind of machine."""
