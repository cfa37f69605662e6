// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One command as root, its input and output carried over a two-way channel of their own.
 *
 * Both ways run frames: one byte of type, two of length (big-endian), then the bytes.
 *
 *   to the host:   'o' standard output, 'e' standard error, 'c' credit (4 bytes: input bytes
 *                  consumed), 'x' the exit status in decimal
 *   to the guest:  'i' standard input, 'z' its end, 'w' window size (rows and columns, 2 bytes each)
 *
 * The first credit says that the guest listens; never more bytes are on the way. So a serial port
 * without flow control loses nothing, and a command that does not read stops nobody.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "init.h"

#define WINDOW 32768		/* on a channel with flow control, such as a virtio port */
#define SERIAL_WINDOW 2048	/* on a serial port, whose receiving side must never be full */
#define FRAME 4096
#define SHARE "/mnt/share"
#define VEOF_BYTE 4	/* what ends the input of a terminal in its usual settings */

struct session {
	int line;		/* the channel */
	int in, out, err;	/* the command's; -1 once closed; the same terminal thrice with a terminal */
	int terminal;		/* the command has a terminal */
	pid_t pid;
	unsigned char pending[WINDOW];
	size_t held;
	int input_ended;
	unsigned char frame[3 + FRAME];
	size_t have;
};

static int put_frame(struct session *s, char type, const void *data, size_t length)
{
	unsigned char frame[3 + FRAME];

	frame[0] = (unsigned char)type;
	frame[1] = (unsigned char)(length >> 8);
	frame[2] = (unsigned char)length;
	memcpy(frame + 3, data, length);
	return write_all(s->line, frame, length + 3);
}

/* Allow the host to send `bytes` more of input. */
static int put_credit(struct session *s, size_t bytes)
{
	unsigned char credit[4] = { 0, (unsigned char)(bytes >> 16), (unsigned char)(bytes >> 8),
				    (unsigned char)bytes };

	return put_frame(s, 'c', credit, sizeof(credit));
}

static int mount_share(const struct job *job)
{
	const char *source = "share", *options = "trans=virtio,version=9p2000.L,msize=262144";

	if (!job->share_type[0])
		return 0;
	if (make_folders_of(SHARE "/") < 0) {
		channel_fault("cannot make " SHARE);
		return -1;
	}
	if (strcmp(job->share_type, "hostfs") == 0)
		options = job->share_from;
	else
		source = job->share_from;
	if (mount(source, SHARE, job->share_type, MS_NOSUID | MS_NODEV, options) < 0) {
		char reason[160];

		snprintf(reason, sizeof(reason), "cannot mount the shared folder (%s): %s", job->share_type,
			 strerror(errno));
		channel_fault(reason);
		return -1;
	}
	return 0;
}

/* Read the words of the command; without any, a login shell. The array is ours until the exec. */
static char **read_words(void)
{
	static char text[131072];
	static char *words[4096];
	static char *login[] = { "/bin/sh", "-l", NULL };
	ssize_t length = read_file(JOB_FOLDER "/argv", text, sizeof(text));
	size_t count = 0;

	if (access("/bin/bash", X_OK) == 0)
		login[0] = "/bin/bash";
	if (length <= 0)
		return login;
	for (char *at = text; at < text + length && count < 4095; at += strlen(at) + 1)
		words[count++] = at;
	words[count] = NULL;
	return words;
}

