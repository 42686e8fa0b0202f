/* What can be reached from inside: a table of inquiries, each asked in a process of its own and without harm.
 *
 * One line each: {"probe":"isolation","key":KEY,"outcome":OUTCOME,"score":0..1,"evidence":TEXT} and the
 * facts that only a comparison with the host's can judge.  Nothing is written or broken: files are opened
 * for writing and closed, calls get arguments the kernel refuses after it has checked the right, and what is
 * made ends with the process that made it. */
#ifndef PROA_PROBE_ISOLATION_H
#define PROA_PROBE_ISOLATION_H

#include "probe.h"

#define FACTS_MAX 12

struct finding {
	const char *outcome;
	double score;                   /* 1 is closed, 0 open */
	char evidence[800];
	size_t count;
	struct {
		char name[24], value[600];
	} facts[FACTS_MAX];
};

struct inquiry {
	const char *key;                /* AXIS.NAME; src/proa/compare/isolation/inquiries.py has the words */
	void (*ask)(struct finding *finding, const struct inquiry *inquiry);
	const char *about;              /* a path, or what the function makes of it */
};

/* The last one of these counts; a finding nobody made is "not tried". */
void closed(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
void opened(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
void untried(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
void partly(struct finding *finding, double score, const char *format, ...) __attribute__((format(printf, 3, 4)));
void fact(struct finding *finding, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* By a call's result: closed when it failed with an error of a right that is missing, else opened. */
void by_result(struct finding *finding, const char *call, long result);

const char *error_name(int error);
/* The beginning of a file, one line of text; the length, or -1. */
ssize_t read_start(const char *path, char *text, size_t size);
/* The first line of a file that begins so, from its value on. */
bool line_of(const char *path, const char *name, char *value, size_t size);
pid_t fork_bound(void);                 /* a child that does not outlive this process */
/* Adds a word to a list of words, as far as there is room. */
void add_word(char *list, size_t size, const char *word);
bool unshared(int flags);               /* in a user namespace of its own, which this process gets */

/* Rows for a path: can it be opened for writing, read, does it exist. */
void ask_writable(struct finding *finding, const struct inquiry *inquiry);
void ask_readable(struct finding *finding, const struct inquiry *inquiry);
void ask_fact(struct finding *finding, const struct inquiry *inquiry);

struct inquiries {
	const struct inquiry *all;
	size_t count;
};
extern const struct inquiries kernel_inquiries, device_inquiries, privilege_inquiries, sight_inquiries,
	escape_inquiries;
#define INQUIRIES(table) { table, sizeof(table) / sizeof(*(table)) }

/* `isolation do STEP [KEY=VALUE...]`: one step of a trial that takes two instances. */
int step_main(int count, char **arguments);

struct step {
	uint64_t ms, lead, most, hold;  /* within how long to take, and whether to keep it so long */
	const char *path;
};
void step_find(const struct step *step);        /* each adds its fields to the answer */
void step_look(const struct step *step);
void step_time(const struct step *step);
void step_drop(const struct step *step);
void step_load(const struct step *step);
void step_reach(const struct step *step);

#endif
