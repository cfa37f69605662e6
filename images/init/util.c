// SPDX-License-Identifier: GPL-2.0-or-later
/* Small helpers: whole writes, files, clocks, folders, raw serial ports, bounded text. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

/* Print one line on the console. */
void say(const char *format, ...)
{
	char line[512];
	va_list list;
	int length;

	va_start(list, format);
	length = vsnprintf(line, sizeof(line) - 1, format, list);
	va_end(list);
	if (length < 0)
		return;
	if ((size_t)length > sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	(void)!write(STDERR_FILENO, "cloison: ", 9);
	(void)!write(STDERR_FILENO, line, (size_t)length);
}

/* Write all of `data`, whatever it takes; 0, or -1 with errno. */
int write_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length > 0) {
		ssize_t done = write(fd, at, length);

		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		at += done;
		length -= (size_t)done;
	}
	return 0;
}

/* Write a short value to an existing file, such as a control file; 0, or -1 with errno. */
int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int result, saved;

	if (fd < 0)
		return -1;
	result = write_all(fd, value, strlen(value));
	saved = errno;
	close(fd);
	errno = saved;
	return result;
}

/* Read a small file into `buffer` as a string; its length, or -1 with errno. */
ssize_t read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	int saved;

	if (fd < 0)
		return -1;
	while (length < size - 1) {
		ssize_t done = read(fd, buffer + length, size - 1 - length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0) {
			saved = errno;
			close(fd);
			errno = saved;
			return -1;
		}
		if (done == 0)
			break;
		length += (size_t)done;
	}
	close(fd);
	buffer[length] = '\0';
	return (ssize_t)length;
}

/* Milliseconds of a clock that never jumps. */
int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Make a folder unless it exists; 0, or -1 with errno. */
int make_folder(const char *path, mode_t mode)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return 0;
	return -1;
}

/* Make all folders above `path`; 0, or -1 with errno. */
int make_folders_of(const char *path)
{
	char part[1024];
	size_t length = strlen(path);

	if (length >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (size_t i = 1; i < length; i++) {
		if (path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (make_folder(part, 0755) < 0)
			return -1;
	}
	return 0;
}

/* Open a serial port so that bytes pass unchanged; the descriptor, or -1 with errno. */
int open_raw(const char *device, int flags)
{
	struct termios settings;
	int fd = open(device, flags | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (tcgetattr(fd, &settings) == 0) {
		cfmakeraw(&settings);
		cfsetspeed(&settings, B115200);
		settings.c_cflag |= CLOCAL | CREAD;
		settings.c_cflag &= ~(tcflag_t)(CRTSCTS | HUPCL);
		if (tcsetattr(fd, TCSANOW, &settings) < 0) {
			int saved = errno;

			close(fd);
			errno = saved;
			return -1;
		}
	}
	return fd;
}

/* Append formatted text. */
void text_add(struct text *text, const char *format, ...)
{
	va_list list;
	int length;

	if (text->overflown)
		return;
	va_start(list, format);
	length = vsnprintf(text->data + text->length, text->size - text->length, format, list);
	va_end(list);
	if (length < 0 || (size_t)length >= text->size - text->length) {
		text->overflown = 1;
		text->data[text->length] = '\0';
		return;
	}
	text->length += (size_t)length;
}

/* Append `value` as a JSON string; bytes above 126 become \u00XX, so that the result is ASCII. */
void text_add_json(struct text *text, const char *value)
{
	text_add(text, "\"");
	for (const unsigned char *at = (const unsigned char *)value; *at; at++) {
		if (*at == '"' || *at == '\\')
			text_add(text, "\\%c", *at);
		else if (*at < 0x20 || *at > 0x7e)
			text_add(text, "\\u%04x", *at);
		else
			text_add(text, "%c", *at);
	}
	text_add(text, "\"");
}
