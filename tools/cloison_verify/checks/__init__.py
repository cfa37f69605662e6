# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks, one module for each suite; importing a module registers its checks and does nothing else."""
