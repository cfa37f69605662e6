#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# In the machine: stress for $1 seconds, then ask kmemleak (where the kernel has it) twice, as it wants to be sure.
here=$(dirname "$0")
leaks=/sys/kernel/debug/kmemleak
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
[ -w $leaks ] && echo clear >$leaks
"$here/stress" "$1" || exit 1
[ -w $leaks ] || exit 0
for _ in 1 2; do
	sleep 6
	echo scan >$leaks
done
if [ -s $leaks ] && grep -q . $leaks; then
	cat $leaks
	echo "kmemleak found leaks"
	exit 1
fi
echo "kmemleak found nothing"
