// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What it costs to get a copy of a shared file by opening it for writing, beside making such a copy
 * with the calls that a program has: the difference is the price of the name.
 *
 * On tmpfs: there is no device, and a flush writes nothing, so what is counted is the kernel's work.
 * On XFS, if the machine has such a disk: a large file, whose copy shares its blocks.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS 51
#define CHUNK (1 << 20)

/* Where the file is, how large, and whether a copy shares its blocks. */
static struct place {
	const char *folder;
	const char *said;
	uint64_t size;
	bool clones;
} place;
static char name[64], kept[64], fresh[64];
static const struct { uint32_t version, flags; } iunlink = { 1, 0x20000 };

static void fill(void)
{
	static char content[CHUNK];
	int fd = open(kept, O_RDWR | O_CREAT | O_TRUNC, 0644);
	size_t size;

	for (uint64_t done = 0; done < place.size; done += size) {
		size = place.size - done < CHUNK ? place.size - done : CHUNK;
		must(fd >= 0 && write(fd, content, size) == (ssize_t)size, "write");
	}
	must(setxattr(kept, "trusted.vserver", &iunlink, sizeof(iunlink), 0) == 0 && fsync(fd) == 0, "setxattr");
	close(fd);
}

static void make(int immutable)
{
	int fd = open(kept, O_RDONLY), flags = 0;

	must(fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0, "getflags");
	flags |= immutable ? FS_IMMUTABLE_FL : 0;
	must(ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0, "setflags");
	close(fd);
	must(link(kept, name) == 0, "link");
}

static void drop(void)
{
	must(unlink(name) == 0, "unlink");
}

static uint64_t by_kernel(void)
{
	uint64_t begun = counter();
	int fd = open(name, O_WRONLY);

	begun = counter() - begun;
	must(fd >= 0, "open of a shared file");
	close(fd);
	return begun;
}

static uint64_t by_program(void)
{
	uint64_t begun = counter();
	int from = open(name, O_RDONLY), to = open(place.folder, O_TMPFILE | O_WRONLY, 0600);
	struct stat old;
	char path[32];

	must(from >= 0 && to >= 0 && fstat(from, &old) == 0, "open");
	if (place.clones)
		must(ioctl(to, FICLONE, from) == 0, "clone");
	else
		must(sendfile(to, from, NULL, place.size) == (ssize_t)place.size, "sendfile");
	must(fsync(to) == 0, "fsync");
	must(fchown(to, old.st_uid, old.st_gid) == 0 && fchmod(to, old.st_mode) == 0, "fchown");
	must(futimens(to, (struct timespec[]) { old.st_atim, old.st_mtim }) == 0, "futimens");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", to);
	must(linkat(AT_FDCWD, path, AT_FDCWD, fresh, AT_SYMLINK_FOLLOW) == 0, "linkat");
	must(rename(fresh, name) == 0, "rename");
	close(from);
	close(to);
	to = open(name, O_WRONLY);
	begun = counter() - begun;
	close(to);
	return begun;
}

static uint64_t plain(void)
{
	uint64_t begun = counter();
	int fd = open(name, O_WRONLY);

	begun = counter() - begun;
	close(fd);
	return begun;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void row(const char *what, int immutable, uint64_t (*body)(void))
{
	uint64_t values[ROUNDS];

	for (int round = 0; round < ROUNDS; round++) {
		make(immutable);
		values[round] = body();
		drop();
	}
	qsort(values, ROUNDS, sizeof(values[0]), by_value);
	emit("{\"row\":\"%s, %s\",\"median\":%llu,\"p98\":%llu,\"least\":%llu,\"count\":%d}", what, place.said,
	     (unsigned long long)values[ROUNDS / 2], (unsigned long long)values[ROUNDS - 1],
	     (unsigned long long)values[0], ROUNDS);
}

static void place_rows(struct place where)
{
	place = where;
	snprintf(name, sizeof(name), "%s/shared", place.folder);
	snprintf(kept, sizeof(kept), "%s/kept-%llu", place.folder, (unsigned long long)place.size);
	snprintf(fresh, sizeof(fresh), "%s/fresh", place.folder);
	fill();
	row("open for writing", 0, plain);
	row("copy by a program", 0, by_program);
	row("copy of a shared file", 1, by_kernel);
}

void share_rows(const char *device)
{
	place_rows((struct place){ "/tmp", "4 KiB on tmpfs", 4096, false });
	if (!*device)
		return;
	mkdir("/mnt", 0755);
	must(mount(device, "/mnt", "xfs", 0, NULL) == 0, "mount of the XFS disk");
	place_rows((struct place){ "/mnt", "4 KiB on XFS", 4096, true });
	place_rows((struct place){ "/mnt", "1 GiB on XFS", 1ull << 30, true });
}
