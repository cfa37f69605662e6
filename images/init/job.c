// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The job disk: a plain ustar archive on a whole read-only disk. Its first member, "cloison-job",
 * is a text of "WORD VALUE" lines; the other members are files that the job needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

/* Second (and third) disks: UML, virtio, ATA and SCSI, Xen. */
#ifndef JOB_DISKS
#define JOB_DISKS \
	"/dev/ubdb", "/dev/vdb", "/dev/sdb", "/dev/hdb", "/dev/xvdb", "/dev/ubdc", "/dev/vdc", "/dev/sdc"
#endif

static const char *const candidates[] = { JOB_DISKS };

struct member {
	char name[257];
	char type;
	mode_t mode;
	uint64_t size;
	off_t data;
};

static int read_block(int fd, off_t offset, unsigned char block[512])
{
	return pread(fd, block, 512, offset) == 512 ? 0 : -1;
}

/* Read an octal field; -1 when it is none. */
static int64_t octal(const unsigned char *field, size_t size)
{
	int64_t value = 0;
	size_t i = 0;

	while (i < size && field[i] == ' ')
		i++;
	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		value = value * 8 + (field[i] - '0');
	if (i < size && field[i] != '\0' && field[i] != ' ')
		return -1;
	return value;
}

/* Read the member header at `offset`: 1 a member, 0 the end of the archive, -1 no ustar header. */
static int read_member(int fd, off_t offset, struct member *member)
{
	unsigned char block[512];
	int64_t sum = 0, wanted, size, mode;

	if (read_block(fd, offset, block) < 0)
		return -1;
	wanted = octal(block + 148, 8);
	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(block); i++)
		sum += block[i];
	if (sum == 8 * ' ')
		return 0;
	size = octal(block + 124, 12);
	mode = octal(block + 100, 8);
	if (sum != wanted || memcmp(block + 257, "ustar", 5) != 0 || size < 0 || mode < 0)
		return -1;
	if (block[345])
		snprintf(member->name, sizeof(member->name), "%.155s/%.100s", (char *)block + 345, (char *)block);
	else
		snprintf(member->name, sizeof(member->name), "%.100s", (char *)block);
	member->type = block[156] ? (char)block[156] : '0';
	member->mode = (mode_t)mode & 0777;
	member->size = (uint64_t)size;
	member->data = offset + 512;
	return 1;
}

static off_t next_member(const struct member *member)
{
	return member->data + (off_t)((member->size + 511) & ~(uint64_t)511);
}

/* Copy a value if it fits; -1 if not. */
static int keep(char *to, size_t size, const char *value)
{
	if (strlen(value) >= size)
		return -1;
	strcpy(to, value);
	return 0;
}

static int add_check(struct job *job, const char *value)
{
	struct planned *grown = realloc(job->plan, (job->planned + 1) * sizeof(*grown));
	struct planned *item;

	if (!grown)
		return -1;
	job->plan = grown;
	item = &grown[job->planned];
	if (sscanf(value, "%95s %u", item->id, &item->seconds) != 2 || item->seconds == 0)
		return -1;
	job->planned++;
	return 0;
}

/* Take one line of the job text; -1 when it is not understood. */
static int take(struct job *job, const char *word, const char *value)
{
	if (strcmp(word, "nonce") == 0)
		return keep(job->nonce, sizeof(job->nonce), value);
	if (strcmp(word, "mode") == 0)
		return keep(job->mode, sizeof(job->mode), value);
	if (strcmp(word, "ending") == 0)
		return keep(job->ending, sizeof(job->ending), value);
	if (strcmp(word, "channel") == 0)
		return keep(job->channel, sizeof(job->channel), value);
	if (strcmp(word, "terminal") == 0)
		return keep(job->terminal, sizeof(job->terminal), value);
	if (strcmp(word, "share-type") == 0)
		return keep(job->share_type, sizeof(job->share_type), value);
	if (strcmp(word, "share-from") == 0)
		return keep(job->share_from, sizeof(job->share_from), value);
	if (strcmp(word, "term") == 0)
		return keep(job->term, sizeof(job->term), value);
	if (strcmp(word, "window") == 0)
		return sscanf(value, "%u %u", &job->rows, &job->columns) == 2 ? 0 : -1;
	if (strcmp(word, "check") == 0)
		return add_check(job, value);
	return -1;
}

