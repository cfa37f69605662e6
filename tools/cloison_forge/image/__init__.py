# SPDX-License-Identifier: GPL-2.0-or-later
"""The bootable host image and its root file system."""
