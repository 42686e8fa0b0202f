/* Verbs that shape the process and end in its program. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "verbs.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ONCE_MAX 4096   /* descriptors of a program that is the last: a table of 32 KiB */

/* ---- limits ------------------------------------------------------------------------------------ */

VERB(cgroup)
{
	(void)argc;
	int procs = verb_fd(context, argv[0]);
	if (procs >= 0)
		return write_all(procs, "0", 1);
	if (errno != 0)
		return -1;
	procs = path_open(argv[0], O_WRONLY, 0);
	return procs < 0 ? -1 : close_with(procs, write_all(procs, "0", 1));
}

static int find_limit(const char *name)
{
	static const struct { const char *name; int resource; } limits[] = {
		{ "as", RLIMIT_AS }, { "core", RLIMIT_CORE }, { "cpu", RLIMIT_CPU },
		{ "data", RLIMIT_DATA }, { "fsize", RLIMIT_FSIZE }, { "locks", RLIMIT_LOCKS },
		{ "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
		{ "nofile", RLIMIT_NOFILE }, { "nproc", RLIMIT_NPROC }, { "rss", RLIMIT_RSS },
		{ "rtprio", RLIMIT_RTPRIO }, { "rttime", RLIMIT_RTTIME },
		{ "sigpending", RLIMIT_SIGPENDING }, { "stack", RLIMIT_STACK },
	};
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
		if (strcmp(name, limits[i].name) == 0)
			return limits[i].resource;
	return -1;
}

static rlim_t limit_value(long long value)
{
	return value < 0 ? RLIM_INFINITY : (rlim_t)value;
}

VERB(rlimit)
{
	(void)argc;
	struct rlimit present, wanted;
	long long soft, hard;
	int resource = find_limit(argv[0]);
	if (resource < 0)
		return verb_fail(context, argv[0], EINVAL);
	if (verb_number(context, argv[1], -1, INT64_MAX, &soft) < 0
	    || verb_number(context, argv[2], -1, INT64_MAX, &hard) < 0)
		return -1;
	wanted.rlim_max = limit_value(hard);
	wanted.rlim_cur = limit_value(soft);
	if (wanted.rlim_cur > wanted.rlim_max)
		return verb_fail(context, argv[1], EINVAL);
	if (prlimit(0, (__rlimit_resource_t)resource, &wanted, NULL) == 0)
		return 0;
	if (errno != EPERM || prlimit(0, (__rlimit_resource_t)resource, NULL, &present) < 0)
		return -1;
	if (wanted.rlim_max > present.rlim_max)
		wanted.rlim_max = present.rlim_max;
	if (wanted.rlim_cur > wanted.rlim_max)
		wanted.rlim_cur = wanted.rlim_max;
	return prlimit(0, (__rlimit_resource_t)resource, &wanted, NULL);
}

/* /proc/PID belongs to the host's root while a process is undumpable, as one that entered a place is. */
VERB(oom)
{
	(void)argc;
	char path[64];
	long long score;
	if (verb_number(context, argv[0], -1000, 1000, &score) < 0)
		return -1;
	snprintf(path, sizeof path, "%d/oom_score_adj", getpid());
	int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	if (dumpable != 1)
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	int result = proc_write(path, argv[0]);
	int error = errno;
	if (dumpable != 1)
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	errno = error;
	return result;
}

/* ---- environment and directory ----------------------------------------------------------------- */

int environment_set(struct context *context, char *setting)
{
	size_t length = strcspn(setting, "=") + 1, count = context->environment_count;
	for (size_t i = 0; i < count; i++) {
		if (strncmp(context->environment[i], setting, length) == 0) {
			context->environment[i] = setting;
			return 0;
		}
	}
	if (count % 64 == 0) {
		char **grown = realloc(context->environment, (count + 65) * sizeof *grown);
		if (!grown)
			return -1;
		context->environment = grown;
	}
	context->environment[count] = setting;
	context->environment[count + 1] = NULL;
	context->environment_count = count + 1;
	return 0;
}

const char *environment_get(const struct context *context, const char *key)
{
	size_t length = strlen(key);
	for (size_t i = 0; i < context->environment_count; i++) {
		const char *setting = context->environment[i];
		if (strncmp(setting, key, length) == 0 && setting[length] == '=')
			return setting + length + 1;
	}
	return NULL;
}

VERB(env)
{
	(void)argc;
	if (argv[0][0] == '=' || !strchr(argv[0], '='))
		return verb_fail(context, argv[0], EINVAL);
	return environment_set(context, argv[0]);
}

/* A directory outside the root would show as "(unreachable)": CVE-2024-21626. */
VERB(cwd)
{
	(void)context, (void)argc;
	char name[4096];
	int directory = *argv[1] ? path_directory(argv[0], 0755) : path_open(argv[0], O_PATH | O_DIRECTORY, 0);
	if (directory < 0)
		return -1;
	if (fchdir(directory) < 0)
		return close_with(directory, -1);
	close(directory);
	long length = syscall(SYS_getcwd, name, sizeof name);
	if (length > 0 && name[0] != '/') {
		errno = EXDEV;
		return -1;
	}
	return length > 0 || errno == ERANGE ? 0 : -1;
}

VERB(umask)
{
	(void)argc;
	mode_t mode;
	if (verb_mode(context, argv[0], &mode) < 0)
		return -1;
	umask(mode);
	return 0;
}

/* ---- privileges -------------------------------------------------------------------------------- */

#define BIT(capability) (1ull << (capability))

static int set_capabilities(uint64_t mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)mask, .permitted = (uint32_t)mask },
		{ .effective = (uint32_t)(mask >> 32), .permitted = (uint32_t)(mask >> 32) },
	};
	return (int)syscall(SYS_capset, &header, data);
}

