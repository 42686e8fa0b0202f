/* Samples of work: each measures one thing for about `ms` milliseconds and answers with one line. */
#ifndef PROA_PROBE_WORK_H
#define PROA_PROBE_WORK_H

#include "probe.h"

struct work {
	uint64_t ms;            /* how long a sample takes, about */
	uint64_t bytes;         /* size of what is worked on; 0: the sample's own choice */
	const char *directory;  /* for disk work; empty: the first that will do */
};

struct sample {
	const char *name;
	int (*run)(const struct sample *sample, const struct work *work);
	const char *help;
	int variant;            /* the sample's own */
};

/* A stretch of work under way. */
struct stretch {
	uint64_t begin, cpu, until, clock_reads;
	uint64_t paused, paused_cpu;
};
void stretch_begin(struct stretch *stretch, uint64_t ms);
bool stretch_goes_on(struct stretch *stretch);  /* reads the clock once */
void stretch_pause(struct stretch *stretch);    /* what follows is not part of it ... */
void stretch_resume(struct stretch *stretch);   /* ... until here */
/* The answer's common part: work done and in what, how long it took, and what measuring took of that. */
void stretch_answer(struct stretch *stretch, const struct sample *sample, uint64_t done, const char *unit);

int work_cpu(const struct sample *sample, const struct work *work);
int work_cpu_float(const struct sample *sample, const struct work *work);
int work_cpu_branches(const struct sample *sample, const struct work *work);
int work_memory(const struct sample *sample, const struct work *work);
int work_syscalls(const struct sample *sample, const struct work *work);
int work_disk(const struct sample *sample, const struct work *work);

enum disk_variant { SEQUENTIAL_WRITE, SEQUENTIAL_READ, RANDOM_WRITE, RANDOM_READ, SYNCED_WRITE };

/* One step of Knuth's MMIX generator, each needing the one before: nothing can be left out, done side by
 * side or guessed, and who knows the number of steps knows the result. */
#define STEP(x) ((x) * 6364136223846793005u + 1442695040888963407u)

#endif
