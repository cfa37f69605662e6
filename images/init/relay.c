// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A `relay` job: this machine is only the host of another one, whose results go through it unread.
 * The job's script starts that machine; its descriptor 3 is the result channel.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

#define CHANNEL 3

static _Noreturn void run_script(int channel)
{
	char *const words[] = { "python3", "-P", "-S", "-u", JOB_FOLDER "/relay.py", NULL };
	int nothing = open("/dev/null", O_RDONLY);

	if (channel == CHANNEL)
		fcntl(CHANNEL, F_SETFD, 0);
	else
		dup2(channel, CHANNEL);	/* without the close-on-exec flag */
	dup2(nothing, STDIN_FILENO);
	execvp(words[0], words);
	say("%s: %s", words[0], strerror(errno));
	_exit(127);
}

/* Run the job's script to its end, with the channel for its own; 0, or -1 when it failed. */
int relay(void)
{
	int status = -1, got;
	pid_t child, gone;

	child = fork();
	if (child == 0)
		run_script(channel_descriptor());
	do {
		got = 0;
		gone = waitpid(-1, &got, 0);
		if (gone == child)
			status = got;
	} while (child > 0 && gone != child && (gone > 0 || errno == EINTR));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}
