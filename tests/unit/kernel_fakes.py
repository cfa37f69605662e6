# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree of a few lines that answers the same make targets as the real one, with faults on request.

Its configuration is resolved by kconfiglib from real Kconfig files, its objects are compiled by the real
compiler. Files in the tree switch faults on: ``slow`` makes each object take its contents in seconds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KCONFIG = """\
config MODULES
	bool "Modules"
	modules

config 64BIT
	bool "64-bit"

config EXPERT
	bool "Expert"

config NET
	bool "Networking"

config INET
	bool "TCP/IP"
	depends on NET

config NETFILTER
	bool "Netfilter"
	depends on NET && (INET || EXPERT)
	select NF_CORE

config NF_CORE
	bool

config QUIET
	bool "Quiet"
	depends on !NET

config SECURITY
	bool "Security"

config FORCER
	bool "Forcer"
	select SECURITY

config COUNT
	int "Count"
	range 1 8
	default 2

config LOCALVERSION
	string "Local version"

choice
	prompt "Mode"
	default MODE_A
config MODE_A
	bool "A"
config MODE_B
	bool "B"
endchoice

source "kernel/vserver/Kconfig"
"""

VSERVER_KCONFIG = """\
config VSERVER
	bool "Context isolation"
	select SECURITY
	help
		Text about contexts.
"""

CONF_TEXT = """\
import os
import sys
from pathlib import Path

sys.path.insert(0, {tools!r})
from cloison_forge.kconfig import tree

target, source = sys.argv[1], Path(sys.argv[2])
kconf = tree.parse(source, os.environ["ARCH"])
out = os.environ["KCONFIG_CONFIG"]
if target == "allnoconfig":
    import kconfiglib

    for symbol in kconf.unique_defined_syms:
        if symbol.type in (kconfiglib.BOOL, kconfiglib.TRISTATE) and symbol.choice is None:
            symbol.set_value(0)
    kconf.load_config(os.environ["KCONFIG_ALLCONFIG"], replace=False)
elif target == "olddefconfig":
    kconf.load_config(out)
kconf.write_config(out)
"""

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
export ARCH
IMAGE_um = linux
IMAGE_x86_64 = arch/x86/boot/bzImage
OBJECTS = init.o fork.o pid.o main.o

allnoconfig defconfig olddefconfig:
	@{python} conf.py $@ $(CURDIR)

prepare:
	@mkdir -p $(O)/include/config $(O)/arch/x86/boot
	@echo 6.12.1-test > $(O)/include/config/kernel.release
	@echo prepare >> $(CURDIR)/calls

$(O)/%.o: %.c $(O)/.config
	@echo '  CC      $*.o'
	@if [ -f slow ]; then sleep `cat slow`; fi
	@cd $(O) && $(CC) $(KCPPFLAGS) $(KCFLAGS) -Wall -c -o $*.o $(abs_srctree)/$*.c && : > .$*.o.cmd

vmlinux: prepare $(addprefix $(O)/,$(OBJECTS))
	@echo '  LD      vmlinux'
	@cd $(O) && $(CC) -Wl,--build-id=none -o vmlinux $(OBJECTS)
	@nm $(O)/vmlinux > $(O)/System.map

linux bzImage: vmlinux
	@echo $@ >> $(CURDIR)/calls
	@cp $(O)/vmlinux $(O)/$(IMAGE_$(ARCH))
"""


@dataclass
class FakeTree:
    """The fake kernel tree, as the series room would hand it over."""

    path: Path
    key: str = "tree-1"
    series_sha256: str = "0"

    @property
    def provenance(self) -> dict[str, object]:
        return {"variant": "on", "patches": ["fake.patch"], "series_sha256": self.series_sha256}

    @property
    def calls(self) -> list[str]:
        """The targets that were made, in order."""
        file = self.path / "calls"
        return file.read_text().split() if file.exists() else []


def make_tree(folder: Path) -> FakeTree:
    """Write the fake kernel tree into `folder`."""
    (folder / "kernel" / "vserver").mkdir(parents=True)
    (folder / "Kconfig").write_text(KCONFIG)
    (folder / "kernel" / "vserver" / "Kconfig").write_text(VSERVER_KCONFIG)
    (folder / "conf.py").write_text(CONF_TEXT.format(tools=str(Path(__file__).resolve().parents[2] / "tools")))
    (folder / "Makefile").write_text(MAKEFILE.replace("{python}", sys.executable))
    for name in ("init", "fork", "pid"):
        (folder / f"{name}.c").write_text(
            f"int {name}(void) {{ return {len(name)}; }}\n#ifdef OF_THE_USER\n#error x\n#endif\n"
        )
    (folder / "main.c").write_text("const char *where = __FILE__;\nint main(void) { return 0; }\n")
    return FakeTree(folder)


@dataclass(frozen=True)
class FakeLine:
    """A kernel line that needs no kernels.toml."""

    name: str = "6.12"
    package_version: str = "6.12.1-1"


def line() -> Any:
    """Return the fake kernel line."""
    return FakeLine()


def write_profile(root: Path, name: str = "vm", fragment: str = "CONFIG_NET=y\n", **keys: str) -> Path:
    """Write a profile with one fragment of the same name; return the fragment's path."""
    folder = root / "kconfig" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    variants = root / "kconfig" / "variants"
    variants.mkdir(exist_ok=True)
    (variants / "on.config").write_text("CONFIG_VSERVER=y\n")
    (variants / "off.config").write_text("# CONFIG_VSERVER is not set\n")
    text = "".join(f'{key} = "{value}"\n' for key, value in {"arch": "x86_64", **keys}.items())
    (folder / f"{name}.toml").write_text(f'{text}fragments = ["{name}.config"]\n')
    path = folder / f"{name}.config"
    path.write_text(fragment)
    return path


def checkout(folder: Path, monkeypatch: Any) -> Path:
    """Make the toolkit believe that `folder` is the checkout, with its own cache; return it."""
    from cloison_forge.core import paths

    monkeypatch.setattr(paths, "find_root", lambda _: folder)
    monkeypatch.setenv("CLOISON_CACHE", str(folder / "cache"))
    monkeypatch.delenv("CLOISON_BUILD", raising=False)
    monkeypatch.delenv("CCACHE_DIR", raising=False)
    paths.project.cache_clear()
    return folder
