/* Verbs that make files and hide them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "verbs.h"

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

/* Whether an open path is a cover of this place: nothing else on its /dev has lost its name. */
static bool is_cover(int fd, int dev, bool *empty)
{
	struct stat file, home;
	if (fstat(fd, &file) < 0 || fstat(dev, &home) < 0)
		return false;
	*empty = file.st_size == 0;
	return S_ISREG(file.st_mode) && file.st_nlink == 0 && file.st_dev == home.st_dev;
}

/* Fills the cover an earlier plan has laid over a path; 0: there is none. */
static int rewrite(int dev, const char *path, mode_t mode, const char *content)
{
	bool empty, ours;
	int fd = path_open(path, O_PATH, 0);
	if (fd < 0)
		return 0;
	ours = is_cover(fd, dev, &empty);
	close(fd);
	if (!ours)
		return 0;       /* not even opened for writing: overlayfs would copy it up */
	fd = path_open(path, O_WRONLY | (empty ? 0 : O_TRUNC), 0);
	return fill(fd, mode, content) < 0 ? -1 : 1;
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
	int tree = -1, rewritten = rewrite(dev, argv[0], mode, argv[2]);
	if (rewritten != 0)
		return close_with(dev, rewritten < 0 ? -1 : 0);
	int fd = openat(dev, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fill(fd, mode, argv[2]) == 0)
		tree = open_tree(dev, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	int result = tree < 0 ? -1 : close_with(tree, mount_attach(context, tree, argv[0]));
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
	int result = mknodat(parent, name, (*argv[4] == 'b' ? S_IFBLK : S_IFCHR) | mode,
			     makedev((unsigned)major_number, (unsigned)minor_number));
	umask(mask);
	if (result < 0 && errno == EEXIST)
		result = 0;
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
	return close_with(null, mount_clone(null, 0));
}

static int mask_file(struct context *context, int target)
{
	int null = null_tree(context);
	if (null < 0)
		return -1;
	return close_with(null, mount_move(null, target));
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

static int set_readonly(int tree, bool undo)
{
	struct mount_attr attributes = { .attr_set = undo ? 0 : MOUNT_ATTR_RDONLY,
	                                 .attr_clr = undo ? MOUNT_ATTR_RDONLY : 0 };
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
		return close_with(target, set_readonly(target, *argv[1]));
	int tree = mount_clone(target, AT_RECURSIVE);
	if (tree < 0)
		return close_with(target, -1);
	int result = set_readonly(tree, *argv[1]);
	if (result == 0)
		result = mount_move(tree, target);
	close_with(target, 0);
	return close_with(tree, result);
}
