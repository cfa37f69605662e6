// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The work of './invoke compare': one static program for every machine and container.
 *
 *   work ROW MILLISECONDS [context]
 *
 * does one kind of operation again and again and prints one JSON line: nanoseconds of the machine's own
 * clock for one operation, as the median, the quartiles and the least of equal batches. With "context" it
 * makes a context and works inside it.
 *
 *   work idle NUMBER [context]
 *
 * says "ready" and waits for the end of its standard input, in a context of that number.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 15
#define VSERVER_NR 236 /* x86-64 */
#define VCMD_CTX_CREATE 0x09010001u
#define CONTEXT 4711
#define FLAG_STATE_ADMIN (1ull << 34)
#define PAGES 64
#define BODY 4096

static const char *self;

static _Noreturn void fail(const char *what)
{
	printf("{\"error\":\"%s: %s\"}\n", what, strerror(errno));
	exit(1);
}

static void must(int good, const char *what)
{
	if (!good)
		fail(what);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A helper that ends with its parent. */
static pid_t helper(void (*body)(void))
{
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
		_exit(0);
	}
	return pid;
}

static void write_byte(int fd)
{
	must(write(fd, "", 1) == 1, "write");
}

static int read_byte(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 1;
}

static void op_syscall(void)
{
	syscall(SYS_getppid);
}

/* --- pipes: one process alone, and two that take turns on one processor */
static int there[2], back[2];

static void setup_pipe(void)
{
	must(pipe(there) == 0, "pipe");
}

static void op_pipe(void)
{
	write_byte(there[1]);
	must(read_byte(there[0]), "read");
}

static void echo_pipe(void)
{
	close(there[1]);
	while (read_byte(there[0]))
		write_byte(back[1]);
}

static void setup_switch(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu() < 0 ? 0 : sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one); /* a machine with one processor need not know of any */
	must(pipe(there) == 0 && pipe(back) == 0, "pipe");
	helper(echo_pipe);
	close(there[0]);
}

static void op_switch(void) /* there and back: two switches */
{
	write_byte(there[1]);
	must(read_byte(back[0]), "read");
}

/* --- processes and memory */
static void op_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	must(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
}

static void spawn(char *const words[])
{
	pid_t pid = vfork();
	int status;

	if (pid == 0) {
		execv(words[0], words);
		_exit(126);
	}
	must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, words[0]);
}

static void op_exec(void)
{
	char *const words[] = { (char *)self, "exit", NULL };

	spawn(words);
}

static char *area;

static void setup_fault(void)
{
	area = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(area != MAP_FAILED, "mmap");
	madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
}

static void op_fault(void) /* PAGES faults */
{
	for (int i = 0; i < PAGES; i++)
		area[i * 4096] = 1;
	must(madvise(area, PAGES * 4096, MADV_DONTNEED) == 0, "madvise");
}

/* --- files, in memory */
static char folder[] = "/dev/shm/work-XXXXXX";

static void setup_folder(void)
{
	must(mkdtemp(folder) && chdir(folder) == 0, "mkdtemp");
}

static void op_create(void)
{
	int fd = open("file", O_CREAT | O_EXCL | O_WRONLY, 0600);

	must(fd >= 0 && close(fd) == 0 && unlink("file") == 0, "create");
}

/* --- network, over the loopback device */
static int peer, listener;
static struct sockaddr_in address;

static int local_socket(int type)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, type, 0);

	must(fd >= 0 && bind(fd, (void *)&any, sizeof(any)) == 0, "bind");
	must(getsockname(fd, (void *)&address, &size) == 0, "getsockname");
	return fd;
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &request); /* where it is up already, nobody need be allowed to */
		close(fd);
	}
}

static void echo_udp(void)
{
	struct sockaddr_in from;
	char byte;

	for (;;) {
		socklen_t size = sizeof(from);

		if (recvfrom(listener, &byte, 1, 0, (void *)&from, &size) == 1)
			sendto(listener, &byte, 1, 0, (void *)&from, size);
	}
}

static void setup_udp(void)
{
	listener = local_socket(SOCK_DGRAM);
	helper(echo_udp);
	peer = socket(AF_INET, SOCK_DGRAM, 0);
	must(connect(peer, (void *)&address, sizeof(address)) == 0, "connect");
}

static void op_peer(void)
{
	write_byte(peer);
	must(read_byte(peer), "answer");
}

static void without_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void echo_tcp(void)
{
	int fd = accept(listener, NULL, NULL);

	without_delay(fd);
	while (read_byte(fd))
		write_byte(fd);
}

static void setup_tcp(void)
{
	listener = local_socket(SOCK_STREAM);
	must(listen(listener, 8) == 0, "listen");
	helper(echo_tcp);
	peer = socket(AF_INET, SOCK_STREAM, 0);
	must(connect(peer, (void *)&address, sizeof(address)) == 0, "connect");
	without_delay(peer);
}

