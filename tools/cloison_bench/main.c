// SPDX-License-Identifier: GPL-2.0-or-later
/* PID 1 of a benchmark machine: reads what to run from the kernel command line, runs it, powers off. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "bench.h"

#define VSERVER_NR 236 /* x86-64 */

static int channel = 2;

void emit(const char *format, ...)
{
	char line[1024];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[size++] = '\n';
	for (int done = 0; done < size;) {
		ssize_t more = write(channel, line + done, size - done);

		if (more < 0 && errno != EINTR)
			break;
		done += more > 0 ? more : 0;
	}
}

static void power_off(void)
{
	tcdrain(channel);
	sync();
	reboot(RB_AUTOBOOT); /* with -no-reboot this ends QEMU on every machine type */
	for (;;)
		pause();
}

void must(int good, const char *what)
{
	if (good)
		return;
	emit("{\"error\":\"%s: %s\"}", what, strerror(errno));
	if (getpid() == 1)
		power_off();
	_exit(1);
}

long vserver(uint32_t command, uint32_t id, void *data)
{
	return syscall(VSERVER_NR, command, id, data);
}

static const char *option(const char *name, const char *fallback)
{
	static char line[4096], value[256];
	char *word, *rest = line;
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	line[size < 0 ? 0 : size] = 0;
	while ((word = strsep(&rest, " \n"))) {
		if (!strncmp(word, name, strlen(name)) && word[strlen(name)] == '=') {
			snprintf(value, sizeof(value), "%s", word + strlen(name) + 1);
			return value;
		}
	}
	return fallback;
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	must(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo");
	close(fd);
}

static void setup(void)
{
	struct termios raw;
	struct utsname name;

	mkdir("/proc", 0555);
	mkdir("/dev", 0755);
	mkdir("/tmp", 01777);
	must(mount("proc", "/proc", "proc", 0, NULL) == 0, "mount /proc");
	if (mount("dev", "/dev", "devtmpfs", 0, NULL) < 0)
		must(errno == EBUSY, "mount /dev"); /* DEVTMPFS_MOUNT has done it */
	must(mount("tmp", "/tmp", "tmpfs", 0, NULL) == 0, "mount /tmp");
	channel = open(option("bench.channel", "/dev/ttyS1"), O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (channel < 0)
		channel = 2;
	if (tcgetattr(channel, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(channel, TCSANOW, &raw);
	}
	loopback_up();
	uname(&name);
	emit("{\"hello\":\"%s\",\"version\":\"%s\",\"vserver\":%ld}", name.release, name.version,
	     vserver(VCMD_GET_VERSION, 0, NULL));
}

static void enter_context(void)
{
	uint64_t flags = FLAG_STATE_ADMIN;

	must(vserver(VCMD_CTX_CREATE, 100, &flags) == 100, "ctx_create");
}

int main(int argc, char **argv)
{
	char rows[256], place[16];
	int addresses, status;
	pid_t child;

	if (argc > 1 && !strcmp(argv[1], "--exit"))
		return 0;
	setup();
	snprintf(rows, sizeof(rows), "%s", option("bench.rows", ""));
	snprintf(place, sizeof(place), "%s", option("bench.place", "host"));
	addresses = atoi(option("bench.addresses", "0"));
	child = fork(); /* the rows run in a child in every column, so that PID 1 stays on the host */
	if (child == 0) {
		if (atoi(option("bench.context", "0")))
			enter_context();
		if (!strcmp(rows, "life"))
			life_rows(atoi(option("bench.present", "0")));
		else if (!strcmp(rows, "net"))
			net_rows(place, addresses);
		else if (!strcmp(rows, "share"))
			share_rows(option("bench.disk", ""));
		else
			micro_rows(rows);
		_exit(0);
	}
	must(child > 0 && waitpid(child, &status, 0) == child, "rows");
	emit("{\"bye\":%d}", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	power_off();
	return 0;
}
