/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the benchmark's PID 1 share. */
#ifndef CLOISON_BENCH_H
#define CLOISON_BENCH_H

#include <stdint.h>
#include <x86intrin.h>

/* The time stamp counter: under -icount shift=0 one tick is one instruction. */
static inline uint64_t counter(void)
{
	_mm_lfence();
	return __rdtsc();
}

/* Send one line to the channel. */
void emit(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A benchmark whose operation fails measures nothing: say so and stop. */
void must(int good, const char *what);

/* The vserver system call. */
long vserver(uint32_t command, uint32_t id, void *data);

#define VCMD_GET_VERSION	0x00000000u
#define VCMD_CTX_CREATE		0x09010001u
#define VCMD_CTX_MIGRATE	0x0b010001u
#define VCMD_SET_CFLAGS		0x34020000u
#define VCMD_NET_CREATE		0x19010001u
#define VCMD_NET_ADD_IPV4	0x1a010002u
#define VCMD_SET_NFLAGS		0x34060000u
#define FLAG_STATE_ADMIN	(1ull << 34)
#define FLAG_PERSISTENT		(1ull << 38)

/* micro.c: the rows named in `wanted` (separated by commas), or all of them. */
void micro_rows(const char *wanted);

/* Emit one row: `count` times an operation, in batches. */
void measure(const char *name, int count, void (*op)(void));

/* net.c: sockets and packets of a server on the host, in a network context or in a network namespace. */
void net_rows(const char *place, int addresses);

/* life.c: create, enter and destroy contexts beside namespaces, with `present` contexts on the host. */
void life_rows(int present);

/* share.c: a writer gets its own copy of a shared file; `device` holds an empty XFS, or is "". */
void share_rows(const char *device);

#endif
