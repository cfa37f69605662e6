// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Contexts under stress: workers create, enter, signal, wait for and end contexts, fork and exec in
 * them, hold and poll pidfds, and read /proc, all at once and on the same few ids.
 *
 *	stress SECONDS [WORKERS [SEED]]
 *
 * Nothing here proves isolation; it is for kernels that watch themselves (KASAN, lockdep, kmemleak).
 * It fails when an operation never succeeded, or when a context is left behind at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VSERVER_NR		236 /* x86-64 and UML on it */
#define VCMD_CTX_CREATE		0x09010001u
#define VCMD_CTX_MIGRATE	0x0b010001u
#define VCMD_CTX_KILL		0x0c010000u
#define VCMD_WAIT_EXIT		0x30630000u
#define VCMD_GET_CFLAGS		0x34010000u
#define VCMD_SET_CFLAGS		0x34020000u
#define INFO_INIT		(1ull << 4)
#define STATE_SETUP		(1ull << 32)
#define STATE_INIT		(1ull << 33)
#define STATE_ADMIN		(1ull << 34)
#define PERSISTENT		(1ull << 38)
#define HOST_VISIBLE		(1ull << 56)
#define SET_INIT		(1ull << 0)
#define SET_REAPER		(1ull << 1)
#define FIRST			1000
#define IDS			12

enum { CREATE, MIGRATE, KILL, WAIT, FLAGS, PIDFD, PROC, EXEC, ORPHAN, OPERATIONS };
static const char *const names[OPERATIONS] = {
	"create", "migrate", "kill", "wait", "flags", "pidfd", "proc", "exec", "orphan"
};

struct tally { unsigned long tried, good; };
static struct tally (*tallies)[OPERATIONS]; /* shared: one row a worker */
static uint64_t seed;
static char self[4096];

static uint32_t some(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

static long vserver(uint32_t command, uint32_t id, void *data)
{
	return syscall(VSERVER_NR, command, id, data);
}

static uint32_t some_id(void) { return FIRST + some(IDS); }

/* In a child: live for a moment, with children of its own. Never returns. */
static void live(void)
{
	for (uint32_t i = some(3); i; i--) {
		if (fork() == 0) {
			usleep(some(20000));
			_exit(0);
		}
	}
	if (some(4) == 0) {
		execl(self, self, "--exit", NULL);
		_exit(1);
	}
	usleep(some(30000));
	_exit(0);
}

/* Fork a child that runs `enter` and goes on living if that succeeds; say whether it did. */
static int in_child(int (*enter)(void))
{
	int told[2];
	char good = 0;
	pid_t child;

	if (pipe2(told, O_CLOEXEC) < 0)
		return 0;
	child = fork();
	if (child == 0) {
		good = enter();
		if (write(told[1], &good, 1) != 1 || !good)
			_exit(0);
		live();
	}
	close(told[1]);
	if (child < 0 || read(told[0], &good, 1) != 1)
		good = 0;
	close(told[0]);
	return good; /* children are reaped by the loop */
}

static int create(void)
{
	uint64_t flags = STATE_ADMIN;

	flags |= some(2) ? PERSISTENT : 0;
	flags |= some(2) ? INFO_INIT | STATE_INIT : 0;
	flags |= some(4) ? 0 : STATE_SETUP;
	flags |= some(2) ? HOST_VISIBLE : 0;
	return vserver(VCMD_CTX_CREATE, some_id(), &flags) > 0;
}

static int migrate(void)
{
	uint64_t how = (some(3) ? 0 : SET_INIT) | (some(3) ? 0 : SET_REAPER);

	return vserver(VCMD_CTX_MIGRATE, some_id(), &how) == 0;
}

static int orphan(void)
{
	if (!migrate())
		return 0;
	for (int i = 0; i < 2; i++) {
		if (fork() == 0) {
			usleep(5000 + some(20000)); /* outlives its parent */
			_exit(0);
		}
	}
	return 1;
}

static int wait_for(void)
{
	struct { int32_t reboot, status; } result;

	alarm(1); /* a context that lives longer ends the wait */
	return vserver(VCMD_WAIT_EXIT, some_id(), &result) == 0;
}

static int kill_some(void)
{
	struct { int32_t pid, sig; } what = { (int32_t)some(3) - 1, some(2) ? SIGKILL : SIGTERM };

	return vserver(VCMD_CTX_KILL, some_id(), &what) == 0;
}

static int change_flags(void)
{
	static const uint64_t bits[] = { PERSISTENT, PERSISTENT, HOST_VISIBLE, STATE_SETUP };
	struct { uint64_t flags, mask; } word = { .mask = bits[some(4)] };
	uint32_t id = some_id();

	word.flags = some(3) ? 0 : word.mask;
	return vserver(VCMD_SET_CFLAGS, id, &word) == 0 && vserver(VCMD_GET_CFLAGS, id, &word) == 0;
}

static int pidfds(void)
{
	struct pollfd poller = { .events = POLLIN };
	pid_t child = fork();

	if (child == 0) {
		uint64_t none = 0;

		vserver(VCMD_CTX_MIGRATE, some_id(), &none);
		usleep(some(10000));
		_exit(0);
	}
	poller.fd = syscall(SYS_pidfd_open, child, 0);
	if (poller.fd < 0)
		return 0;
	syscall(SYS_pidfd_send_signal, poller.fd, some(2) ? 0 : SIGKILL, NULL, 0);
	poll(&poller, 1, 20);
	close(poller.fd);
	return 1;
}

static void swallow(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while (read(fd, text, sizeof(text)) > 0)
		;
	close(fd);
}

static int read_proc(void)
{
	static const char *const of_task[] = { "status", "vinfo", "stat", "maps", "cmdline", "mountinfo", "limits" };
	static const char *const of_context[] = { "info", "status", "cvirt", "cacct", "sched", "limit", "nsproxy" };
	char path[320];
	struct dirent *entry;
	DIR *proc = opendir("/proc");

	if (!proc)
		return 0;
	while ((entry = readdir(proc))) {
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || some(3))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/%s", entry->d_name, of_task[some(7)]);
		swallow(path);
	}
	closedir(proc);
	swallow("/proc/virtual/status");
	snprintf(path, sizeof(path), "/proc/virtual/%u/%s", some_id(), of_context[some(7)]);
	swallow(path);
	return 1;
}

