/* proa-probe: what `proa compare` runs inside an instance, and beside it on the host.
 *
 * Every answer is one JSON object per line on stdout: {"probe":NAME, ...}.  What cannot be found out says
 * so: {"probe":NAME,"error":CODE,"detail":TEXT}.  Wrong usage ends with 2 and a line on stderr. */
#ifndef PROA_PROBE_H
#define PROA_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct command {
	const char *name;
	int (*run)(int count, char **arguments);        /* what follows the name; the exit code */
	const char *help;
};

int work_main(int count, char **arguments);
int serve_main(int count, char **arguments);
int load_main(int count, char **arguments);
int hold_main(int count, char **arguments);
int trace_main(int count, char **arguments);
int isolation_main(int count, char **arguments) __attribute__((weak));

/* ---- answer.c: one line of JSON, put together field by field, written at once ----------------------- */

void answer_begin(const char *probe);
void answer_text(const char *key, const char *value);   /* any bytes: escaped, not UTF-8 as U+FFFD */
void answer_bytes(const char *key, const char *value, size_t length);
void answer_count(const char *key, uint64_t value);
void answer_signed(const char *key, int64_t value);
void answer_number(const char *key, double value);      /* not finite: null */
void answer_flag(const char *key, bool value);
void answer_end(void);          /* writes the line; ends the program when nobody reads it */
/* The whole line for what did not work: a stable code, a sentence, and errno's name when not 0. */
void answer_error(const char *probe, const char *code, const char *detail, int error);

/* ---- arguments: `key=value` words; a word nobody asked for is wrong usage ---------------------------- */

struct option {
	const char *key;
	const char **text;      /* one of the two is set */
	uint64_t *number;       /* with an optional suffix k, m, g (of 1024) */
	uint64_t minimum, maximum;
};
bool options_read(int count, char **arguments, const struct option *options, size_t option_count);

/* ---- time ---------------------------------------------------------------------------------------------- */

uint64_t now_ns(void);          /* CLOCK_MONOTONIC */
uint64_t cpu_ns(void);          /* this process's own */
double clock_cost_ns(void);     /* of one now_ns(), measured now */

#endif
