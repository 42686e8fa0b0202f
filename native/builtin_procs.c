/* The builtin `procs`: one line per process of the place, from its /proc. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin.h"
#include "verbs.h"

#define COMMAND_MAX 4096

struct process {
	char state;
	int parent, terminal;
	unsigned long user_ticks, system_ticks, virtual_bytes;
	unsigned long long start_ticks;
	long resident_pages;
	char name[32];          /* the kernel's, in brackets where there is no command line */
};

/* Reads a file below an open directory, NUL-terminated; its length or -1. */
static ssize_t read_small(int directory, const char *name, char *text, size_t size)
{
	int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0)
		return -1;
	ssize_t length = read(file, text, size - 1);
	close(file);
	if (length >= 0)
		text[length] = '\0';
	return length;
}

/* Fields of /proc/PID/stat, see proc(5); the name may contain anything, even parentheses. */
static bool parse_stat(char *text, struct process *process)
{
	char *open = strchr(text, '('), *close_name = strrchr(text, ')');
	if (!open || !close_name || close_name < open)
		return false;
	*close_name = '\0';
	snprintf(process->name, sizeof process->name, "[%.20s]", open + 1);
	return sscanf(close_name + 1, " %c %d %*d %*d %d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d "
		      "%*d %llu %lu %ld", &process->state, &process->parent, &process->terminal,
		      &process->user_ticks, &process->system_ticks, &process->start_ticks,
		      &process->virtual_bytes, &process->resident_pages) == 8;
}

/* The command line with spaces for NULs; control characters would break the line. */
static void print_command(int directory, const struct process *process)
{
	char command[COMMAND_MAX];
	ssize_t length = read_small(directory, "cmdline", command, sizeof command);
	while (length > 0 && command[length - 1] == '\0')
		length--;
	if (length <= 0) {
		fputs(process->name, stdout);
		return;
	}
	for (ssize_t i = 0; i < length; i++)
		putchar(command[i] == '\0' ? ' ' : iscntrl((unsigned char)command[i]) ? '?' : command[i]);
}

/* A process may end at any moment: then it is not listed. */
static void print_process(int proc, const char *pid)
{
	char text[1024];
	struct stat owner;
	struct process process;
	int directory = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return;
	if (fstat(directory, &owner) == 0 && read_small(directory, "stat", text, sizeof text) > 0
	    && parse_stat(text, &process)) {
		printf("%s %d %u %c %d %llu %lu %lu %lu %ld\t", pid, process.parent, owner.st_uid, process.state,
		       process.terminal, process.start_ticks, process.user_ticks, process.system_ticks,
		       process.virtual_bytes, process.resident_pages);
		print_command(directory, &process);
		putchar('\n');
	}
	close(directory);
}

int builtin_procs(int argc, char **argv)
{
	(void)argc, (void)argv;
	int proc = path_open("/proc", O_RDONLY | O_DIRECTORY, 0);
	DIR *listing = proc < 0 ? NULL : fdopendir(proc);
	if (!listing) {
		perror("/proc");
		return 1;
	}
	for (struct dirent *entry; (entry = readdir(listing));)
		if (isdigit((unsigned char)entry->d_name[0]) && atoi(entry->d_name) != getpid())
			print_process(proc, entry->d_name);
	closedir(listing);
	return fflush(stdout) == 0 ? 0 : 1;
}
