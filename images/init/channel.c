// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The result channel: a second serial port in raw mode, one way out.
 *
 * Every line is "SEQ CRC32 JSON": SEQ counts from 0, CRC32 (8 hexadecimal digits) is over
 * "SEQ JSON". The last line, "bye", carries the number of lines before it and their SHA-256.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include "init.h"

/* vserver: in the x86 table ever since; architectures of the generic table use a number of their own. */
#if defined(__x86_64__)
#define NR_VSERVER 236
#else
#define NR_VSERVER 250
#endif

static int channel = -1;
static unsigned long sequence;
static struct sha256 everything;

static uint32_t crc32_add(uint32_t crc, const char *data, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		crc ^= (unsigned char)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return crc;
}

/* Open the channel, and take its device out of /dev; 0, or -1 with errno. */
int channel_open(const char *name)
{
	char device[PORT_SIZE];

	sha256_start(&everything);
	channel = open_port(name, O_WRONLY, device);
	if (channel >= 0)
		unlink(device);
	return channel < 0 ? -1 : 0;
}

/* The channel itself, for a job that hands it on. */
int channel_descriptor(void)
{
	return channel;
}

/* Send one record. A channel that fails is said on the console; the host then misses the line and fails the run. */
void channel_send(const char *json)
{
	static char line[LINE_SIZE + 64];
	char number[32];
	uint32_t crc;
	int length, digits;

	if (channel < 0)
		return;
	digits = snprintf(number, sizeof(number), "%lu ", sequence);
	crc = crc32_add(0xffffffffu, number, (size_t)digits);
	crc = ~crc32_add(crc, json, strlen(json));
	length = snprintf(line, sizeof(line), "%lu %08x %s\n", sequence, crc, json);
	if (length < 0 || (size_t)length >= sizeof(line)) {
		say("record %lu is too long", sequence);
		return;
	}
	if (write_all(channel, line, (size_t)length) < 0)
		say("result channel: %s", strerror(errno));
	sha256_add(&everything, line, (size_t)length);
	sequence++;
	if (tcdrain(channel) < 0)
		fdatasync(channel);	/* the channel of a Xen guest is a disk that its host reads */
}

/* Add CRC-32 and size of the kernel's configuration: the last 8 bytes of the compressed file. */
static void add_config(struct text *text)
{
	unsigned char tail[8];
	struct stat status;
	int fd = open("/proc/config.gz", O_RDONLY | O_CLOEXEC);

	text_add(text, ",\"config\":");
	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size < 18 ||
	    pread(fd, tail, sizeof(tail), status.st_size - 8) != sizeof(tail))
		text_add(text, "null");
	else
		text_add(text, "{\"crc32\":\"%02x%02x%02x%02x\",\"size\":%u}", tail[3], tail[2], tail[1], tail[0],
			 (unsigned int)tail[4] | (unsigned int)tail[5] << 8 | (unsigned int)tail[6] << 16 |
			 (unsigned int)tail[7] << 24);
	if (fd >= 0)
		close(fd);
}

/* Add the build id of the running kernel: note type 3, owner "GNU". */
static void add_build_id(struct text *text)
{
	static char notes[4096];
	ssize_t length = read_file("/sys/kernel/notes", notes, sizeof(notes));
	size_t at = 0;

	text_add(text, ",\"build_id\":");
	while (length > 0 && at + 12 <= (size_t)length) {
		uint32_t head[3];
		size_t name, body;

		memcpy(head, notes + at, sizeof(head));
		name = at + sizeof(head);
		body = name + ((head[0] + 3u) & ~3u);
		if (head[0] > sizeof(notes) || head[1] > 64 || body + head[1] > (size_t)length)
			break;
		if (head[2] == 3 && head[0] == 4 && memcmp(notes + name, "GNU", 4) == 0) {
			text_add(text, "\"");
			for (size_t i = 0; i < head[1]; i++)
				text_add(text, "%02x", (unsigned char)notes[body + i]);
			text_add(text, "\"");
			return;
		}
		at = body + ((head[1] + 3u) & ~3u);
	}
	text_add(text, "null");
}

/* Say who we are: the first record. */
void channel_hello(const struct job *job)
{
	static char buffer[LINE_SIZE];
	struct text text = { buffer, sizeof(buffer), 0, 0 };
	struct utsname name;
	struct sha256 sum;
	char hex[65];
	long version;

	uname(&name);
	text_add(&text, "{\"t\":\"hello\",\"proto\":1,\"nonce\":");
	text_add_json(&text, job->nonce);
	text_add(&text, ",\"uname\":{\"release\":");
	text_add_json(&text, name.release);
	text_add(&text, ",\"version\":");
	text_add_json(&text, name.version);
	text_add(&text, ",\"machine\":");
	text_add_json(&text, name.machine);
	text_add(&text, "}");
	version = syscall(NR_VSERVER, 0, 0, NULL);
	if (version >= 0)
		text_add(&text, ",\"series\":\"0x%08lx\"", (unsigned long)version);
	else
		text_add(&text, ",\"series\":null");
	add_config(&text);
	add_build_id(&text);
	sha256_start(&sum);
	for (size_t i = 0; i < job->planned; i++) {
		sha256_add(&sum, job->plan[i].id, strlen(job->plan[i].id));
		sha256_add(&sum, "\n", 1);
	}
	sha256_end(&sum, hex);
	text_add(&text, ",\"plan\":{\"count\":%zu,\"sha256\":\"%s\"}}", job->planned, hex);
	channel_send(buffer);
}

/* End the stream: number and SHA-256 of all lines so far, and the kernel's taint flags. */
void channel_bye(void)
{
	char buffer[256], hex[65], taint[32];
	struct text text = { buffer, sizeof(buffer), 0, 0 };

	if (read_file("/proc/sys/kernel/tainted", taint, sizeof(taint)) < 0)
		strcpy(taint, "-1");
	taint[strcspn(taint, "\n")] = '\0';
	sha256_end(&everything, hex);
	text_add(&text, "{\"t\":\"bye\",\"count\":%lu,\"sha256\":\"%s\",\"tainted\":%s}", sequence, hex, taint);
	channel_send(buffer);
}

/* Say why the job cannot be done. No bye follows. */
void channel_fault(const char *reason)
{
	static char buffer[LINE_SIZE];
	struct text text = { buffer, sizeof(buffer), 0, 0 };

	say("%s", reason);
	text_add(&text, "{\"t\":\"fault\",\"reason\":");
	text_add_json(&text, reason);
	text_add(&text, "}");
	channel_send(buffer);
}
