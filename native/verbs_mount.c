/* Verbs that mount and switch roots. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "verbs.h"

/* ---- flags ------------------------------------------------------------------------------------- */

static const struct flag {
	const char *name;
	unsigned long mount;            /* for mount(2) */
	uint64_t attribute, clear;      /* for mount_setattr(2) */
} flag_table[] = {
	{ "ro", MS_RDONLY, MOUNT_ATTR_RDONLY, 0 },
	{ "nosuid", MS_NOSUID, MOUNT_ATTR_NOSUID, 0 },
	{ "nodev", MS_NODEV, MOUNT_ATTR_NODEV, 0 },
	{ "noexec", MS_NOEXEC, MOUNT_ATTR_NOEXEC, 0 },
	{ "relatime", MS_RELATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
	{ "noatime", MS_NOATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "strictatime", MS_STRICTATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
};

static const struct flag *find_flag(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof flag_table / sizeof flag_table[0]; i++)
		if (strlen(flag_table[i].name) == length && memcmp(flag_table[i].name, name, length) == 0)
			return &flag_table[i];
	return NULL;
}

static int parse_flags(struct context *context, const char *text, unsigned long *mount_flags,
		       struct mount_attr *attributes)
{
	for (const char *name = text; *name;) {
		size_t length = strcspn(name, ",");
		const struct flag *flag = find_flag(name, length);
		if (!flag)
			return verb_fail(context, text, EINVAL);
		*mount_flags |= flag->mount;
		attributes->attr_set |= flag->attribute;
		attributes->attr_clr |= flag->clear;
		name += length + (name[length] == ',');
	}
	return 0;
}

static int set_attributes(int tree, const char *flags, struct context *context)
{
	unsigned long ignored = 0;
	struct mount_attr attributes = { 0 };
	if (*flags == '\0')
		return 0;
	if (parse_flags(context, flags, &ignored, &attributes) < 0)
		return -1;
	return mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes);
}

/* ---- mounting ---------------------------------------------------------------------------------- */

int mount_move(int tree, int target)
{
	return move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* mount(2) on an open directory: its path, which may have changed meanwhile, plays no part. */
int mount_on(int target, const char *kind, const char *source, unsigned long flags, const char *data)
{
	if (fchdir(target) < 0)
		return -1;
	int result = mount(source, ".", kind, flags, data);
	int error = errno;
	if (chdir("/") < 0)
		return -1;
	errno = error;
	return result;
}

/* mount(2) refuses (EBUSY) to cover a file system by itself, as a guest's sysfs would; this does not. */
static int mount_again(int target, const char *kind, const struct mount_attr *attributes)
{
	int tree = -1, fs = fsopen(kind, FSOPEN_CLOEXEC);
	if (fs < 0)
		return -1;
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		tree = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)attributes->attr_set);
	close_with(fs, 0);
	if (tree < 0)
		return -1;
	return close_with(tree, mount_move(tree, target));
}

VERB(mount)
{
	(void)argc;
	unsigned long flags = 0;
	struct mount_attr attributes = { 0 };
	if (parse_flags(context, argv[3], &flags, &attributes) < 0)
		return -1;
	context->failed = argv[2];
	int target = path_target(argv[2], true);
	if (target < 0)
		return -1;
	int result = mount_on(target, argv[0], argv[1], flags, argv[4]);
	if (result < 0 && errno == EBUSY && *argv[4] == '\0')
		result = mount_again(target, argv[0], &attributes);
	return close_with(target, result);
}

/* A detached clone of what an open path shows, with everything mounted below. */
int mount_clone(int path, unsigned flags)
{
	return open_tree(path, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags);
}

/* The tree an argument means, as a descriptor of the caller's. */
static int source_tree(struct context *context, const char *source)
{
	int sent = verb_fd(context, source);
	if (sent >= 0)
		return fcntl(sent, F_DUPFD_CLOEXEC, 3);
	if (errno != 0)
		return -1;
	int path = path_open(source, O_PATH, 0);
	if (path < 0)
		return -1;
	return close_with(path, mount_clone(path, AT_RECURSIVE));
}