static uint64_t permitted_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };
	if (syscall(SYS_capget, &header, data) < 0)
		return 0;
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

/* What `user` needs stays permitted until execve, which gives root no more than the bounding set and
 * anybody else nothing; `builtin` drops it itself. */
VERB(caps)
{
	(void)argc;
	char *end;
	errno = 0;
	uint64_t mask = strtoull(argv[0], &end, 16);
	if (errno != 0 || end == argv[0] || *end != '\0' || argv[0][0] == '-')
		return verb_fail(context, argv[0], EINVAL);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -1;
	for (unsigned capability = 0; capability < 64; capability++) {
		if (mask & BIT(capability))
			continue;
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
			if (errno != EINVAL)
				return -1;
			break;  /* the kernel knows no more */
		}
	}
	mask |= BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_CHOWN);
	return set_capabilities(mask & permitted_capabilities());
}

/* Permitted capabilities as an execve would leave them. */
static int settle_capabilities(void)
{
	uint64_t bounding = 0;
	for (unsigned capability = 0; capability < 64; capability++) {
		int kept = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
		if (kept < 0)
			break;
		bounding |= kept ? BIT(capability) : 0;
	}
	return set_capabilities(bounding & permitted_capabilities());
}

VERB(nonewprivs)
{
	(void)context, (void)argc, (void)argv;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* ---- descriptors --------------------------------------------------------------------------------- */

/* The numbers are far above what a child has open, so nothing still needed is replaced. */
VERB(inherit)
{
	for (int i = 0; i < argc; i++) {
		int sent = verb_fd(context, argv[i]);
		if (sent < 0)
			return verb_fail(context, argv[i], EBADF);
		if (dup2(sent, INHERIT_FIRST + i) < 0)
			return verb_fail(context, argv[i], errno);
	}
	context->inherited = argc;
	return 0;
}

static int close_on_exec(const struct context *context)
{
	if (close_range(3, INHERIT_FIRST - 1, CLOSE_RANGE_CLOEXEC) < 0)
		return -1;
	return close_range(INHERIT_FIRST + (unsigned)context->inherited, ~0u, CLOSE_RANGE_CLOEXEC);
}

/* ---- the program ------------------------------------------------------------------------------- */

/* Tries every directory of PATH as execvp(3) does, but never a shell; errno says what went wrong. */
static void search_path(const char *path, char **argv, char **environment)
{
	char file[8192];
	bool forbidden = false;
	for (const char *directory = path;; directory++) {
		int length = (int)strcspn(directory, ":");
		int size = snprintf(file, sizeof file, "%.*s%s%s", length, directory, length ? "/" : "./", argv[0]);
		if (size < (int)sizeof file)
			execve(file, argv, environment);
		else
			errno = ENAMETOOLONG;
		if (errno == EACCES)
			forbidden = true;
		else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP)
			return;
		directory += length;
		if (*directory == '\0')
			break;
	}
	errno = forbidden ? EACCES : ENOENT;
}

int exec_once(void)
{
	struct rlimit limit = { 0, 0 };
	prlimit(0, RLIMIT_NOFILE, NULL, &limit);
	return (int)(limit.rlim_max < ONCE_MAX ? limit.rlim_max : ONCE_MAX) - 1;
}

/* The filter lets execveat name this one descriptor, which closes by it; the limit lets no other ever have
 * its number. */
static int execute_once(char **argv, char **environment)
{
	int once = exec_once(), program = path_open(argv[0], O_PATH | O_CLOEXEC, 0);
	struct rlimit below = { (rlim_t)once, (rlim_t)once };
	if (program < 0 || dup3(program, once, O_CLOEXEC) < 0 || prlimit(0, RLIMIT_NOFILE, &below, NULL) < 0)
		return -1;
	return (int)syscall(SYS_execveat, once, "", argv, environment, AT_EMPTY_PATH);
}

VERB(exec)
{
	(void)argc;
	static char *nothing[] = { NULL };
	char **environment = context->environment ? context->environment : nothing;
	const char *path = environment_get(context, "PATH");
	if (close_on_exec(context) < 0)
		return -1;
	if (argv[0][0] == '\0')
		return verb_fail(context, argv[0], ENOENT);
	if (context->once)
		return execute_once(argv, environment);
	if (strchr(argv[0], '/'))
		execve(argv[0], argv, environment);
	else
		search_path(path ? path : DEFAULT_PATH, argv, environment);
	return -1;
}

VERB(builtin)
{
	(void)context;
	if (settle_capabilities() < 0 || close_range(3, ~0u, 0) < 0)
		return -1;
	_exit(builtin_run(argc, argv));
}
