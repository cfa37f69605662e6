// SPDX-License-Identifier: GPL-2.0-or-later
/* SHA-256 as FIPS 180-4 describes it. The constants are computed once by integer arithmetic. */
#include <string.h>

#include "init.h"

static uint32_t constants[64];

/* Return the first 32 bits of the fraction of the `root`-th (2 or 3) root of `prime`. */
static uint32_t fraction(unsigned int prime, unsigned int root)
{
	/* The largest x with x^root <= prime * 2^(32 * root), found bit by bit; x has at most 37 bits. */
	unsigned __int128 x = 0;

	for (int bit = 36; bit >= 0; bit--) {
		unsigned __int128 try = x | ((unsigned __int128)1 << bit);

		if (root == 2) {
			if (try * try <= (unsigned __int128)prime << 64)
				x = try;
		} else {
			/* try^3 <= prime * 2^96: both sides stay below 2^111. */
			if (try * try * try <= (unsigned __int128)prime << 96)
				x = try;
		}
	}
	return (uint32_t)x;
}

static int is_prime(unsigned int number)
{
	for (unsigned int divisor = 2; divisor * divisor <= number; divisor++)
		if (number % divisor == 0)
			return 0;
	return 1;
}

static uint32_t rotate(uint32_t value, unsigned int by)
{
	return value >> by | value << (32 - by);
}

static void compress(struct sha256 *sum)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)sum->block[4 * i] << 24 | (uint32_t)sum->block[4 * i + 1] << 16 |
		       (uint32_t)sum->block[4 * i + 2] << 8 | sum->block[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	memcpy(s, sum->state, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
			       ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[i] + w[i];
		uint32_t two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
			       ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += one;
		s[0] = one + two;
	}
	for (int i = 0; i < 8; i++)
		sum->state[i] += s[i];
}

/* Begin an empty sum. */
void sha256_start(struct sha256 *sum)
{
	unsigned int prime = 2;

	memset(sum, 0, sizeof(*sum));
	for (int i = 0; i < 64; prime++) {
		if (!is_prime(prime))
			continue;
		constants[i] = fraction(prime, 3);
		if (i < 8)
			sum->state[i] = fraction(prime, 2);
		i++;
	}
}

/* Add `length` bytes. */
void sha256_add(struct sha256 *sum, const void *data, size_t length)
{
	const unsigned char *at = data;

	while (length > 0) {
		size_t used = sum->length % 64;
		size_t part = 64 - used < length ? 64 - used : length;

		memcpy(sum->block + used, at, part);
		sum->length += part;
		at += part;
		length -= part;
		if (sum->length % 64 == 0)
			compress(sum);
	}
}

/* Finish a copy of the sum and write it as hexadecimal; the sum itself can grow on. */
void sha256_end(struct sha256 *sum, char hex[65])
{
	static const char digits[] = "0123456789abcdef";
	struct sha256 last = *sum;
	uint64_t bits = sum->length * 8;
	unsigned char size[8];

	sha256_add(&last, "\x80", 1);
	while (last.length % 64 != 56)
		sha256_add(&last, "", 1);
	for (int i = 0; i < 8; i++)
		size[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_add(&last, size, 8);
	for (int i = 0; i < 32; i++) {
		unsigned char byte = (unsigned char)(last.state[i / 4] >> (24 - 8 * (i % 4)));

		hex[2 * i] = digits[byte >> 4];
		hex[2 * i + 1] = digits[byte & 15];
	}
	hex[64] = '\0';
}
