#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Image 'servers', before the last step of all images: take out of the tree ($1) the keys and data that packages
# made for the machine that built it. Whoever runs one of these servers makes its own.
set -eu
cd "$1"

rm -f etc/ssh/ssh_host_*
rm -f etc/nsd/nsd_control.* etc/nsd/nsd_server.*
rm -f etc/ssl/private/ssl-cert-snakeoil.key etc/ssl/certs/ssl-cert-snakeoil.pem
find etc/ssl/certs -xtype l -delete
rm -rf etc/postgresql/15 var/lib/postgresql/15