/* A web server that knows one page. */
static void serve_page(void)
{
	static char answer[BODY + 128];
	int head = snprintf(answer, 128, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n", BODY);

	memset(answer + head, 'x', BODY);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char request[512];
		ssize_t got = 0, more = 1;

		while (more > 0 && !memmem(request, (size_t)got, "\r\n\r\n", 4) && got < (ssize_t)sizeof(request)) {
			more = read(fd, request + got, sizeof(request) - (size_t)got);
			got += more > 0 ? more : 0;
		}
		for (ssize_t done = 0; more > 0 && done < head + BODY; done += more)
			more = write(fd, answer + done, (size_t)(head + BODY - done));
		close(fd);
	}
}

static void setup_web(void)
{
	listener = local_socket(SOCK_STREAM);
	must(listen(listener, 128) == 0, "listen");
	helper(serve_page);
}

static void op_web(void)
{
	static const char request[] = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
	char answer[8192];
	ssize_t got = 0, more;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0 && connect(fd, (void *)&address, sizeof(address)) == 0, "connect");
	must(write(fd, request, sizeof(request) - 1) == sizeof(request) - 1, "request");
	while ((more = read(fd, answer + got, sizeof(answer) - (size_t)got)) > 0)
		got += more;
	must(got > BODY && !memcmp(answer, "HTTP/1.0 200 OK", 15), "page");
	close(fd);
}

/* --- a compile, by the small compiler of the host image */
static void setup_compile(void)
{
	FILE *source;

	if (access("/usr/bin/tcc", X_OK) < 0)
		fail("/usr/bin/tcc");
	setup_folder();
	source = fopen("unit.c", "w");
	must(source != NULL, "unit.c");
	for (int i = 0; i < 200; i++)
		fprintf(source,
			"struct s%d { int a[%d]; struct s%d *next; };\n"
			"int f%d(struct s%d *s, int n) { int t = 0; for (int i = 0; i < n; i++) "
			"{ t += s->a[i %% %d] * n; if (t & %d) s = s->next ? s->next : s; } return t; }\n",
			i, i + 1, i, i, i, i + 1, i);
	must(fclose(source) == 0, "unit.c");
}

static void op_compile(void)
{
	char *const words[] = { "/usr/bin/tcc", "-nostdinc", "-c", "unit.c", "-o", "unit.o", NULL };

	spawn(words);
}

struct row {
	const char *name;
	void (*setup)(void);
	void (*op)(void);
	unsigned int per; /* operations that one call counts for */
};

static void nothing(void) { }

static const struct row rows[] = {
	{ "syscall", nothing, op_syscall, 1 },	  { "switch", setup_switch, op_switch, 2 },
	{ "pipe", setup_pipe, op_pipe, 1 },	  { "fork", nothing, op_fork, 1 },
	{ "exec", nothing, op_exec, 1 },	  { "fault", setup_fault, op_fault, PAGES },
	{ "create", setup_folder, op_create, 1 }, { "udp", setup_udp, op_peer, 1 },
	{ "tcp", setup_tcp, op_peer, 1 },	  { "web", setup_web, op_web, 1 },
	{ "compile", setup_compile, op_compile, 1 },
};

static uint64_t batch(const struct row *row, uint64_t count)
{
	uint64_t begun = now();

	for (uint64_t i = 0; i < count; i++)
		row->op();
	return now() - begun;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(const struct row *row, uint64_t milliseconds)
{
	uint64_t taken[BATCHES], wanted = milliseconds * 1000000u / BATCHES, count = 1;
	double each;

	row->op(); /* once, unmeasured: first use of caches and lazily made state */
	while (batch(row, count) < wanted / 2 && count < 1u << 24)
		count *= 2;
	for (int i = 0; i < BATCHES; i++)
		taken[i] = batch(row, count);
	qsort(taken, BATCHES, sizeof(taken[0]), by_value);
	each = (double)count * row->per;
	printf("{\"median\":%.1f,\"low\":%.1f,\"high\":%.1f,\"least\":%.1f,\"count\":%llu}\n", (double)taken[BATCHES / 2] / each,
	       (double)taken[BATCHES / 4] / each, (double)taken[BATCHES - 1 - BATCHES / 4] / each, (double)taken[0] / each,
	       (unsigned long long)count);
}

int main(int argc, char **argv)
{
	uint64_t flags = FLAG_STATE_ADMIN;
	uint32_t context = CONTEXT;
	int idle;

	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;
	if (argc < 3)
		return 2;
	self = argv[0];
	idle = !strcmp(argv[1], "idle");
	signal(SIGPIPE, SIG_IGN);
	if (idle)
		context += (uint32_t)strtoul(argv[2], NULL, 10);
	else
		loopback_up();
	if (argc > 3)
		must(!strcmp(argv[3], "context") && syscall(VSERVER_NR, VCMD_CTX_CREATE, context, &flags) == (long)context,
		     "ctx_create");
	if (idle) {
		puts("ready");
		fflush(stdout);
		while (read_byte(STDIN_FILENO))
			;
		return 0;
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strcmp(rows[i].name, argv[1]))
			continue;
		rows[i].setup();
		measure(&rows[i], strtoull(argv[2], NULL, 10));
		if (rows[i].setup == setup_folder || rows[i].setup == setup_compile) {
			unlink("unit.c");
			unlink("unit.o");
			rmdir(folder);
		}
		return 0;
	}
	errno = EINVAL;
	fail(argv[1]);
}
