/* One static program with a table of commands: what is asked inside an instance, and the other end of it. */
#include <stdio.h>
#include <string.h>

#include "probe.h"

static const struct command commands[] = {
	{ "work", work_main, "NAME [KEY=VALUE...]   one sample of work; without a name, the list" },
	{ "serve", serve_main, "[KEY=VALUE...]        a small HTTP server, or an echo" },
	{ "load", load_main, "HOST:PORT [KEY=VALUE...]   requests to one, counted and timed" },
	{ "isolation", isolation_main, "[KEY...]          what is reached from here" },
	{ "trace", trace_main, "[seconds=N] -- COMMAND...   the system calls a program makes" },
	{ "hold", hold_main, "[KEY=VALUE...]         stay until a signal comes" },
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static int usage(void)
{
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(stderr, "proa-probe %s %s\n", commands[i].name, commands[i].help);
	return 2;
}

int main(int count, char **arguments)
{
	for (size_t i = 0; count > 1 && i < COMMANDS; i++)
		if (strcmp(arguments[1], commands[i].name) == 0)
			return commands[i].run(count - 2, arguments + 2);
	return usage();
}
