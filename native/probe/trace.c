/* Watching a program: the system calls it and its children make, and what they name of the kernel.
 *
 * proa-probe trace [seconds=N] [until=listen] -- COMMAND...    The answers are on stdout:
 *   {"said"}    the end of what it wrote, to stdout and stderr
 *   {"call","count","errors"}     each system call, how often, and the errors it was answered with
 *   {"path"} {"file-system"} {"socket"}     device, sysfs and sysctl files opened; mounted; families
 *   {"end","listening","code","kernel","processes","foreign","namespaces","ns"}     the last line */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

enum { CALLS = 1024, ERRORS = 134, TEXT = 96, TEXTS = 64, FAMILIES = 64, TASKS = 1 << 22, SAID = 2048 };
enum { NOT_FOUND = 127 };
#define NAMESPACES 0x7e020080u  /* CLONE_NEW*; the last bit is CLONE_NEWTIME, of unshare and clone3 */
#define SIGNAL_BITS 0xffu       /* of clone's flags: there the bit of CLONE_NEWTIME is none */
#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
		 PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

static const char *const names[CALLS] = {
#include "calls.h"
};

struct texts {
	char all[TEXTS][TEXT];
	size_t count;
};

static struct {
	uint64_t counts[CALLS];
	uint64_t errors[CALLS][(ERRORS + 63) / 64];
	struct texts paths, mounts;
	uint64_t families, namespaces, processes, foreign;
	bool begun;     /* the command's own program runs: what was before it is ours */
	bool until_listening, listening;
	uint16_t under_way[TASKS];      /* by task: the call it is in, and one */
} seen;

static volatile sig_atomic_t over;

static void on_alarm(int number)
{
	(void)number;
	over = 1;
}

static void read_text(pid_t task, uint64_t address, char *text)
{
	struct iovec here = { text, TEXT - 1 }, there = { (void *)(uintptr_t)address, TEXT - 1 };
	ssize_t length = process_vm_readv(task, &here, 1, &there, 1, 0);
	if (length < 0) {       /* it may end at the end of a page */
		here.iov_len = there.iov_len = 4096 - address % 4096 < TEXT ? 4096 - address % 4096 : TEXT - 1;
		length = process_vm_readv(task, &here, 1, &there, 1, 0);
	}
	text[length > 0 ? length : 0] = '\0';
}

static void remember(struct texts *texts, const char *text)
{
	for (size_t i = 0; i < texts->count; i++)
		if (strcmp(texts->all[i], text) == 0)
			return;
	if (texts->count < TEXTS && *text)
		snprintf(texts->all[texts->count++], TEXT, "%s", text);
}

static void opened(pid_t task, uint64_t address)
{
	static const char *const of_interest[] = { "/dev/", "/sys/", "/proc/sys/" };
	char path[TEXT];
	read_text(task, address, path);
	for (size_t i = 0; i < sizeof(of_interest) / sizeof(*of_interest); i++)
		if (strncmp(path, of_interest[i], strlen(of_interest[i])) == 0)
			remember(&seen.paths, path);
}

static void mounted(pid_t task, uint64_t address)
{
	char kind[TEXT];
	if (address == 0)
		return;
	read_text(task, address, kind);
	remember(&seen.mounts, kind);
}

static void cloned(pid_t task, uint64_t address)
{
	uint64_t flags = 0;
	struct iovec here = { &flags, sizeof(flags) }, there = { (void *)(uintptr_t)address, sizeof(flags) };
	if (process_vm_readv(task, &here, 1, &there, 1, 0) == (ssize_t)sizeof(flags))
		seen.namespaces |= flags & NAMESPACES;
}

