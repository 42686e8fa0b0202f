/* Sequential and random reads and writes of one file, past the guest's page cache.
 *
 *     diskio FILE [OUTPUT]
 *
 * Prints one line per work: its name and microseconds per operation of 1 MiB or 4 KiB. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB (1 << 20)
#define FILE_BYTES (64LL * MIB)
#define SECONDS 0.6
#define HANDS 4

struct work {
	const char *name;
	size_t bytes;
	int write, random, hands;
};

static const struct work all[] = {
	{ "seq-write", MIB, 1, 0, 1 },     { "seq-read", MIB, 0, 0, 1 },
	{ "rand-write", 4096, 1, 1, 1 },   { "rand-read", 4096, 0, 1, 1 },
	{ "rand-write-4", 4096, 1, 1, HANDS }, { "rand-read-4", 4096, 0, 1, HANDS },
};

static int file;
static const struct work *now;
static double until;

static double clock_seconds(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *hand(void *seed)
{
	uint64_t dice = (uintptr_t)seed * 2654435761u + 1, done = 0;
	char *data;
	if (posix_memalign((void **)&data, 4096, now->bytes) != 0)
		exit(3);
	for (size_t at = 0; at < now->bytes; at++)
		data[at] = (char)(at * 7 + at / 251 + 1);
	for (; clock_seconds() < until; done++) {
		dice = dice * 6364136223846793005u + 1442695040888963407u;
		uint64_t place = now->random ? dice >> 20 : done;
		off_t offset = (off_t)(place % (FILE_BYTES / now->bytes) * now->bytes);
		ssize_t moved = now->write ? pwrite(file, data, now->bytes, offset)
			: pread(file, data, now->bytes, offset);
		if (moved != (ssize_t)now->bytes)
			exit(4);
	}
	free(data);
	return (void *)(uintptr_t)done;
}

static double measure(void)
{
	pthread_t hands[HANDS];
	uint64_t done = 0;
	double began = clock_seconds();
	until = began + SECONDS;
	for (int number = 0; number < now->hands; number++)
		if (pthread_create(&hands[number], NULL, hand, (void *)(uintptr_t)(number + 1)) != 0)
			exit(5);
	for (int number = 0; number < now->hands; number++) {
		void *count;
		pthread_join(hands[number], &count);
		done += (uintptr_t)count;
	}
	if (now->write)
		fdatasync(file);
	return (clock_seconds() - began) / (double)done * 1e6;
}

/* All of the file, so that there is something to read. */
static int fill(void)
{
	char *data;
	if (posix_memalign((void **)&data, 4096, MIB) != 0)
		return -1;
	memset(data, 7, MIB);
	for (off_t offset = 0; offset < FILE_BYTES; offset += MIB)
		if (pwrite(file, data, MIB, offset) != MIB)
			return -1;
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	char answer[4096] = "";
	file = open(argv[1], O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (file < 0 || fill() < 0)
		return 2;
	for (size_t number = 0; number < sizeof all / sizeof *all; number++) {
		now = &all[number];
		size_t length = strlen(answer);
		snprintf(answer + length, sizeof answer - length, "%s %.1f\n", now->name, measure());
	}
	int out = argc > 2 ? open(argv[2], O_WRONLY | O_SYNC) : STDOUT_FILENO;
	return write(out, answer, argc > 2 ? sizeof answer : strlen(answer)) > 0 ? 0 : 6;
}
