// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rows of the instruction-count benchmark, as PID 1 of a machine that counts instructions
 * (QEMU, -icount shift=0,sleep=off: the time stamp counter advances by one an instruction).
 *
 * Each row runs batches of an operation and prints one JSON line: the median of the batches
 * (timer ticks fall outside it), the mean (ticks included) and the least, in ticks of the
 * counter for one operation. The cost of reading the counter and of the empty loop is measured
 * the same way, printed as row "loop", and not subtracted.
 *
 * Kernel command line: bench.context=1 enters a new context first; bench.rows=a,b limits the rows;
 * bench.channel=/dev/ttyS1 is where lines go.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "bench.h"

#define BATCHES 101

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(const char *name, int count, void (*op)(void))
{
	uint64_t batch[BATCHES], total = 0;

	op(); /* once, unmeasured: first use of caches and lazily made state */
	for (int b = 0; b < BATCHES; b++) {
		uint64_t begun = counter();

		for (int i = 0; i < count; i++)
			op();
		batch[b] = counter() - begun;
		total += batch[b];
	}
	qsort(batch, BATCHES, sizeof(batch[0]), by_value);
	emit("{\"row\":\"%s\",\"median\":%.3f,\"mean\":%.3f,\"least\":%.3f,\"count\":%d,\"batches\":%d}",
	     name, (double)batch[BATCHES / 2] / count, (double)total / BATCHES / count,
	     (double)batch[0] / count, count, BATCHES);
}

static void op_loop(void) { __asm__ volatile("" ::: "memory"); }
static void op_getuid(void) { syscall(SYS_getuid); }
static void op_getppid(void) { syscall(SYS_getppid); }

static void op_open(void)
{
	int fd = open("/tmp/file", O_RDONLY);

	must(fd >= 0, "open");
	close(fd);
}

static int write_fd;

static void op_write(void)
{
	must(pwrite(write_fd, "x", 1, 0) == 1, "pwrite");
}

static void op_stat(void)
{
	struct stat st;

	must(stat("/tmp/file", &st) == 0, "stat");
}

static int pipe_fd[2], unix_fd[2];
static char byte_buffer[1];

static void op_pipe(void)
{
	must(write(pipe_fd[1], byte_buffer, 1) == 1 && read(pipe_fd[0], byte_buffer, 1) == 1, "pipe");
}

static void op_unix(void)
{
	must(write(unix_fd[1], byte_buffer, 1) == 1 && read(unix_fd[0], byte_buffer, 1) == 1, "unix");
}

static void op_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	must(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
}

static void op_exec(void)
{
	static char *const argv[] = { "/init", "--exit", NULL }, *const envp[] = { NULL };
	pid_t pid = vfork();

	if (pid == 0) {
		execve("/init", argv, envp);
		_exit(1);
	}
	must(pid > 0 && waitpid(pid, NULL, 0) == pid, "exec");
}

static char *fault_area;
#define FAULT_PAGES 64

static void op_fault(void) /* FAULT_PAGES faults */
{
	for (int i = 0; i < FAULT_PAGES; i++)
		fault_area[i * 4096] = 1;
	must(madvise(fault_area, FAULT_PAGES * 4096, MADV_DONTNEED) == 0, "madvise");
}

static void op_mmap(void)
{
	void *area = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(area != MAP_FAILED && munmap(area, 4096) == 0, "mmap");
}

static volatile int signals;
static void on_signal(int sig) { (void)sig; signals++; }
static void op_signal(void) { raise(SIGUSR1); }
static pid_t target;
static void op_kill(void) { must(kill(target, 0) == 0, "kill"); }

static void op_bind(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0 && bind(fd, (void *)&to, sizeof(to)) == 0, "bind");
	close(fd);
}

static struct sockaddr_in tcp_address, udp_address[2];
static int tcp_listener, udp_fd[2];

static int listen_local(struct sockaddr_in *address, int type)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, type, 0);

	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	must(fd >= 0 && bind(fd, (void *)address, size) == 0 && getsockname(fd, (void *)address, &size) == 0, "listen_local");
	return fd;
}

static void op_tcp(void)
{
	struct linger at_once = { .l_onoff = 1 };
	int from = socket(AF_INET, SOCK_STREAM, 0), to;

	must(connect(from, (void *)&tcp_address, sizeof(tcp_address)) == 0, "connect");
	to = accept(tcp_listener, NULL, NULL);
	must(to >= 0, "accept");
	setsockopt(from, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)); /* a reset: no TIME_WAIT piles up */
	close(from);
	close(to);
}

static void op_udp(void)
{
	for (int i = 0; i < 2; i++) {
		must(sendto(udp_fd[i], byte_buffer, 1, 0, (void *)&udp_address[!i], sizeof(udp_address[0])) == 1, "sendto");
		must(recv(udp_fd[!i], byte_buffer, 1, 0) == 1, "recv");
	}
}

static void op_create(void)
{
	int fd = open("/tmp/new", O_CREAT | O_EXCL | O_WRONLY, 0600);

	must(fd >= 0, "create");
	close(fd);
	unlink("/tmp/new");
}

static const struct { const char *name; int count; void (*op)(void); } rows[] = {
	{ "loop", 1000, op_loop }, { "getuid", 200, op_getuid }, { "getppid", 200, op_getppid },
	{ "open+close", 50, op_open }, { "stat", 50, op_stat }, { "write", 50, op_write }, { "pipe", 50, op_pipe },
	{ "unix", 50, op_unix }, { "fork+exit", 2, op_fork }, { "exec", 1, op_exec },
	{ "fault", 4, op_fault }, { "mmap", 50, op_mmap }, { "signal", 50, op_signal },
	{ "kill", 100, op_kill }, { "socket+bind", 20, op_bind }, { "tcp", 4, op_tcp },
	{ "udp", 20, op_udp }, { "create+unlink", 20, op_create },
};

static void prepare(void)
{
	int fd = open("/tmp/file", O_CREAT | O_WRONLY, 0600);

	must(fd >= 0, "file");
	write_fd = fd;
	must(pipe(pipe_fd) == 0, "pipe");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_fd) == 0, "socketpair");
	fault_area = mmap(NULL, FAULT_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(fault_area != MAP_FAILED && madvise(fault_area, FAULT_PAGES * 4096, MADV_NOHUGEPAGE) <= 0, "mmap");
	must(signal(SIGUSR1, on_signal) != SIG_ERR, "signal");
	tcp_listener = listen_local(&tcp_address, SOCK_STREAM);
	must(listen(tcp_listener, 8) == 0, "listen");
	for (int i = 0; i < 2; i++)
		udp_fd[i] = listen_local(&udp_address[i], SOCK_DGRAM);
	target = fork(); /* a sibling to ask for, in the same context */
	if (target == 0) {
		pause();
		_exit(0);
	}
	must(target > 0, "fork");
}

void micro_rows(const char *wanted)
{
	char list[512];

	prepare();
	snprintf(list, sizeof(list), ",%s,", wanted);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char name[64];

		snprintf(name, sizeof(name), ",%s,", rows[i].name);
		if (!*wanted || strstr(list, name))
			measure(rows[i].name, rows[i].count, rows[i].op);
	}
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
}
