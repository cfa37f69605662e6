# SPDX-License-Identifier: GPL-2.0-or-later
"""Where kernel sources come from, and the proof that they do."""
