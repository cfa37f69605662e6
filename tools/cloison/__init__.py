# SPDX-License-Identifier: GPL-2.0-or-later
"""Target side of Cloison: the vserver system call in Python, contexts as objects, the ``cloison`` command.

Standard library only: this package is copied into the machines that run a Cloison kernel.
"""

__version__ = "0.1.0"