/* What the arguments of a few calls say. */
static void look(pid_t task, const struct __ptrace_syscall_info *info)
{
	const uint64_t *arguments = (const uint64_t *)info->entry.args;
	switch (info->entry.nr) {
	case __NR_socket:
		seen.families |= arguments[0] < FAMILIES ? 1ull << arguments[0] : 0;
		break;
	case __NR_clone:
		seen.namespaces |= arguments[0] & NAMESPACES & ~SIGNAL_BITS;
		break;
	case __NR_unshare:
		seen.namespaces |= arguments[0] & NAMESPACES;
		break;
	case __NR_clone3:
		cloned(task, arguments[0]);
		break;
	case __NR_openat:
		opened(task, arguments[1]);
		break;
#ifdef __NR_open
	case __NR_open:
		opened(task, arguments[0]);
		break;
#endif
	case __NR_mount:
		mounted(task, arguments[2]);
		break;
	case __NR_fsopen:
		mounted(task, arguments[0]);
		break;
	default:
		break;
	}
}

static void at_call(pid_t task)
{
#if defined(__x86_64__)
	const uint32_t native = AUDIT_ARCH_X86_64;
#else
	const uint32_t native = AUDIT_ARCH_AARCH64;
#endif
	struct __ptrace_syscall_info info;
	memset(&info, 0, sizeof(info));
	if (ptrace(PTRACE_GET_SYSCALL_INFO, task, sizeof(info), &info) <= 0)
		return;
	uint16_t *under_way = &seen.under_way[task % TASKS];
	if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
		int64_t error = info.exit.is_error ? -info.exit.rval : 0;
		if (*under_way > 0 && error > 0 && error < ERRORS)
			seen.errors[*under_way - 1][error / 64] |= 1ull << (error % 64);
		*under_way = 0;
		return;
	}
	*under_way = 0;
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !seen.begun)
		return;
	if (info.arch != native || info.entry.nr >= CALLS) {
		seen.foreign++;
		return;
	}
	seen.counts[info.entry.nr]++;
	*under_way = (uint16_t)(info.entry.nr + 1);
	seen.listening |= info.entry.nr == __NR_listen;
	over |= seen.until_listening && seen.listening;
	look(task, &info);
}

/* Lets a stopped task go on: with its signal, unless the stop was one of tracing. */
static void go_on(pid_t task, int status)
{
	int signal = WSTOPSIG(status), event = status >> 16;
	if (signal == (SIGTRAP | 0x80)) {
		at_call(task);
		signal = 0;
	} else if (event == PTRACE_EVENT_STOP) {
		bool group = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
		if (group && ptrace(PTRACE_LISTEN, task, 0, 0) == 0)
			return;
		signal = 0;
	} else if (event != 0) {
		seen.begun = seen.begun || event == PTRACE_EVENT_EXEC;
		seen.processes += event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK;
		signal = 0;
	}
	ptrace(PTRACE_SYSCALL, task, 0, signal);
}

/* The first process's end as wait(2) gives it; -1 when the time was over before. */
static int watch(pid_t first)
{
	int end = -1, status;
	while (!over) {
		pid_t task = waitpid(-1, &status, __WALL);
		if (task < 0 && errno == EINTR)
			continue;
		if (task < 0)
			break;
		if (WIFSTOPPED(status))
			go_on(task, status);
		else if (task == first)
			end = status;
	}
	return end;
}

