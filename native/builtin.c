/* Builtins: what the native program does in a place in the stead of an image's program. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "builtin.h"
#include "verbs.h"

#define READ_MAX (1u << 20)     /* bytes of one file for `read`; the rest is left out */

/* ---- records ----------------------------------------------------------------------------------- */

struct record record_of(const struct stat *facts)
{
	bool device = S_ISCHR(facts->st_mode) || S_ISBLK(facts->st_mode);
	return (struct record){
		.mode = facts->st_mode, .uid = facts->st_uid, .gid = facts->st_gid,
		.major = device ? major(facts->st_rdev) : 0, .minor = device ? minor(facts->st_rdev) : 0,
		.size = S_ISREG(facts->st_mode) ? (uint64_t)facts->st_size : 0,
		.mtime_ns = (uint64_t)facts->st_mtim.tv_sec * 1000000000u + (uint64_t)facts->st_mtim.tv_nsec,
	};
}

int record_write(struct record *record, const char *path, const char *link)
{
	record->path_length = (uint32_t)strlen(path);
	record->link_length = (uint32_t)strlen(link);
	fwrite(record, sizeof *record, 1, stdout);
	fwrite(path, record->path_length, 1, stdout);
	fwrite(link, record->link_length, 1, stdout);
	return ferror(stdout) ? -1 : 0;
}

int record_end(int error)
{
	struct record end = { .size = (uint64_t)error };
	bool written = record_write(&end, "", "") == 0 && fflush(stdout) == 0;
	return error == 0 && written ? 0 : 1;
}

/* ---- read -------------------------------------------------------------------------------------- */

/* The start of a regular file (of any size it claims: those of proc claim none) or a disk, or -1. */
static ssize_t read_file(const char *path, char *bytes)
{
	struct stat facts;
	size_t length = 0;
	int file = path_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (file < 0)
		return -1;
	if (fstat(file, &facts) < 0 || !(S_ISREG(facts.st_mode) || S_ISBLK(facts.st_mode)))
		return close_with(file, -1);
	while (length < READ_MAX) {
		ssize_t count = read(file, bytes + length, READ_MAX - length);
		if (count < 0)
			return close_with(file, -1);
		if (count == 0)
			break;
		length += (size_t)count;
	}
	close(file);
	return (ssize_t)length;
}

static int builtin_read(int argc, char **argv)
{
	char *bytes = malloc(READ_MAX);
	if (!bytes)
		return record_end(ENOMEM);
	for (int i = 1; i < argc; i++) {
		struct stat facts;
		ssize_t length = read_file(argv[i], bytes);
		struct record record = { .flags = RECORD_MISSING };
		if (length >= 0 && stat(argv[i], &facts) == 0) {
			record = record_of(&facts);
			record.size = (uint64_t)length;
		}
		if (record_write(&record, argv[i], "") < 0)
			break;
		fwrite(bytes, (size_t)record.size, 1, stdout);
	}
	free(bytes);
	return record_end(0);
}

/* ---- pause ------------------------------------------------------------------------------------- */

static int builtin_pause(int argc, char **argv)
{
	(void)argc, (void)argv;
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (int number = 0; number != SIGTERM;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		sigwait(&signals, &number);
	}
	return 0;
}

/* ---- the table --------------------------------------------------------------------------------- */

int builtin_run(int argc, char **argv)
{
	static const struct { const char *name; int minimum; int (*run)(int argc, char **argv); } table[] = {
		{ "changes", 2, builtin_changes }, { "pause", 1, builtin_pause }, { "procs", 1, builtin_procs }, { "read", 2, builtin_read },
		{ "stat", 2, builtin_stat }, { "tree-in", 2, builtin_tree_in },
		{ "tree-out", 2, builtin_tree_out },
	};
	for (size_t i = 0; argc > 0 && i < sizeof table / sizeof table[0]; i++)
		if (strcmp(argv[0], table[i].name) == 0 && argc >= table[i].minimum)
			return table[i].run(argc, argv);
	fprintf(stderr, "proa-native: no builtin '%s' with these arguments\n", argc > 0 ? argv[0] : "");
	return 127;
}
