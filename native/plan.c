/* Plans: decoding and running.  The encoding is described in src/proa/plan.py. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "verbs.h"

#define ARGUMENTS_MAX ((long)(sizeof ((struct plan *)0)->argv / sizeof(char *)) - 1)

/* ---- decoding ---------------------------------------------------------------------------------- */

void plan_open(struct plan *plan, char *bytes, size_t length)
{
	plan->cursor = bytes;
	plan->end = bytes + length;
	plan->index = 0;
}

static char *next_string(struct plan *plan)
{
	char *start = plan->cursor;
	char *nul = memchr(start, '\0', (size_t)(plan->end - start));
	if (!nul) {
		errno = EINVAL;
		return NULL;
	}
	plan->cursor = nul + 1;
	return start;
}

static int next_count(struct plan *plan)
{
	const char *text = next_string(plan);
	if (!text)
		return -1;
	size_t length = strspn(text, "0123456789");
	if (length == 0 || length > 7 || text[length] != '\0') {
		errno = EINVAL;
		return -1;
	}
	long count = strtol(text, NULL, 10);
	if (count > ARGUMENTS_MAX) {
		errno = E2BIG;
		return -1;
	}
	return (int)count;
}

int plan_next(struct plan *plan, struct step *step)
{
	if (plan->cursor == plan->end)
		return 0;
	step->verb = next_string(plan);
	if (!step->verb)
		return -1;
	step->argc = next_count(plan);
	if (step->argc < 0)
		return -1;
	for (int i = 0; i < step->argc; i++) {
		plan->argv[i] = next_string(plan);
		if (!plan->argv[i])
			return -1;
	}
	plan->argv[step->argc] = NULL;
	step->argv = plan->argv;
	plan->index++;
	return 1;
}

/* ---- the table --------------------------------------------------------------------------------- */

/* `ns` and `idmap` head a PLACE plan and are the parent's work, before its child runs anything. */
static int verb_misplaced(struct context *context, int argc, char **argv)
{
	return verb_fail(context, argc ? argv[0] : "", EINVAL);
}

const struct verb verbs[] = {
	{ "attach", 3, 3, verb_attach },
	{ "builtin", 1, -1, verb_builtin },
	{ "caps", 1, 1, verb_caps },
	{ "cgroup", 1, 1, verb_cgroup },
	{ "clock", 1, 1, verb_clock },
	{ "cover", 3, 3, verb_cover },
	{ "cwd", 2, 2, verb_cwd },
	{ "detach", 1, 1, verb_detach },
	{ "dir", 2, 2, verb_dir },
	{ "entropy", 1, 1, verb_entropy },
	{ "env", 1, 1, verb_env },
	{ "exec", 1, -1, verb_exec },
	{ "hostname", 1, 1, verb_hostname },
	{ "idmap", 2, 2, verb_misplaced },
	{ "inherit", 1, FDS_MAX, verb_inherit },
	{ "interface", 5, 5, verb_interface },
	{ "landlock", 1, -1, verb_landlock },
	{ "mask", 1, 1, verb_mask },
	{ "module", 1, 1, verb_module },
	{ "mount", 5, 5, verb_mount },
	{ "node", 5, 5, verb_node },
	{ "nonewprivs", 0, 0, verb_nonewprivs },
	{ "ns", 1, -1, verb_misplaced },
	{ "oom", 1, 1, verb_oom },
	{ "pin", 1, 1, verb_pin },
	{ "readonly", 2, 2, verb_readonly },
	{ "rlimit", 3, 3, verb_rlimit },
	{ "root", 2, 2, verb_root },
	{ "route", 1, 1, verb_route },
	{ "seccomp", 1, 1, verb_seccomp },
	{ "swap", 1, 1, verb_swap },
	{ "symlink", 2, 2, verb_symlink },
	{ "sysctl", 2, 2, verb_sysctl },
	{ "tty", 2, 2, verb_tty },
	{ "umask", 1, 1, verb_umask },
	{ "user", 1, -1, verb_user },
	{ "write", 3, 3, verb_write },
};
const size_t verb_count = sizeof verbs / sizeof verbs[0];

