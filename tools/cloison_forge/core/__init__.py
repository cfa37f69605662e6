# SPDX-License-Identifier: GPL-2.0-or-later
"""What every stage shares: errors, the process runner, paths, stages, locks, the terminal."""
