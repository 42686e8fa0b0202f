/* Landlock: what the program may open once it runs.  Everything else is denied, and so are TCP and signals
 * to strangers where the kernel knows how (landlock(7); the numbers are newer than many headers). */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "verbs.h"

enum {
	EXECUTE = 1, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3, TRUNCATE = 1 << 14, IOCTL_DEV = 1 << 15,
	OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
};

struct ruleset { uint64_t fs, net, scopes; };

/* Everything this kernel can deny; what it cannot is left as it was. */
static struct ruleset handled(long abi)
{
	static const uint64_t fs[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff };
	return (struct ruleset){
		.fs = fs[abi > 5 ? 5 : abi], .net = abi >= 4 ? 3 : 0, .scopes = abi >= 6 ? 3 : 0,
	};
}

static int allow(int ruleset, int path, uint64_t rights)
{
	struct stat facts;
	if (fstat(path, &facts) < 0)
		return -1;
	struct landlock_path_beneath_attr rule = {
		.allowed_access = S_ISDIR(facts.st_mode) ? rights : rights & OF_FILES, .parent_fd = path,
	};
	return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/* `KIND:PATH`; a path that is not there allows nothing. */
static int allow_path(struct context *context, int ruleset, const char *rule, uint64_t known)
{
	static const struct { const char *kind; uint64_t rights; } kinds[] = {
		{ "read:", READ_FILE | READ_DIR }, { "exec:", EXECUTE | READ_FILE | READ_DIR },
		{ "device:", READ_FILE | WRITE_FILE | IOCTL_DEV }, { "all:", ~(uint64_t)EXECUTE },
	};
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		size_t length = strlen(kinds[i].kind);
		if (strncmp(rule, kinds[i].kind, length) != 0)
			continue;
		int path = path_open(rule + length, O_PATH, 0);
		if (path < 0)
			return errno == ENOENT ? 0 : verb_fail(context, rule, errno);
		return close_with(path, allow(ruleset, path, kinds[i].rights & known));
	}
	return verb_fail(context, rule, EINVAL);
}

/* Files it is born with may be opened again as they are open; memory and sockets have no place in a tree. */
static int allow_inherited(int ruleset, int fd, uint64_t known)
{
	static const uint64_t rights[] = { READ_FILE, WRITE_FILE | TRUNCATE, READ_FILE | WRITE_FILE | TRUNCATE };
	int mode = fcntl(fd, F_GETFL);
	if (mode < 0 || (mode & O_ACCMODE) == O_ACCMODE)
		return mode < 0 ? -1 : 0;
	int result = allow(ruleset, fd, rights[mode & O_ACCMODE] & known);
	return result < 0 && errno == EBADFD ? 0 : result;
}

VERB(landlock)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return -1;
	struct ruleset wanted = handled(abi);
	size_t size = abi >= 6 ? sizeof wanted : abi >= 4 ? 2 * sizeof wanted.fs : sizeof wanted.fs;
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &wanted, size, 0), result = ruleset < 0 ? -1 : 0;
	for (int i = 0; result == 0 && i < argc; i++)
		result = allow_path(context, ruleset, argv[i], wanted.fs);
	for (int i = 0; result == 0 && i < context->inherited; i++)
		result = allow_inherited(ruleset, INHERIT_FIRST + i, wanted.fs);
	if (result == 0)
		result = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
	return ruleset < 0 ? -1 : close_with(ruleset, result);
}
