// SPDX-License-Identifier: GPL-2.0-or-later
/* Serial lines by the name that a job gives them: a device, or "virtio-port:NAME". */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "init.h"

#define PATIENCE_MS 10000 /* a virtio port appears a moment after its driver */

/* Find the device of the virtio port called `name`; the kernel numbers them by what else there is. */
static int find_port(const char *name, char *device, size_t size)
{
	const char *ports = "/sys/class/virtio-ports";
	DIR *folder = opendir(ports);
	struct dirent *entry;
	char path[320], found[64];
	int result = -1;

	while (folder && result < 0 && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "%s/%s/name", ports, entry->d_name);
		if (entry->d_name[0] == '.' || read_file(path, found, sizeof(found)) < 0)
			continue;
		found[strcspn(found, "\n")] = '\0';
		if (strcmp(found, name) == 0 && (size_t)snprintf(device, size, "/dev/%s", entry->d_name) < size)
			result = 0;
	}
	if (folder)
		closedir(folder);
	if (result < 0)
		errno = ENOENT;
	return result;
}

/* Write the device that `name` stands for; 0, or -1 with errno. */
static int device_of(const char *name, char *device)
{
	const char *prefix = "virtio-port:";

	if (strncmp(name, prefix, strlen(prefix)) == 0)
		return find_port(name + strlen(prefix), device, PORT_SIZE);
	if ((size_t)snprintf(device, PORT_SIZE, "%s", name) < PORT_SIZE)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

/* Open a line in raw mode, waiting for it to appear; the descriptor, or -1 with errno. `device` gets its path. */
int open_port(const char *name, int flags, char device[PORT_SIZE])
{
	int64_t deadline = now_ms() + PATIENCE_MS;
	int fd;

	for (;;) {
		fd = device_of(name, device) < 0 ? -1 : open_raw(device, flags);
		if (fd >= 0 || (errno != ENOENT && errno != ENXIO) || now_ms() >= deadline)
			return fd;
		usleep(10000);
	}
}
