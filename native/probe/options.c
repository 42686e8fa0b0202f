/* `key=value` words, and clocks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "probe.h"

static bool read_number(const char *text, uint64_t *value)
{
	static const char suffixes[] = "kmg";
	char *end;
	errno = 0;
	if (*text < '0' || *text > '9')
		return false;
	*value = strtoull(text, &end, 10);
	const char *suffix = *end ? strchr(suffixes, *end) : NULL;
	unsigned int shift = suffix ? 10 * (unsigned int)(suffix - suffixes + 1) : 0;
	if (errno != 0 || *value > UINT64_MAX >> shift)
		return false;
	*value <<= shift;
	return *(suffix ? end + 1 : end) == '\0';
}

static bool set(const struct option *option, const char *value)
{
	if (option->text) {
		*option->text = value;
		return true;
	}
	return read_number(value, option->number) && *option->number >= option->minimum &&
		*option->number <= option->maximum;
}

bool options_read(int count, char **arguments, const struct option *options, size_t option_count)
{
	for (int i = 0; i < count; i++) {
		const char *equals = strchr(arguments[i], '=');
		size_t length = equals ? (size_t)(equals - arguments[i]) : 0, found = 0;
		while (found < option_count && (strlen(options[found].key) != length ||
		       strncmp(options[found].key, arguments[i], length) != 0))
			found++;
		if (!equals || found == option_count || !set(&options[found], equals + 1)) {
			fprintf(stderr, "proa-probe: '%s' is not understood\n", arguments[i]);
			return false;
		}
	}
	return true;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

double clock_cost_ns(void)
{
	enum { READS = 2000 };
	uint64_t begin = now_ns(), end = begin;
	for (int i = 0; i < READS; i++)
		end = now_ns();
	return (double)(end - begin) / READS;
}
