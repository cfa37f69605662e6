// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Running the checks. One Python runner forks for each check; it hears "run NUMBER ID CGROUP" and
 * answers "NUMBER {json}" on a socket. PID 1 keeps the time limit, ends everything that a check
 * leaves behind, and starts the runner anew when it is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

#define CGROUPS "/sys/fs/cgroup"
#define RUNNER_SECONDS 300	/* Python's start and imports, on the slowest emulator */
#define DEATH_MS 5000		/* killed processes are gone by then */

struct runner {
	pid_t pid;
	int socket;
	size_t used;
	char buffer[RESULT_SIZE];
};

enum heard { HEARD_LINE, HEARD_NOTHING, HEARD_END };

static void reap(struct runner *runner)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (pid == runner->pid)
			runner->pid = 0;
}

static void stop_runner(struct runner *runner)
{
	if (runner->pid > 0) {
		kill(runner->pid, SIGKILL);
		while (waitpid(runner->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (runner->socket >= 0)
		close(runner->socket);
	runner->pid = 0;
	runner->socket = -1;
	runner->used = 0;
}

/* Take one line off the socket, waiting until `deadline`. The line stays in the buffer without its newline. */
static enum heard hear(struct runner *runner, int64_t deadline)
{
	runner->used = 0;
	for (;;) {
		struct pollfd waiting = { .fd = runner->socket, .events = POLLIN };
		int64_t left = deadline - now_ms();
		ssize_t done;

		reap(runner);
		if (left <= 0)
			return HEARD_NOTHING;
		/* Orphans are reaped at least twice a second. */
		if (poll(&waiting, 1, left < 500 ? (int)left : 500) <= 0)
			continue;
		done = read(runner->socket, runner->buffer + runner->used, sizeof(runner->buffer) - 1 - runner->used);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return HEARD_END;
		runner->used += (size_t)done;
		if (runner->buffer[runner->used - 1] == '\n') {
			runner->buffer[runner->used - 1] = '\0';
			return HEARD_LINE;
		}
		if (runner->used == sizeof(runner->buffer) - 1)
			return HEARD_END;
	}
}

static _Noreturn void run_python(int socket)
{
	/* -S and -P keep the image's own packages and the working folder out of the way. */
	char *const words[] = { "python3", "-P", "-S", "-u", "-m", "cloison_verify.runner", NULL };

	int nothing = open("/dev/null", O_RDONLY);

	dup2(nothing, STDIN_FILENO);
	dup2(socket, 3);	/* drops the close-on-exec flag, unless it already is 3 */
	if (socket == 3)
		fcntl(3, F_SETFD, 0);
	setenv("PYTHONPATH", JOB_FOLDER "/lib", 1);
	execvp(words[0], words);
	say("python3: %s", strerror(errno));
	_exit(127);
}

/* Start the runner and wait until its checks are loaded; 0 or -1. */
static int start_runner(struct runner *runner)
{
	int pair[2];

	stop_runner(runner);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	runner->pid = fork();
	if (runner->pid < 0) {
		close(pair[0]);
		close(pair[1]);
		return -1;
	}
	if (runner->pid == 0)
		run_python(pair[1]);
	close(pair[1]);
	runner->socket = pair[0];
	if (hear(runner, now_ms() + RUNNER_SECONDS * 1000) == HEARD_LINE && strcmp(runner->buffer, "ready") == 0)
		return 0;
	stop_runner(runner);
	return -1;
}

/* Say whether a control group still holds a process. */
static int populated(const char *group)
{
	char path[160], events[256];

	snprintf(path, sizeof(path), "%s/cgroup.events", group);
	return read_file(path, events, sizeof(events)) > 0 && strstr(events, "populated 1");
}

/* Kill what a check left in its control group and remove the group; 0, or -1 when something stays. */
static int clear_group(struct runner *runner, const char *group)
{
	int64_t deadline = now_ms() + DEATH_MS;
	char path[160];

	if (access(group, F_OK) < 0)
		return 0;
	if (populated(group)) {
		snprintf(path, sizeof(path), "%s/cgroup.kill", group);
		if (write_file(path, "1") < 0)
			say("%s: %s", path, strerror(errno));
	}
	for (;;) {
		reap(runner);
		if (!populated(group))
			break;
		if (now_ms() > deadline)
			return -1;
		usleep(2000);
	}
	rmdir(group);
	return 0;
}

/* Kill every process but ourselves: the way when control groups did not do it. */
static void kill_everything(struct runner *runner)
{
	int64_t deadline = now_ms() + DEATH_MS;

	stop_runner(runner);
	while (kill(-1, SIGKILL) == 0 && now_ms() < deadline) {
		reap(runner);
		usleep(2000);
	}
}

static void report_failure(const char *id, const char *seen)
{
	static char buffer[2048];
	struct text text = { buffer, sizeof(buffer), 0, 0 };

	text_add(&text, "{\"t\":\"end\",\"id\":");
	text_add_json(&text, id);
	text_add(&text, ",\"control\":null,\"expected\":null,\"seen\":");
	text_add_json(&text, seen);
	text_add(&text, ",\"errno\":null,\"status\":\"failed\"}");
	channel_send(buffer);
}

/* Pass the runner's answer on, under the identifier that PID 1 knows; 0, or -1 when it is none. */
static int report_answer(const char *id, const char *answer, size_t number, int64_t ms)
{
	static char buffer[LINE_SIZE];
	struct text text = { buffer, sizeof(buffer), 0, 0 };
	char *body;

	if (strtoul(answer, &body, 10) != number || strncmp(body, " {\"", 3) != 0)
		return -1;
	for (const char *at = body; *at; at++)
		if ((unsigned char)*at < 0x20 || (unsigned char)*at > 0x7e)
			return -1;
	text_add(&text, "{\"t\":\"end\",\"id\":");
	text_add_json(&text, id);
	text_add(&text, ",\"ms\":%lld,%s", (long long)ms, body + 2);
	if (text.overflown)
		return -1;
	channel_send(buffer);
	return 0;
}

static void report_begin(const char *id)
{
	char buffer[256];
	struct text text = { buffer, sizeof(buffer), 0, 0 };

	text_add(&text, "{\"t\":\"begin\",\"id\":");
	text_add_json(&text, id);
	text_add(&text, "}");
	channel_send(buffer);
}

/* Give one check to the runner and report what comes back; -1 when the runner has to be started anew. */
static int ask(struct runner *runner, const struct planned *item, size_t number, const char *group)
{
	int64_t begun = now_ms();
	char request[ID_SIZE + 160], seen[64];
	int length = snprintf(request, sizeof(request), "run %zu %s %s\n", number, item->id, group);

	if (send(runner->socket, request, (size_t)length, MSG_NOSIGNAL) != length) {
		report_failure(item->id, "the runner is gone");
		return -1;
	}
	switch (hear(runner, begun + (int64_t)item->seconds * 1000)) {
	case HEARD_LINE:
		if (report_answer(item->id, runner->buffer, number, now_ms() - begun) == 0)
			return 0;
		report_failure(item->id, "the runner's answer makes no sense");
		return -1;
	case HEARD_END:
		report_failure(item->id, "the runner ended in the middle of the check");
		return -1;
	default:
		snprintf(seen, sizeof(seen), "no answer within %u s", item->seconds);
		report_failure(item->id, seen);
		return -1;
	}
}

/* Run all planned checks; 0, or -1 when the runner cannot be started. */
int verify(const struct job *job)
{
	static struct runner runner = { .socket = -1 };

	for (size_t i = 0; i < job->planned; i++) {
		const struct planned *item = &job->plan[i];
		char group[64];
		int result;

		if (runner.socket < 0 && start_runner(&runner) < 0) {
			say("the runner of the checks does not start");
			return -1;
		}
		snprintf(group, sizeof(group), CGROUPS "/check-%zu", i);
		if (mkdir(group, 0755) < 0)
			strcpy(group, "-");
		report_begin(item->id);
		result = ask(&runner, item, i, group);
		if (result < 0)
			stop_runner(&runner);
		if (clear_group(&runner, group) < 0 || (result < 0 && group[0] == '-'))
			kill_everything(&runner);
	}
	stop_runner(&runner);
	return 0;
}
