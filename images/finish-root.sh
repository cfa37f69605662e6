#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Last step inside the tree that mmdebstrap has installed ($1): take out all that differs from run
# to run or belongs to the machine that built it, and byte-compile Python so that the same sources
# give the same bytes. Runs as root or as what fakechroot, or a user namespace, takes for root.
set -eu
tree=$1
cd "$tree"

# Python: compiled files that hold a hash of the source instead of its time, in a fixed order.
chroot "$tree" find /usr/lib/python3 /usr/lib/python3.11 -depth -name __pycache__ -exec rm -r '{}' +
chroot "$tree" env PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 \
	python3 -I -m compileall -q -j 1 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11

# The dynamic linker's cache, by the tree's own (static) program: fakechroot puts a dummy in its place.
rm -f etc/ld.so.cache
"$tree/sbin/ldconfig" -r "$tree"

# Written by programs that ran during the installation.
find var/log -type f -delete
rm -rf var/log/journal
find var/cache var/tmp -mindepth 1 -maxdepth 1 -exec rm -rf '{}' +
mkdir -m 0755 -p var/cache/apt/archives/partial
rm -rf var/lib/apt/lists var/lib/systemd/catalog/database var/lib/systemd/random-seed
mkdir -p var/lib/apt/lists/partial
rm -f var/lib/dpkg/*-old var/lib/dpkg/lock* var/lib/dpkg/triggers/Lock var/lib/apt/extended_states
rm -f etc/*- etc/.pwd.lock etc/hostname etc/resolv.conf etc/machine-id var/lib/dbus/machine-id
rm -rf etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap etc/apt/auth.conf.d/*

# dpkg skips the same documentation later, but from now on it waits for the disk.
sed -i '/^force-unsafe-io$/d' etc/dpkg/dpkg.cfg.d/99mmdebstrap

# The machine that boots the image makes its own identity.
: > etc/machine-id
chmod 0444 etc/machine-id
echo cloison > etc/hostname