/* Parse the job text in place; -1 when a line is not understood. */
static int parse(struct job *job, char *text)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *value = strchr(line, ' ');

		if (!value)
			return -1;
		*value++ = '\0';
		if (take(job, line, value) < 0) {
			say("job: '%s %s' is not understood", line, value);
			return -1;
		}
	}
	return job->nonce[0] && job->mode[0] && job->channel[0] ? 0 : -1;
}

/* Read the job on one disk: 1 found, 0 none, -1 found and broken. */
static int read_job(const char *device, struct job *job)
{
	struct member member;
	char *text;
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	int result = 0;

	if (fd < 0)
		return 0;
	if (read_member(fd, 0, &member) == 1 && strcmp(member.name, JOB_MAGIC) == 0) {
		result = -1;
		text = member.size < 1024 * 1024 ? calloc(1, member.size + 1) : NULL;
		if (text && pread(fd, text, member.size, member.data) == (ssize_t)member.size && parse(job, text) == 0) {
			keep(job->device, sizeof(job->device), device);
			result = 1;
		}
		free(text);
	}
	close(fd);
	return result;
}

/* Look for the job on the disks of all lanes: 1 found, 0 none, -1 found and broken. */
int job_find(struct job *job)
{
	for (size_t i = 0; i < sizeof(candidates) / sizeof(*candidates); i++) {
		int result = read_job(candidates[i], job);

		if (result)
			return result;
	}
	return 0;
}

/* Refuse names that lead out of the job's folder. */
static int safe_name(const char *name)
{
	if (name[0] == '/' || name[0] == '\0')
		return 0;
	for (const char *at = name; (at = strstr(at, "..")); at += 2)
		if ((at == name || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
			return 0;
	return 1;
}

static int copy_out(int fd, const struct member *member, const char *path)
{
	static char buffer[65536];
	uint64_t left = member->size;
	off_t at = member->data;
	int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, member->mode);

	if (out < 0)
		return -1;
	while (left > 0) {
		size_t part = left < sizeof(buffer) ? (size_t)left : sizeof(buffer);
		ssize_t done = pread(fd, buffer, part, at);

		if (done <= 0 || write_all(out, buffer, (size_t)done) < 0) {
			close(out);
			if (done == 0)
				errno = EIO;
			return -1;
		}
		at += done;
		left -= (uint64_t)done;
	}
	return close(out);
}

/* Unpack all members but the job text itself below JOB_FOLDER; 0, or -1 with the reason said. */
int job_unpack(const struct job *job)
{
	struct member member;
	char path[sizeof(member.name) + sizeof(JOB_FOLDER) + 1];
	off_t at = 0;
	int fd = open(job->device, O_RDONLY | O_CLOEXEC);
	int found;

	if (fd < 0) {
		say("%s: %s", job->device, strerror(errno));
		return -1;
	}
	while ((found = read_member(fd, at, &member)) == 1) {
		at = next_member(&member);
		if (strcmp(member.name, JOB_MAGIC) == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", JOB_FOLDER, member.name);
		if (!safe_name(member.name) || make_folders_of(path) < 0 ||
		    (member.type != '0' && member.type != '5') ||
		    (member.type == '5' && make_folder(path, 0755) < 0) ||
		    (member.type == '0' && copy_out(fd, &member, path) < 0)) {
			say("job disk: cannot unpack '%s': %s", member.name, strerror(errno));
			close(fd);
			return -1;
		}
	}
	close(fd);
	if (found < 0)
		say("job disk: broken at byte %lld", (long long)at);
	return found;
}