static int exec_in(void)
{
	if (!migrate())
		return 0;
	if (fork() == 0) {
		execl(self, self, "--exit", NULL);
		_exit(1);
	}
	return 1;
}

static void work(struct tally *tally, time_t until)
{
	static int (*const inside[OPERATIONS])(void) = {
		[CREATE] = create, [MIGRATE] = migrate, [WAIT] = wait_for, [EXEC] = exec_in, [ORPHAN] = orphan
	};
	static int (*const here[OPERATIONS])(void) = {
		[KILL] = kill_some, [FLAGS] = change_flags, [PIDFD] = pidfds, [PROC] = read_proc
	};

	while (time(NULL) < until) {
		int operation = some(OPERATIONS);

		tally[operation].tried++;
		tally[operation].good += inside[operation] ? in_child(inside[operation]) : here[operation]();
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	_exit(0);
}

static int contexts_left(void)
{
	struct dirent *entry;
	int left = 0;
	DIR *all = opendir("/proc/virtual");

	if (!all)
		return -1;
	while ((entry = readdir(all)))
		left += entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
	closedir(all);
	return left;
}

static void end_all(void)
{
	for (int round = 0; round < 50 && contexts_left() != 0; round++) {
		for (uint32_t id = FIRST; id < FIRST + IDS; id++) {
			struct { int32_t pid, sig; } everybody = { 0, SIGKILL };
			struct { uint64_t flags, mask; } clear = { 0, PERSISTENT };

			vserver(VCMD_CTX_KILL, id, &everybody);
			vserver(VCMD_SET_CFLAGS, id, &clear);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(100000);
	}
}

static int result(int workers)
{
	int left = contexts_left(), bad = left != 0;

	for (int operation = 0; operation < OPERATIONS; operation++) {
		struct tally sum = { 0 };

		for (int i = 0; i < workers; i++) {
			sum.tried += tallies[i][operation].tried;
			sum.good += tallies[i][operation].good;
		}
		printf("%-8s %8lu tried %8lu succeeded\n", names[operation], sum.tried, sum.good);
		bad |= sum.good == 0;
	}
	printf("contexts left: %d\n%s\n", left, bad ? "FAILED" : "passed");
	return bad;
}

int main(int argc, char **argv)
{
	int seconds, workers;

	if (argc > 1 && !strcmp(argv[1], "--exit"))
		return 0;
	seconds = argc > 1 ? atoi(argv[1]) : 0;
	workers = argc > 2 ? atoi(argv[2]) : 6;
	if (seconds < 1 || workers < 1 || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
		fprintf(stderr, "usage: stress SECONDS [WORKERS [SEED]]\n");
		return 2;
	}
	seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 20061122;
	printf("seed %llu, %d workers, %d s\n", (unsigned long long)seed, workers, seconds);
	fflush(stdout);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGALRM, SIG_DFL);
	tallies = mmap(NULL, sizeof(*tallies) * workers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tallies == MAP_FAILED)
		return 1;
	for (int i = 0; i < workers; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (fork() == 0)
			work(tallies[i], time(NULL) + seconds);
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
	end_all();
	return result(workers);
}
