// SPDX-License-Identifier: GPL-2.0-or-later
/* PID 1 of a test boot: mount, speak, do the job, power off. See init.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

#ifndef CLOISON_NEXT_INIT
#define CLOISON_NEXT_INIT "/sbin/init"
#endif

struct mounted {
	const char *type, *at, *options;
	unsigned long flags;
};

/* What the job needs to be found. The image's init copes with finding these mounted. */
static const struct mounted early[] = {
	{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID },
	{ "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/* What the job needs to run. */
static const struct mounted late[] = {
	{ "tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV },
	{ "tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "devpts", "/dev/pts", "mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC },
	{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/* Mount what is not mounted yet. A kernel without a file system is no error here: what needs it says so. */
static void mount_all(const struct mounted *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct mounted *m = &list[i];

		if (make_folder(m->at, 0755) < 0)
			say("mkdir %s: %s", m->at, strerror(errno));
		if (mount(m->type, m->at, m->type, m->flags, m->options) < 0 && errno != EBUSY)
			say("mount %s on %s: %s", m->type, m->at, strerror(errno));
	}
}

/* Make sure that descriptors 0 to 2 are open, on the console where there is one. */
static void open_standard(void)
{
	int fd;

	do {
		fd = open("/dev/console", O_RDWR | O_NOCTTY);
		if (fd < 0)
			fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd < STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

/* Ask a debug kernel for leaks. Objects are reported from an age of five seconds. */
static void scan_for_leaks(void)
{
	static char report[4096];
	const char *control = "/sys/kernel/debug/kmemleak";

	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	if (access(control, W_OK) < 0)
		return;
	sleep(6);
	if (write_file(control, "scan") < 0)
		return;		/* kmemleak is built in and turned off */
	if (read_file(control, report, sizeof(report)) > 0)
		say("kmemleak: %s", report);
}

/* End the machine; never returns. */
_Noreturn void finish(const struct job *job)
{
	sync();
	reboot(strcmp(job->ending, "reboot") == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
	say("the machine does not power off: %s", strerror(errno));
	for (;;)
		pause();
}

static void step_aside(char *argv[])
{
	argv[0] = (char *)CLOISON_NEXT_INIT;
	execv(argv[0], argv);
	say("no job disk, and %s: %s", argv[0], strerror(errno));
}


int main(int argc, char *argv[])
{
	static struct job job;
	int found;

	(void)argc;
	umask(022);
	mount_all(early, sizeof(early) / sizeof(*early));
	open_standard();
	found = job_find(&job);
	if (found == 0)
		step_aside(argv);
	if (found <= 0) {
		say("no job to do");
		strcpy(job.ending, "reboot");
		finish(&job);
	}
	if (channel_open(job.channel) < 0) {
		say("result channel %s: %s", job.channel, strerror(errno));
		finish(&job);
	}
	if (strcmp(job.mode, "relay") != 0)
		channel_hello(&job);
	klogctl(8, NULL, 7);	/* SYSLOG_ACTION_CONSOLE_LEVEL: from here on the console says everything */
	mount_all(late, sizeof(late) / sizeof(*late));
	if (make_folder(JOB_FOLDER, 0755) < 0 || job_unpack(&job) < 0) {
		channel_fault("the job disk cannot be unpacked");
		finish(&job);
	}
	unlink(job.device);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LANG", "C.UTF-8", 1);
	if (strcmp(job.mode, "verify") == 0)
		found = verify(&job);
	else if (strcmp(job.mode, "shell") == 0)
		found = shell(&job);
	else if (strcmp(job.mode, "relay") == 0)
		found = relay();
	else
		found = strcmp(job.mode, "boot") == 0 ? 0 : -1;
	if (found < 0) {
		channel_fault("the job cannot be done");
		finish(&job);
	}
	if (strcmp(job.mode, "relay") == 0)
		finish(&job);	/* the last word was the other machine's */
	scan_for_leaks();
	channel_bye();
	finish(&job);
}
