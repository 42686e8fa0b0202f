/* Verbs that assemble a place's file systems. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "verbs.h"

#define EMPTY_PATHS (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

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

/* mount(2) on an open directory: its path, which may have changed meanwhile, plays no part. */
static int mount_on(int target, const char *kind, const char *source, unsigned long flags, const char *data)
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
	return close_with(tree, move_mount(tree, "", target, "", EMPTY_PATHS));
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
static int clone_tree(int path, unsigned flags)
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
	return close_with(path, clone_tree(path, AT_RECURSIVE));
}

/* Attaches at a path; an image's own root must not have parts of its /proc replaced, since what is
 * written there later (CVE-2019-16884) would reach something else. */
static int attach_at(struct context *context, int tree, const char *path)
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
	return close_with(target, move_mount(tree, "", target, "", EMPTY_PATHS));
}

VERB(attach)
{
	(void)argc;
	int tree = source_tree(context, argv[0]);
	if (tree < 0)
		return -1;
	int result = set_attributes(tree, argv[2], context);
	if (result == 0)
		result = attach_at(context, tree, argv[1]);
	return close_with(tree, result);
}

/* ---- the root ---------------------------------------------------------------------------------- */

static bool is_mount(int directory)
{
	struct statx facts;
	return statx(directory, "", AT_EMPTY_PATH, 0, &facts) == 0
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
		result = move_mount(place, "", target, "", EMPTY_PATHS);
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
	if (close_with(target, move_mount(sent, "", target, "", EMPTY_PATHS)) < 0)
		return -1;
	return fcntl(sent, F_DUPFD_CLOEXEC, 3);
}

/* The old root ends up on top of the new one and is dropped with everything in it, see pivot_root(2).
 * The first root of a guest cannot be pivoted away from: it is covered instead. */
static int switch_root(struct context *context, int root)
{
	if (fchdir(root) < 0)
		return -1;
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		if (umount2(".", MNT_DETACH) < 0)
			return -1;
	} else {
		if (!context->guest || errno != EINVAL)
			return -1;
		if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
			return -1;
	}
	return chdir("/");
}

VERB(root)
{
	(void)argc;
	int root = open_root(context, argv[0]);
	if (root < 0)
		return -1;
	static const char *const names[] = { "/proc", "/sys", "/dev" };
	int result = 0;
	for (size_t i = 0; result == 0 && i < sizeof names / sizeof names[0]; i++)
		result = move_kernel_tree(context, root, names[i]);
	if (result == 0) {
		context->failed = argv[0];
		result = switch_root(context, root);
	}
	if (result == 0 && *argv[1])
		result = set_attributes(root, argv[1], context);
	context->has_root = result == 0;
	return close_with(root, result);
}

/* ---- files ------------------------------------------------------------------------------------- */

VERB(dir)
{
	(void)argc;
	mode_t mode;
	if (verb_mode(context, argv[1], &mode) < 0)
		return -1;
	int fd = path_directory(argv[0], mode);
	return fd < 0 ? -1 : close_with(fd, 0);
}

/* A new or emptied file with exactly this mode. */
static int fill(int fd, mode_t mode, const char *content)
{
	struct stat facts;
	if (fd < 0)
		return -1;
	int result = write_all(fd, content, strlen(content));
	if (result == 0 && fstat(fd, &facts) == 0 && (facts.st_mode & 07777) != mode)
		result = fchmod(fd, mode);
	return close_with(fd, result);
}

VERB(write)
{
	(void)argc;
	mode_t mode;
	if (verb_mode(context, argv[1], &mode) < 0)
		return -1;
	int fd = path_open(argv[0], O_WRONLY | O_TRUNC | O_NOCTTY | O_NONBLOCK, 0);
	if (fd >= 0)
		return close_with(fd, write_all(fd, argv[2], strlen(argv[2])));
	if (errno != ENOENT)
		return -1;
	return fill(path_open(argv[0], O_WRONLY | O_CREAT | O_NOCTTY, 0600), mode, argv[2]);
}

/* The place's own /dev is a tmpfs: a file made there and unlinked lives on as its mount.  It is mounted
 * first: Linux before 6.15 refuses to attach what is unlinked. */
