/* Work whose amount is known: operations of a processor, bytes of memory, system calls. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "work.h"

static const struct sample samples[] = {
	{ "cpu", work_cpu, "a chain of multiplications and additions", 0 },
	{ "cpu-float", work_cpu_float, "a chain of floating-point multiplications and additions", 0 },
	{ "cpu-branches", work_cpu_branches, "numbers sorted", 0 },
	{ "memory", work_memory, "a[i] = b[i] + c[i], over three arrays", 0 },
	{ "syscalls", work_syscalls, "getppid", 0 },
	{ "disk-seq-write", work_disk, "a file written in order and synced", SEQUENTIAL_WRITE },
	{ "disk-seq-read", work_disk, "a file read in order, out of this system's cache", SEQUENTIAL_READ },
	{ "disk-rand-write", work_disk, "blocks of a file written in no order, then synced", RANDOM_WRITE },
	{ "disk-rand-read", work_disk, "blocks read in no order, out of this system's cache", RANDOM_READ },
	{ "fsync", work_disk, "blocks written, each of them synced", SYNCED_WRITE },
};
#define SAMPLES (sizeof(samples) / sizeof(*samples))

void stretch_begin(struct stretch *stretch, uint64_t ms)
{
	*stretch = (struct stretch){ .cpu = cpu_ns() };
	stretch->begin = now_ns();
	stretch->until = stretch->begin + ms * 1000000;
}

bool stretch_goes_on(struct stretch *stretch)
{
	stretch->clock_reads++;
	return now_ns() < stretch->until;
}

void stretch_pause(struct stretch *stretch)
{
	stretch->paused = now_ns();
	stretch->paused_cpu = cpu_ns();
}

void stretch_resume(struct stretch *stretch)
{
	uint64_t left_out = now_ns() - stretch->paused;
	stretch->begin += left_out;
	stretch->until += left_out;
	stretch->cpu += cpu_ns() - stretch->paused_cpu;
}

void stretch_answer(struct stretch *stretch, const struct sample *sample, uint64_t done, const char *unit)
{
	double seconds = (double)(now_ns() - stretch->begin) / 1e9;
	double cpu_seconds = (double)(cpu_ns() - stretch->cpu) / 1e9;
	answer_begin(sample->name);
	answer_count("done", done);
	answer_text("unit", unit);
	answer_number("seconds", seconds);
	answer_number("cpu_seconds", cpu_seconds);
	answer_number("rate", (double)done / seconds);
	answer_number("overhead_seconds", (double)stretch->clock_reads * clock_cost_ns() / 1e9);
}

int work_cpu(const struct sample *sample, const struct work *work)
{
	enum { BATCH = 1 << 16 };
	uint64_t value = 1, done = 0;
	struct stretch stretch;
	stretch_begin(&stretch, work->ms);
	do {
		for (int i = 0; i < BATCH; i++) {
			value = STEP(value);
			__asm__ volatile("" : "+r"(value));
		}
		done += BATCH;
	} while (stretch_goes_on(&stretch));
	stretch_answer(&stretch, sample, done, "operations");
	char text[24];
	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	answer_text("result", text);
	answer_end();
	return 0;
}

/* x = 0.999999 x + 1: goes to a million, and who knows the number of steps knows how near it is. */
int work_cpu_float(const struct sample *sample, const struct work *work)
{
	enum { BATCH = 1 << 15 };
	double value = 0;
	uint64_t done = 0;
	struct stretch stretch;
	stretch_begin(&stretch, work->ms);
	do {
		for (int i = 0; i < BATCH; i++)
			value = value * 0.999999 + 1;
		__asm__ volatile("" : : "r"(&value) : "memory");
		done += BATCH;
	} while (stretch_goes_on(&stretch));
	stretch_answer(&stretch, sample, done, "operations");
	answer_number("result", value);
	answer_end();
	return 0;
}

static int compare_numbers(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
	return a < b ? -1 : a > b;
}

/* Sorting: branches nobody can foresee, loads, and calls through a pointer, as programs have them. */
int work_cpu_branches(const struct sample *sample, const struct work *work)
{
	enum { NUMBERS = 1 << 10 };
	static uint32_t numbers[NUMBERS];
	uint64_t value = 1, done = 0, disorder = 0;
	struct stretch stretch;
	stretch_begin(&stretch, work->ms);
	do {
		for (int i = 0; i < NUMBERS; i++) {
			value = STEP(value);
			numbers[i] = (uint32_t)(value >> 32);
		}
		qsort(numbers, NUMBERS, sizeof(*numbers), compare_numbers);
		for (int i = 1; i < NUMBERS; i++)
			disorder += numbers[i - 1] > numbers[i];
		done += NUMBERS;
	} while (stretch_goes_on(&stretch));
	stretch_answer(&stretch, sample, done, "numbers");
	answer_count("disorder", disorder);
	answer_end();
	return 0;
}

int work_memory(const struct sample *sample, const struct work *work)
{
	size_t count = (work->bytes ? work->bytes : 48u << 20) / (3 * sizeof(uint64_t));
	size_t bytes = 3 * count * sizeof(uint64_t);
	uint64_t *arrays = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arrays == MAP_FAILED) {
		answer_error(sample->name, "no memory", "no room for the arrays", errno);
		return 1;
	}
	for (size_t i = 0; i < 3 * count; i++)
		arrays[i] = i;
	uint64_t *a = arrays, *b = a + count, *c = b + count, done = 0;
	struct stretch stretch;
	stretch_begin(&stretch, work->ms);
	do {
		for (size_t i = 0; i < count; i++)
			a[i] = b[i] + c[i];
		__asm__ volatile("" : : "r"(a) : "memory");
		done += bytes;
	} while (stretch_goes_on(&stretch));
	stretch_answer(&stretch, sample, done, "bytes");
	answer_count("size", bytes);
	answer_end();
	munmap(arrays, bytes);
	return 0;
}

/* getppid: the shortest way into the kernel and back that no library answers by itself. */
int work_syscalls(const struct sample *sample, const struct work *work)
{
	enum { BATCH = 256 };
	uint64_t done = 0;
	struct stretch stretch;
	stretch_begin(&stretch, work->ms);
	do {
		for (int i = 0; i < BATCH; i++)
			syscall(SYS_getppid);
		done += BATCH;
	} while (stretch_goes_on(&stretch));
	stretch_answer(&stretch, sample, done, "calls");
	answer_end();
	return 0;
}

int work_main(int count, char **arguments)
{
	struct work work = { .ms = 300, .directory = "" };
	const struct option options[] = {
		{ "ms", NULL, &work.ms, 1, 60000 },
		{ "size", NULL, &work.bytes, 4096, 1ull << 40 },
		{ "dir", &work.directory, NULL, 0, 0 },
	};
	for (size_t i = 0; count > 0 && i < SAMPLES; i++)
		if (strcmp(arguments[0], samples[i].name) == 0)
			return options_read(count - 1, arguments + 1, options, 3) ?
				samples[i].run(&samples[i], &work) : 2;
	for (size_t i = 0; i < SAMPLES; i++)
		fprintf(stderr, "proa-probe work %-16s %s\n", samples[i].name, samples[i].help);
	return 2;
}
