# SPDX-License-Identifier: GPL-2.0-or-later
"""The Kconfig files of a kernel tree, through kconfiglib: to check names, explain and diagnose.

The kernel's own ``conf`` resolves; kconfiglib's answers for choices differ from it since 6.9.
"""

from __future__ import annotations

import io
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from cloison_forge.core.errors import BuildError

_MODULES = re.compile(r"^(\s+)modules[ \t]*$", re.MULTILINE)
_TRANSITIONAL = re.compile(r"^\s+transitional[ \t]*$", re.MULTILINE)
SOURCE_ARCH = {"x86_64": "x86", "um": "um", "arm64": "arm64", "riscv": "riscv"}
# Variables of a user's shell that kbuild listens to; they must not decide what is configured or compiled.
NEUTRAL = dict.fromkeys(
    ("CROSS_COMPILE", "KAFLAGS", "KCFLAGS", "KCPPFLAGS", "KBUILD_VERBOSE", "LLVM", "LLVM_IAS", "MAKEFLAGS", "MFLAGS"),
    "",
)
CROSS = {"arm64": "aarch64-linux-gnu-", "riscv": "riscv64-linux-gnu-"}


def modern_syntax(text: str) -> str:
    """Rewrite two keywords that kconfiglib 14.1 does not know: ``modules`` (5.13) and ``transitional`` (6.18)."""
    return _TRANSITIONAL.sub("", _MODULES.sub(r"\1option modules", text))


def cross_prefix(arch: str) -> str:
    """Return the prefix of the compiler for `arch`, empty when this machine's own one will do."""
    here = platform.machine()
    native = {"x86_64": "x86_64", "aarch64": "arm64", "riscv64": "riscv"}.get(here)
    return "" if arch in (native, "um") else CROSS.get(arch, "x86_64-linux-gnu-" if arch == "x86_64" else "")


def kernel_version(tree: Path) -> str:
    """Return 'VERSION.PATCHLEVEL.SUBLEVEL' from the tree's Makefile, for example '6.12.117'."""
    try:
        head = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")[:2000]
    except OSError:
        raise BuildError(f"{tree} holds no kernel source: it has no Makefile") from None
    parts = [re.search(rf"^{name} *= *(\S*)", head, re.MULTILINE) for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(parts):
        raise BuildError(f"{tree}/Makefile names no kernel version")
    return ".".join(part[1] for part in parts if part)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables in ``os.environ`` for a block: kconfiglib reads there what the kernel's Makefile would set."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@lru_cache(maxsize=1)
def _shimmed() -> type[Any]:
    import kconfiglib

    class KernelKconfig(kconfiglib.Kconfig):  # type: ignore[misc]
        """kconfiglib's parser, reading today's kernels."""

        def _open(self, filename: str, mode: str) -> IO[str]:
            if mode != "r":
                return open(filename, mode, encoding="utf-8")
            with open(filename, encoding="utf-8", errors="replace") as stream:
                return io.StringIO(modern_syntax(stream.read()))

    return KernelKconfig


def parse(tree: Path, arch: str) -> Any:
    """Parse the Kconfig files of `tree` for `arch` (about 3 s) and return a ``kconfiglib.Kconfig``."""
    import kconfiglib

    source_arch = SOURCE_ARCH[arch]
    prefix = cross_prefix(arch)
    values = {
        "srctree": str(tree),
        "ARCH": arch,
        "SRCARCH": source_arch,
        "SUBARCH": "x86_64" if arch == "um" else arch,
        "HEADER_ARCH": "x86" if arch == "um" else source_arch,
        "KERNELVERSION": kernel_version(tree),
        "CC": f"{prefix}gcc",
        "LD": f"{prefix}ld",
        "AR": f"{prefix}ar",
        "NM": f"{prefix}nm",
        "OBJCOPY": f"{prefix}objcopy",
        "HOSTCC": "gcc",
        "HOSTCXX": "g++",
        "RUSTC": "rustc",
        "BINDGEN": "bindgen",
        "PAHOLE": "pahole",
        "CLANG_FLAGS": "",
        "KCONFIG_WARN_UNDEF": "n",
        "LC_ALL": "C",
    }
    with environment(values):
        try:
            return _shimmed()("Kconfig", warn=False)
        except (kconfiglib.KconfigError, OSError) as error:
            raise BuildError(f"the Kconfig files of {tree} cannot be read: {str(error).strip()}") from None


def files(kconf: Any, tree: Path) -> list[str]:
    """Return the Kconfig files that were read, relative to the tree, sorted."""
    return sorted({name for name in kconf.kconfig_filenames if (tree / name).is_file()})


def load_values(kconf: Any, config: Path) -> None:
    """Give every symbol the value that the kernel's own ``conf`` wrote to `config`."""
    kconf.load_config(str(config))
