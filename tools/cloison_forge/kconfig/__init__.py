# SPDX-License-Identifier: GPL-2.0-or-later
"""The feature catalogue, the build profiles, and the audit of what Kconfig made of them."""
