// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a context costs from birth to death, beside the namespaces that containers are made of.
 *
 * Creation moves the caller in and there is no way back, so each round forks a child that reads the
 * counter around the one call and hands the difference to its parent through shared memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS 51
#define FIRST_PRESENT 1000
#define MEASURED 900

enum { CREATE, ENTER, DESTROY, KINDS };

static uint64_t *shared; /* what a child measured */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *name, int present, uint64_t *values)
{
	qsort(values, ROUNDS, sizeof(values[0]), by_value);
	emit("{\"row\":\"%s\",\"present\":%d,\"median\":%llu,\"p98\":%llu,\"least\":%llu,\"count\":%d}", name, present,
	     (unsigned long long)values[ROUNDS / 2], (unsigned long long)values[ROUNDS - 1],
	     (unsigned long long)values[0], ROUNDS);
}

/* Memory that the kernel itself holds, in KiB: slabs, per-CPU areas, kernel stacks, page tables. */
static long kernel_memory(void)
{
	static const char *const counted[] = { "Slab:", "Percpu:", "KernelStack:", "PageTables:" };
	char text[8192], *line, *rest = text;
	int fd = open("/proc/meminfo", O_RDONLY);
	ssize_t size = read(fd, text, sizeof(text) - 1);
	long total = 0;

	close(fd);
	text[size < 0 ? 0 : size] = 0;
	while ((line = strsep(&rest, "\n")))
		for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]); i++)
			if (!strncmp(line, counted[i], strlen(counted[i])))
				total += strtol(line + strlen(counted[i]), NULL, 10);
	return total;
}

static void in_child(void (*body)(void))
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		body();
		_exit(0);
	}
	must(child > 0 && waitpid(child, &status, 0) == child && status == 0, "child");
}

static uint32_t next_id;

static void create_persistent(void)
{
	uint64_t flags = FLAG_STATE_ADMIN | FLAG_PERSISTENT;

	must(vserver(VCMD_CTX_CREATE, next_id, &flags) == (long)next_id, "ctx_create");
}

static void create_network(void)
{
	uint64_t flags = FLAG_STATE_ADMIN | FLAG_PERSISTENT;

	must(vserver(VCMD_NET_CREATE, next_id, &flags) == (long)next_id, "net_create");
}

/* KiB held by as many empty contexts of a kind, which stay. */
static void contexts_memory(const char *name, int count, void (*create)(void))
{
	long before = kernel_memory();

	for (int i = 0; i < count; i++) {
		next_id = FIRST_PRESENT + i;
		in_child(create);
	}
	emit("{\"row\":\"memory %s\",\"count\":%d,\"kib\":%ld}", name, count, kernel_memory() - before);
}

static void timed_create(void)
{
	uint64_t begun = counter();

	create_persistent();
	*shared = counter() - begun;
}

static void timed_enter(void)
{
	uint64_t none = 0, begun = counter();

	must(vserver(VCMD_CTX_MIGRATE, next_id, &none) == 0, "ctx_migrate");
	*shared = counter() - begun;
}

static uint64_t timed_destroy(void)
{
	struct { uint64_t flags, mask; } clear = { 0, FLAG_PERSISTENT };
	uint64_t begun = counter();

	must(vserver(VCMD_SET_CFLAGS, next_id, &clear) == 0, "set_cflags");
	return counter() - begun;
}

static int unshare_flags;

static void timed_unshare(void)
{
	uint64_t begun = counter();

	must(unshare(unshare_flags) == 0, "unshare");
	*shared = counter() - begun;
}

static void context_rows(int present)
{
	static uint64_t values[KINDS][ROUNDS];
	static const char *const names[KINDS] = { "context create", "context enter", "context destroy" };

	for (int round = 0; round < ROUNDS; round++) {
		next_id = MEASURED;
		in_child(timed_create);
		values[CREATE][round] = *shared;
		in_child(timed_enter);
		values[ENTER][round] = *shared;
		values[DESTROY][round] = timed_destroy();
	}
	for (int kind = 0; kind < KINDS; kind++)
		report(names[kind], present, values[kind]);
}

static void namespace_row(const char *name, int flags)
{
	static uint64_t values[ROUNDS];

	unshare_flags = flags;
	for (int round = 0; round < ROUNDS; round++) {
		in_child(timed_unshare);
		values[round] = *shared;
	}
	report(name, 0, values);
}

/* KiB held by `count` processes that each sit in new namespaces (flags 0: plain processes). */
static void held_memory(const char *name, int flags, int count)
{
	pid_t *children = calloc(count, sizeof(*children));
	long before, after;
	int ready[2];

	must(children && pipe(ready) == 0, "held_memory");
	before = kernel_memory();
	for (int i = 0; i < count; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			must(flags == 0 || unshare(flags) == 0, "unshare");
			must(write(ready[1], "", 1) == 1, "ready");
			pause();
			_exit(0);
		}
		must(children[i] > 0 && read(ready[0], shared, 1) == 1, "ready");
	}
	after = kernel_memory();
	for (int i = 0; i < count; i++) {
		kill(children[i], 9);
		waitpid(children[i], NULL, 0);
	}
	emit("{\"row\":\"memory %s\",\"count\":%d,\"kib\":%ld}", name, count, after - before);
	free(children);
	close(ready[0]);
	close(ready[1]);
}

void life_rows(int present)
{
	const int every = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED, "mmap");
	if (present > 0)
		contexts_memory("contexts", present, create_persistent);
	if (vserver(VCMD_GET_VERSION, 0, NULL) > 0)
		context_rows(present);
	if (present > 1)
		return;
	if (vserver(VCMD_GET_VERSION, 0, NULL) > 0)
		contexts_memory("network contexts", 1000, create_network);
	namespace_row("unshare net", CLONE_NEWNET);
	namespace_row("unshare all", every);
	held_memory("processes", 0, 100);
	held_memory("net namespaces", CLONE_NEWNET, 100);
	held_memory("all namespaces", every, 100);
}