/* Attaches at a path; an image's own root must not have parts of its /proc replaced, since what is
 * written there later (CVE-2019-16884) would reach something else. */
int mount_attach(struct context *context, int tree, const char *path)
{
	struct stat facts;
	context->failed = path;
	if (fstat(tree, &facts) < 0)
		return -1;
	int target = path_target(path, S_ISDIR(facts.st_mode));
	if (target < 0)
		return -1;
	if (context->has_root && on_filesystem(target, PROC_SUPER_MAGIC)) {
		errno = EPERM;
		return close_with(target, -1);
	}
	return close_with(target, mount_move(tree, target));
}

VERB(attach)
{
	(void)argc;
	int tree = source_tree(context, argv[0]);
	if (tree < 0)
		return -1;
	int result = set_attributes(tree, argv[2], context);
	if (result == 0)
		result = mount_attach(context, tree, argv[1]);
	return close_with(tree, result);
}

/* The directory itself is unmounted, whatever its path means by then. */
static int unmount(int target)
{
	if (fchdir(target) < 0)
		return -1;
	int result = umount2(".", MNT_DETACH);
	int error = errno;
	if (chdir("/") < 0)
		return -1;
	errno = error;
	return result;
}

VERB(detach)
{
	(void)context, (void)argc;
	struct stat facts;
	int target = path_open(argv[0], O_PATH | O_NOFOLLOW, 0);
	if (target < 0)
		return errno == ENOENT ? 0 : -1;
	if (!is_mount(target))
		return close_with(target, 0);
	if (fstat(target, &facts) < 0)
		return close_with(target, -1);
	if (S_ISDIR(facts.st_mode))
		return close_with(target, unmount(target));
	return close_with(target, umount2(argv[0], MNT_DETACH | UMOUNT_NOFOLLOW));
}

/* ---- the root ---------------------------------------------------------------------------------- */

bool is_mount(int path)
{
	struct statx facts;
	return statx(path, "", AT_EMPTY_PATH, 0, &facts) == 0
		&& (facts.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* A directory right below `root`, made when missing; a symbolic link is ENOTDIR, never followed. */
static int kernel_directory(int root, const char *name)
{
	const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(root, name, flags);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (mkdirat(root, name, 0755) < 0)
		return -1;
	return openat(root, name, flags);
}

/* Moves what the place has mounted at /NAME below the new root, unless that brings its own. */
static int move_kernel_tree(struct context *context, int root, const char *name)
{
	int place = openat(AT_FDCWD, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (place < 0)
		return errno == ENOENT ? 0 : -1;
	context->failed = name;
	int target = kernel_directory(root, name + 1);
	if (target < 0)
		return close_with(place, -1);
	int result = 0;
	if (is_mount(place) && !is_mount(target))
		result = mount_move(place, target);
	close_with(target, 0);
	return close_with(place, result);
}

/* A sent root has to be attached somewhere before it can be pivoted to. */
static int open_root(struct context *context, const char *source)
{
	int sent = verb_fd(context, source);
	if (sent < 0)
		return errno != 0 ? -1 : path_open(source, O_PATH | O_DIRECTORY, 0);
	int target = path_directory("/.root", 0755);
	if (target < 0)
		return -1;
	if (close_with(target, mount_move(sent, target)) < 0)
		return -1;
	return fcntl(sent, F_DUPFD_CLOEXEC, 3);
}

/* The old root ends up on top of the new one and is dropped with everything in it, see pivot_root(2). */
static int switch_root(struct context *context, int root, const char *source)
{
	static const char *const names[] = { "/proc", "/sys", "/dev" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (move_kernel_tree(context, root, names[i]) < 0)
			return -1;
	context->failed = source;
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
		return -1;
	return chdir("/");
}

VERB(root)
{
	(void)argc;
	bool entered = strcmp(argv[0], "/") == 0;       /* by an earlier plan */
	int root = open_root(context, argv[0]);
	if (root < 0)
		return -1;
	int result = entered ? 0 : switch_root(context, root, argv[0]);
	if (result == 0 && *argv[1])
		result = set_attributes(root, argv[1], context);
	context->has_root = result == 0;
	return close_with(root, result);
}
