/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PID 1 of a test boot: a small static program.
 *
 * It speaks first (the host counts a machine as ready from then on), owns the result channel, the
 * time limit of every check and the death of every child. Without a job disk it steps aside for
 * the image's own init.
 */
#ifndef CLOISON_INIT_H
#define CLOISON_INIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifndef JOB_FOLDER
#define JOB_FOLDER "/run/cloison"
#endif
#define JOB_MAGIC "cloison-job"	/* name of the first member of a job disk */
#define ID_SIZE 96		/* longest identifier of a check, with its NUL */
#define RESULT_SIZE 16384	/* longest answer of the runner, with its NUL */
#define LINE_SIZE (RESULT_SIZE + 1024)

/* One check to run. */
struct planned {
	char id[ID_SIZE];
	unsigned int seconds;
};

/* What the job disk asks for. Empty strings: not asked for. */
struct job {
	char nonce[72];
	char mode[16];		/* "verify", "shell", "boot" or "relay" */
	char ending[16];	/* "poweroff" or "reboot" */
	char channel[64];	/* device of the result channel */
	char terminal[64];	/* device of the two-way channel of `shell` */
	char share_type[16];	/* "hostfs" or "9p" */
	char share_from[1024];
	char term[64];		/* TERM; set when a terminal is wanted */
	unsigned int rows, columns;
	struct planned *plan;
	size_t planned;
	char device[64];	/* where the job was found */
};

/* A growing text that never overruns: what does not fit marks it as overflown. */
struct text {
	char *data;
	size_t size, length;
	int overflown;
};

/* util.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int write_all(int fd, const void *data, size_t length);
int write_file(const char *path, const char *value);
ssize_t read_file(const char *path, char *buffer, size_t size);
int64_t now_ms(void);
int make_folder(const char *path, mode_t mode);
int make_folders_of(const char *path);
int open_raw(const char *device, int flags);

/* port.c */
#define PORT_SIZE 300
int open_port(const char *name, int flags, char device[PORT_SIZE]);

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_json(struct text *text, const char *value);

/* sha256.c */
struct sha256 {
	uint32_t state[8];
	uint64_t length;
	unsigned char block[64];
};
void sha256_start(struct sha256 *sum);
void sha256_add(struct sha256 *sum, const void *data, size_t length);
void sha256_end(struct sha256 *sum, char hex[65]);

/* job.c */
int job_find(struct job *job);
int job_unpack(const struct job *job);

/* channel.c */
int channel_open(const char *name);
void channel_send(const char *json);
void channel_hello(const struct job *job);
void channel_bye(void);
void channel_fault(const char *reason);
int channel_descriptor(void);

/* verify.c */
int verify(const struct job *job);

/* shell.c */
int shell(const struct job *job);

/* relay.c */
int relay(void);

/* main.c */
_Noreturn void finish(const struct job *job);

#endif
