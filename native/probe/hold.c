/* Staying: a program that does nothing, or holds a known amount of memory, until a signal ends it. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

/* Memory nobody can share or leave out: every page written, each another. */
static bool hold_memory(uint64_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return false;
	for (uint64_t at = 0; at + sizeof(at) <= bytes; at += 4096)
		memcpy(memory + at, &(uint64_t){ at * 0x9e3779b97f4a7c15u + 1 }, sizeof(at));
	return true;
}

int hold_main(int count, char **arguments)
{
	uint64_t memory = 0;
	const struct option options[] = { { "memory", NULL, &memory, 0, 1ull << 40 } };
	if (!options_read(count, arguments, options, 1))
		return 2;
	if (memory > 0 && !hold_memory(memory)) {
		answer_error("hold", "no memory", "the memory asked for is not had", 0);
		return 1;
	}
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	answer_begin("hold");
	answer_count("memory", memory);
	answer_end();
	for (;;) {
		int number;
		if (sigwait(&all, &number) == 0 && (number == SIGTERM || number == SIGINT || number == SIGHUP))
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
	}
}