static int compare_names(const void *name, const void *verb)
{
	return strcmp(name, ((const struct verb *)verb)->name);
}

int namespaces_flags(int argc, char **argv)
{
	static const struct { const char *name; int flag; } kinds[] = {
		{ "user", CLONE_NEWUSER }, { "pid", CLONE_NEWPID }, { "mount", CLONE_NEWNS },
		{ "net", CLONE_NEWNET }, { "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS },
		{ "cgroup", CLONE_NEWCGROUP },
	};
	int flags = 0;
	for (int i = 0; i < argc; i++) {
		size_t k = 0;
		while (k < sizeof kinds / sizeof kinds[0] && strcmp(argv[i], kinds[k].name) != 0)
			k++;
		if (k == sizeof kinds / sizeof kinds[0]) {
			errno = EINVAL;
			return -1;
		}
		flags |= kinds[k].flag;
	}
	return flags;
}

/* ---- running ----------------------------------------------------------------------------------- */

static int run_step(const struct step *step, struct context *context)
{
	const struct verb *verb = bsearch(step->verb, verbs, verb_count, sizeof verbs[0], compare_names);
	if (!verb)
		return verb_fail(context, step->verb, ENOSYS);
	if (step->argc < verb->minimum || (verb->maximum >= 0 && step->argc > verb->maximum))
		return verb_fail(context, "the number of arguments", EINVAL);
	return verb->run(context, step->argc, step->argv);
}

static void copy_text(char *to, size_t size, const char *from)
{
	size_t length = strnlen(from, size - 1);
	memcpy(to, from, length);
	to[length] = '\0';
}

static void describe_failure(struct failure *failure, uint32_t index, const char *verb, const char *argument)
{
	failure->error = errno ? (uint32_t)errno : EIO;
	failure->step = index;
	copy_text(failure->verb, sizeof failure->verb, verb);
	copy_text(failure->argument, sizeof failure->argument, argument);
}

bool plan_run(struct plan *plan, struct context *context, struct failure *failure)
{
	for (;;) {
		struct step step;
		uint32_t index = plan->index;
		int got = plan_next(plan, &step);
		if (got == 0)
			return true;
		if (got < 0) {
			describe_failure(failure, index, "plan", "malformed");
			return false;
		}
		context->failed = NULL;
		if (run_step(&step, context) < 0) {
			const char *first = step.argc ? step.argv[0] : "";
			describe_failure(failure, index, step.verb, context->failed ? context->failed : first);
			return false;
		}
	}
}

/* ---- arguments --------------------------------------------------------------------------------- */

int verb_fail(struct context *context, const char *argument, int error)
{
	context->failed = argument;
	errno = error;
	return -1;
}

int verb_number(struct context *context, const char *text, long long minimum, long long maximum,
		long long *value)
{
	char *end;
	const char *digits = text[0] == '-' ? text + 1 : text;
	if (digits[0] < '0' || digits[0] > '9')
		return verb_fail(context, text, EINVAL);
	errno = 0;
	*value = strtoll(text, &end, 10);
	if (*end != '\0')
		return verb_fail(context, text, EINVAL);
	if (errno != 0 || *value < minimum || *value > maximum)
		return verb_fail(context, text, ERANGE);
	return 0;
}

int verb_mode(struct context *context, const char *text, mode_t *mode)
{
	size_t length = strspn(text, "01234567");
	if (length == 0 || length > 5 || text[length] != '\0')
		return verb_fail(context, text, EINVAL);
	*mode = (mode_t)strtoul(text, NULL, 8) & 07777;
	return 0;
}

int verb_fd(struct context *context, const char *text)
{
	long long number;
	errno = 0;
	if (strncmp(text, "fd:", 3) != 0)
		return -1;
	if (verb_number(context, text + 3, 0, INT_MAX, &number) < 0 || number >= context->fd_count)
		return verb_fail(context, text, EBADF);
	return context->fds[number];
}
