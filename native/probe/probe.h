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
int isolation_main(int count, char **arguments);

/* ---- answer.c: one line of JSON, put together field by field, written at once ----------------------- */

void answer_begin(const char *probe);
void answer_text(const char *key, const char *value);   /* any bytes: escaped, not UTF-8 as U+FFFD */
void answer_bytes(const char *key, const char *value, size_t length);
void answer_count(const char *key, uint64_t value);
void answer_number(const char *key, double value);      /* not finite: null */
void answer_flag(const char *key, bool value);
void answer_list_begin(const char *key);
void answer_list_add(uint64_t value);
void answer_list_end(void);
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

/* ---- reply.c: an HTTP/1.1 reply, read as it comes from somebody who may mean harm ------------------------- */

enum reply_state { REPLY_HEAD, REPLY_LENGTH, REPLY_TO_END, REPLY_CHUNK_SIZE, REPLY_CHUNK, REPLY_CHUNK_END,
	REPLY_TRAILER, REPLY_DONE, REPLY_BROKEN };
struct reply {
	enum reply_state state;
	int status;
	bool closes;            /* the connection ends with it */
	uint64_t left;          /* of the body, or of the chunk */
	uint64_t body;          /* bytes of it that came */
	size_t used;
	char head[8192];        /* the head; later a chunk's line */
};
void reply_begin(struct reply *reply);
/* Takes bytes until the reply ends; how many it took. */
size_t reply_take(struct reply *reply, const char *bytes, size_t length);
void reply_ended(struct reply *reply);  /* the connection did */

/* ---- histogram.c: durations, each kept to within 0.4 % whatever its size -------------------------- */

#define HISTOGRAM_BUCKETS ((64 - 7 + 1) * 128)

struct histogram {
	uint64_t count, sum, least, most;
	uint32_t buckets[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *histogram, uint64_t ns);
uint64_t histogram_at(const struct histogram *histogram, double share);         /* 0.99: the 99th percentile */
/* Percentiles, and as a list pairs of a time and how many were not longer (and longer than the one before). */
void histogram_answer(const struct histogram *histogram);

#endif
