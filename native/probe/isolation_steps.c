/* Steps of trials that take two instances: one takes as much as it can of something, within bounds that are
 * given, while the other tells how it fares. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isolation.h"

struct stepping {
	const char *name;
	void (*run)(const struct step *step);   /* adds its fields to the answer */
};

static void rest(uint64_t ms)
{
	poll(NULL, 0, (int)ms);
}

/* ---- how it fares ------------------------------------------------------------------------------------------ */

/* A little of everything: arithmetic, memory, a file, a process.  Returns what could not be had. */
static unsigned int live_once(void)
{
	enum { STEPS = 20000, BYTES = 1 << 16 };
	unsigned int failed = 0;
	for (int i = 0; i < STEPS; i++)
		__asm__ volatile("" : "+r"(i));
	char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	failed += memory == MAP_FAILED;
	if (memory != MAP_FAILED) {
		memset(memory, 1, BYTES);
		munmap(memory, BYTES);
	}
	int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	failed += file < 0;
	if (file >= 0)
		close(file);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	failed += child < 0 || waitpid(child, NULL, 0) != child;
	return failed;
}

static void step_pulse(const struct step *step)
{
	uint64_t failed = 0, done = 0;
	struct statfs status;
	rest(step->lead);
	uint64_t begin = now_ns(), end = begin + step->ms * 1000000, now;
	do {
		failed += live_once();
		done++;
		now = now_ns();
	} while (now < end);
	answer_number("rate", (double)done * 1e9 / (double)(now - begin));
	answer_count("failed", failed);
	if (statfs(step->path, &status) == 0) {
		answer_count("free", (uint64_t)status.f_bavail * (uint64_t)status.f_bsize);
		answer_count("all", (uint64_t)status.f_blocks * (uint64_t)status.f_bsize);
	}
}

/* ---- taking ------------------------------------------------------------------------------------------------ */

/* Keeps what was taken until the end, if it shall. */
static void keep(const struct step *step, uint64_t end)
{
	while (step->hold && now_ns() < end)
		rest(10);
}

static void told(uint64_t taken, bool limited)
{
	answer_count("taken", taken);
	answer_flag("limited", limited);
}

static void step_cpu(const struct step *step)
{
	long count = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t end = now_ns() + step->ms * 1000000, begun = 0;
	for (long i = 0; i < count && i < 64; i++) {
		pid_t child = fork_bound();
		begun += child > 0;
		if (child == 0) {
			while (now_ns() < end)
				continue;
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		continue;
	told(begun, false);
}

/* In a child, which the kernel may kill for it; what it got is told by shared memory. */
static void step_memory(const struct step *step)
{
	enum { PIECE = 1 << 20 };
	int status = 0;
	volatile uint64_t *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (taken == MAP_FAILED)
		return;
	uint64_t end = now_ns() + step->ms * 1000000;
	pid_t child = fork_bound();
	if (child == 0) {
		while (*taken + PIECE <= step->most && now_ns() < end) {
			char *memory = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (memory == MAP_FAILED)
				break;
			memset(memory, 1, PIECE);
			*taken += PIECE;
		}
		keep(step, end);
		_exit(*taken + PIECE <= step->most);
	}
	if (child > 0)
		waitpid(child, &status, 0);
	told(*taken, child < 0 || WIFSIGNALED(status));
}

static void step_processes(const struct step *step)
{
	uint64_t taken = 0;
	bool limited = false;
	pid_t *children = calloc(step->most, sizeof(*children));
	uint64_t end = now_ns() + step->ms * 1000000;
	while (children && taken < step->most && !limited && now_ns() < end) {
		pid_t child = fork_bound();
		if (child == 0) {
			rest(10 * step->ms);
			_exit(0);
		}
		limited = child < 0;
		if (child > 0)
			children[taken++] = child;
	}
	keep(step, end);
	for (uint64_t i = 0; i < taken; i++)
		kill(children[i], SIGKILL);
	while (wait(NULL) > 0)
		continue;
	free(children);
	told(taken, limited);
}

static void step_files(const struct step *step)
{
	uint64_t taken = 0, end = now_ns() + step->ms * 1000000;
	while (taken < step->most && open("/proc/self/stat", O_RDONLY | O_CLOEXEC) >= 0)
		taken++;
	bool limited = taken < step->most;
	keep(step, end);
	told(taken, limited);
}

/* A file without a name, gone with this process. */
static void step_disk(const struct step *step)
{
	static char piece[1 << 20];
	static const char *const places[] = { "/var/tmp", "/tmp", "/root", "/var", "/" };
	uint64_t taken = 0, end = now_ns() + step->ms * 1000000;
	int file = -1;
	memset(piece, 0x5a, sizeof(piece));
	char path[64];
	for (size_t i = 0; i < sizeof(places) / sizeof(*places) && file < 0; i++) {
		snprintf(path, sizeof(path), "%s/.proa-probe-%d", places[i], getpid());
		file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (file >= 0)
			unlink(path);
	}
	ssize_t done = 0;
	while (file >= 0 && taken < step->most && now_ns() < end && (done = write(file, piece, sizeof(piece))) > 0)
		taken += (uint64_t)done;
	if (file >= 0)
		fsync(file);
	keep(step, end);
	told(taken, file < 0 || done <= 0);
}

int step_main(int count, char **arguments)
{
	static const struct stepping steps[] = {
		{ "pulse", step_pulse }, { "cpu", step_cpu }, { "memory", step_memory },
		{ "processes", step_processes }, { "files", step_files }, { "disk", step_disk }, { "find", step_find },
		{ "look", step_look }, { "time", step_time }, { "drop", step_drop }, { "load", step_load }, { "reach", step_reach },
	};
	struct step step = { .ms = 300, .most = 256, .hold = 1, .path = "/" };
	const struct option options[] = {
		{ "ms", NULL, &step.ms, 1, 5000 }, { "lead", NULL, &step.lead, 0, 5000 },
		{ "most", NULL, &step.most, 1, 1 << 30 }, { "path", &step.path, NULL, 0, 0 },
		{ "hold", NULL, &step.hold, 0, 1 },
	};
	for (size_t i = 0; count > 0 && i < sizeof(steps) / sizeof(*steps); i++)
		if (strcmp(steps[i].name, arguments[0]) == 0) {
			if (!options_read(count - 1, arguments + 1, options, 5))
				return 2;
			answer_begin("isolation");
			answer_text("step", steps[i].name);
			steps[i].run(&step);
			answer_end();
			return 0;
		}
	fprintf(stderr, "proa-probe: isolation do STEP [KEY=VALUE...]\n");
	return 2;
}