static _Noreturn void run_command(int in, int out, int err, int terminal)
{
	char **words = read_words();

	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (terminal)
		ioctl(in, TIOCSCTTY, 0);
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	setgroups(0, NULL);
	if (chdir("/root") < 0 && chdir("/") < 0)
		_exit(126);
	execvp(words[0], words);
	dprintf(STDERR_FILENO, "%s: %s\n", words[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Start the command on a pseudo terminal. */
static int start_on_terminal(struct session *s, const struct job *job)
{
	struct winsize size = { .ws_row = (unsigned short)job->rows, .ws_col = (unsigned short)job->columns };
	char name[64];
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	int slave;

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof(name)) != 0)
		return -1;
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -1;
	if (size.ws_row && size.ws_col)
		ioctl(slave, TIOCSWINSZ, &size);
	setenv("TERM", job->term, 1);
	s->pid = fork();
	if (s->pid == 0)
		run_command(slave, slave, slave, 1);
	close(slave);
	s->in = s->out = master;
	s->err = -1;
	return s->pid < 0 ? -1 : 0;
}

/* Start the command on three pipes. */
static int start_on_pipes(struct session *s)
{
	int in[2], out[2], err[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		return -1;
	s->pid = fork();
	if (s->pid == 0)
		run_command(in[0], out[1], err[1], 0);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	s->in = in[1];
	s->out = out[0];
	s->err = err[0];
	fcntl(s->err, F_SETFL, O_NONBLOCK);
	return s->pid < 0 ? -1 : 0;
}

static void close_input(struct session *s)
{
	if (s->terminal)
		(void)!write(s->in, &(char){ VEOF_BYTE }, 1);
	else if (s->in >= 0)
		close(s->in);
	s->in = -1;
}

/* Give the command what it will take of the input held for it, and the host new credit. */
static void feed(struct session *s)
{
	ssize_t done = 0;

	if (s->held && s->in >= 0) {
		done = write(s->in, s->pending, s->held);
		if (done < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (done < 0) {		/* nobody reads any more: swallow it */
			close_input(s);
			done = (ssize_t)s->held;
		}
	} else if (s->held) {
		done = (ssize_t)s->held;
	}
	if (done > 0) {
		memmove(s->pending, s->pending + done, s->held - (size_t)done);
		s->held -= (size_t)done;
		put_credit(s, (size_t)done);
	}
	if (s->input_ended && !s->held && s->in >= 0)
		close_input(s);
}

static int take_frame(struct session *s, char type, const unsigned char *data, size_t length)
{
	if (type == 'i') {
		if (length > WINDOW - s->held)
			return -1;
		memcpy(s->pending + s->held, data, length);
		s->held += length;
	} else if (type == 'z') {
		s->input_ended = 1;
	} else if (type == 'w' && length == 4) {
		struct winsize size = { .ws_row = (unsigned short)(data[0] << 8 | data[1]),
					.ws_col = (unsigned short)(data[2] << 8 | data[3]) };

		if (s->terminal && s->out >= 0)
			ioctl(s->out, TIOCSWINSZ, &size);
	} else {
		return -1;
	}
	return 0;
}

/* Read from the channel and take every whole frame; -1 when the stream is broken. */
static int read_frames(struct session *s)
{
	ssize_t done = read(s->line, s->frame + s->have, sizeof(s->frame) - s->have);

	if (done < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (done <= 0)
		return -1;
	s->have += (size_t)done;
	while (s->have >= 3) {
		size_t length = (size_t)s->frame[1] << 8 | s->frame[2];

		if (length > FRAME)
			return -1;
		if (s->have < 3 + length)
			break;
		if (take_frame(s, (char)s->frame[0], s->frame + 3, length) < 0)
			return -1;
		s->have -= 3 + length;
		memmove(s->frame, s->frame + 3 + length, s->have);
	}
	return 0;
}

/* Pass on what the command has written; returns 0 when there is nothing (more) for now. */
static int pass_output(struct session *s, int *fd, char type)
{
	unsigned char data[FRAME];
	ssize_t done;

	if (*fd < 0)
		return 0;
	done = read(*fd, data, sizeof(data));
	if (done > 0)
		return put_frame(s, type, data, (size_t)done) == 0;
	if (done < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (!s->terminal)
		close(*fd);
	*fd = -1;	/* end of file; a terminal says EIO */
	return 0;
}

/* Carry bytes until the command has ended; its wait status, or -1 when the channel broke. */
static int carry(struct session *s)
{
	int status = -1;

	for (;;) {
		struct pollfd waiting[4] = {
			{ .fd = s->line, .events = POLLIN },
			{ .fd = s->out, .events = POLLIN },
			{ .fd = s->err, .events = POLLIN },
			{ .fd = s->held ? s->in : -1, .events = POLLOUT },
		};
		pid_t gone;

		/* SIGCHLD interrupts the wait; the limit is for the one that comes just before it. */
		poll(waiting, 4, 50);
		if (waiting[0].revents && read_frames(s) < 0)
			return -1;
		feed(s);
		if (waiting[1].revents)
			pass_output(s, &s->out, 'o');
		if (waiting[2].revents)
			pass_output(s, &s->err, 'e');
		while ((gone = waitpid(-1, &status, WNOHANG)) > 0)
			if (gone == s->pid)
				return status;
	}
}

static void on_child(int signal)
{
	(void)signal;
}

/* Open the channel, or send a fault. */
static int open_channel(const char *name)
{
	char device[PORT_SIZE], reason[160];
	int fd = open_port(name, O_RDWR, device);

	if (fd < 0) {
		snprintf(reason, sizeof(reason), "cannot open the two-way channel %s: %s", name, strerror(errno));
		channel_fault(reason);
	}
	return fd;
}

/* Do a `shell` job; 0, or -1 when there was no way to do it (a fault has been sent). */
int shell(const struct job *job)
{
	static struct session s;
	struct sigaction action = { .sa_handler = on_child };
	char text[16];
	int status, started;

	if (mount_share(job) < 0)
		return -1;
	s.line = open_channel(job->terminal);
	if (s.line < 0)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGCHLD, &action, NULL);
	s.terminal = job->term[0] != '\0';
	started = s.terminal ? start_on_terminal(&s, job) : start_on_pipes(&s);
	if (started < 0) {
		channel_fault("cannot start the command");
		return -1;
	}
	fcntl(s.in, F_SETFL, O_NONBLOCK);
	fcntl(s.out, F_SETFL, O_NONBLOCK);
	status = put_credit(&s, isatty(s.line) ? SERIAL_WINDOW : WINDOW) < 0 ? -1 : carry(&s);
	if (status < 0) {
		channel_fault("the two-way channel is broken");
		return -1;
	}
	while (pass_output(&s, &s.out, 'o') || pass_output(&s, &s.err, 'e'))
		;
	snprintf(text, sizeof(text), "%d", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	put_frame(&s, 'x', text, strlen(text));
	tcdrain(s.line);
	return 0;
}