/* Reads what the command writes, as fast as it comes, and tells the end of it when asked to end. */
static void listen_to(int output)
{
	static char said[2 * SAID];
	size_t length = 0;
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	for (;;) {
		if (over)
			fcntl(output, F_SETFL, O_NONBLOCK);
		ssize_t got = read(output, said + length, sizeof(said) - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		length += (size_t)got;
		if (length > SAID)
			memmove(said, said + length - SAID, SAID);
		length = length > SAID ? SAID : length;
	}
	answer_begin("trace");
	answer_bytes("said", said, length);
	answer_end();
	_exit(0);
}

static void become(char **command, int gate, int output)
{
	char go;
	if (read(gate, &go, 1) != 1)
		_exit(NOT_FOUND);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	execvp(command[0], command);
	fprintf(stderr, "proa-probe: '%s': %s\n", command[0], strerror(errno));
	_exit(NOT_FOUND);
}

/* A traced child that waits for a byte before it becomes the command, and who reads what it writes;
 * -1 when that cannot be. */
static pid_t begin(char **command, pid_t *reader)
{
	int gate[2], output[2];
	if (pipe2(gate, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0)
		return -1;
	*reader = fork();
	if (*reader == 0 && close(gate[1]) == 0 && close(output[1]) == 0)
		listen_to(output[0]);
	pid_t child = fork();
	if (child == 0)
		become(command, gate[0], output[1]);
	close(gate[0]);
	close(output[0]);
	close(output[1]);
	if (child > 0 && (ptrace(PTRACE_SEIZE, child, 0, OPTIONS) < 0 ||
	    ptrace(PTRACE_INTERRUPT, child, 0, 0) < 0 || write(gate[1], "", 1) != 1))
		child = -1;
	close(gate[1]);
	return child;
}

static void tell_calls(void)
{
	for (size_t call = 0; call < CALLS; call++) {
		if (seen.counts[call] == 0)
			continue;
		char text[512] = "", number[16];
		for (int error = 1; error < ERRORS; error++) {
			const char *name = strerrorname_np(error);
			if (name && (seen.errors[call][error / 64] >> (error % 64)) & 1 &&
			    strlen(text) + strlen(name) + 2 < sizeof(text))
				strcat(strcat(text, *text ? " " : ""), name);
		}
		snprintf(number, sizeof(number), "%zu", call);
		answer_begin("trace");
		answer_text("call", names[call] ? names[call] : number);
		answer_count("count", seen.counts[call]);
		answer_text("errors", text);
		answer_end();
	}
}

static void tell_texts(const char *key, const struct texts *texts)
{
	for (size_t i = 0; i < texts->count; i++) {
		answer_begin("trace");
		answer_text(key, texts->all[i]);
		answer_end();
	}
}

static void tell_end(int end, uint64_t ns)
{
	struct utsname name;
	uname(&name);
	answer_begin("trace");
	answer_text("end", end == -1 ? "time" : WIFSIGNALED(end) ? "signal" : "exit");
	answer_flag("listening", seen.listening);
	answer_count("code", (uint64_t)(end == -1 ? 0 : WIFSIGNALED(end) ? WTERMSIG(end) : WEXITSTATUS(end)));
	answer_text("kernel", name.release);
	answer_count("processes", seen.processes + 1);
	answer_count("foreign", seen.foreign);
	answer_count("namespaces", seen.namespaces);
	answer_count("ns", ns);
	answer_end();
}

int trace_main(int count, char **arguments)
{
	uint64_t seconds = 3;
	const char *until = "";
	const struct option options[] = {
		{ "seconds", NULL, &seconds, 1, 3600 }, { "until", &until, NULL, 0, 0 },
	};
	pid_t reader;
	int words = 0;
	while (words < count && strcmp(arguments[words], "--") != 0)
		words++;
	if (words + 1 >= count || !options_read(words, arguments, options, 2))
		return 2;
	seen.until_listening = strcmp(until, "listen") == 0;
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	uint64_t start = now_ns();
	pid_t first = begin(arguments + words + 1, &reader);
	if (first < 0) {
		answer_error("trace", "not traced", "a child cannot be traced here", errno);
		return 1;
	}
	const struct timeval soon = { (time_t)seconds, 0 }, again = { 0, 100000 };
	setitimer(ITIMER_REAL, &(struct itimerval){ again, soon }, NULL);
	int end = watch(first);
	setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL);
	if (kill(reader, SIGTERM) == 0)
		waitpid(reader, NULL, __WALL);
	tell_calls();
	tell_texts("path", &seen.paths);
	tell_texts("file-system", &seen.mounts);
	for (uint64_t family = 0; family < FAMILIES; family++) {
		if (!((seen.families >> family) & 1))
			continue;
		answer_begin("trace");
		answer_count("socket", family);
		answer_end();
	}
	tell_end(end, now_ns() - start);
	return 0;       /* what still runs ends with its tracer */
}