VERB(cover)
{
	(void)argc;
	static const char name[] = ".cover";
	mode_t mode;
	if (verb_mode(context, argv[1], &mode) < 0)
		return -1;
	int dev = path_open("/dev", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	if (dev < 0)
		return verb_fail(context, "/dev", errno);
	if (!on_filesystem(dev, TMPFS_MAGIC))
		return close_with(dev, verb_fail(context, "/dev", ENOTSUP));
	int tree = -1;
	int fd = openat(dev, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fill(fd, mode, argv[2]) == 0)
		tree = open_tree(dev, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	int result = tree < 0 ? -1 : close_with(tree, attach_at(context, tree, argv[0]));
	int error = errno;
	if (fd >= 0 && unlinkat(dev, name, 0) < 0 && result == 0)
		return close_with(dev, -1);
	errno = error;
	return close_with(dev, result);
}

VERB(symlink)
{
	(void)argc;
	const char *name;
	context->failed = argv[1];
	int parent = path_parent(argv[1], &name);
	if (parent < 0)
		return -1;
	int result = symlinkat(argv[0], parent, name);
	if (result < 0 && errno == EEXIST)
		result = 0;
	return close_with(parent, result);
}

VERB(node)
{
	(void)argc;
	mode_t mode;
	long long major_number, minor_number;
	const char *name;
	if (verb_mode(context, argv[1], &mode) < 0
	    || verb_number(context, argv[2], 0, 4095, &major_number) < 0
	    || verb_number(context, argv[3], 0, 1048575, &minor_number) < 0)
		return -1;
	int parent = path_parent(argv[0], &name);
	if (parent < 0)
		return -1;
	mode_t mask = umask(0);
	int result = mknodat(parent, name, S_IFCHR | mode,
			     makedev((unsigned)major_number, (unsigned)minor_number));
	umask(mask);
	return close_with(parent, result);
}

/* ---- hiding ------------------------------------------------------------------------------------ */

/* A detached clone of the place's /dev/null, made sure to be the real one (CVE-2025-31133). */
static int null_tree(struct context *context)
{
	struct stat facts;
	int null = path_open("/dev/null", O_PATH | O_NOFOLLOW, 0);
	if (null < 0)
		return verb_fail(context, "/dev/null", errno);
	if (fstat(null, &facts) < 0 || !S_ISCHR(facts.st_mode) || facts.st_rdev != makedev(1, 3))
		return close_with(null, verb_fail(context, "/dev/null", ENODEV));
	return close_with(null, clone_tree(null, 0));
}

static int mask_file(struct context *context, int target)
{
	int null = null_tree(context);
	if (null < 0)
		return -1;
	return close_with(null, move_mount(null, "", target, "", EMPTY_PATHS));
}

VERB(mask)
{
	(void)argc;
	struct stat facts;
	int target = path_open(argv[0], O_PATH | O_NOFOLLOW, 0);
	if (target < 0)
		return errno == ENOENT ? 0 : -1;
	if (fstat(target, &facts) < 0)
		return close_with(target, -1);
	if (S_ISLNK(facts.st_mode))
		return close_with(target, verb_fail(context, argv[0], ELOOP));
	if (!S_ISDIR(facts.st_mode))
		return close_with(target, mask_file(context, target));
	return close_with(target, mount_on(target, "tmpfs", "tmpfs",
					   MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_blocks=1"));
}

static int set_readonly(int tree)
{
	struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY };
	return mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

/* A mount changes itself and leaves what is mounted below alone; anything else is bound first. */
VERB(readonly)
{
	(void)context, (void)argc;
	int target = path_open(argv[0], O_PATH | O_NOFOLLOW, 0);
	if (target < 0)
		return errno == ENOENT ? 0 : -1;
	if (is_mount(target))
		return close_with(target, set_readonly(target));
	int tree = clone_tree(target, AT_RECURSIVE);
	if (tree < 0)
		return close_with(target, -1);
	int result = set_readonly(tree);
	if (result == 0)
		result = move_mount(tree, "", target, "", EMPTY_PATHS);
	close_with(target, 0);
	return close_with(tree, result);
}
