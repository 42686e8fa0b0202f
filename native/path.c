/* Paths of the place: resolved by openat2(2) without magic links, so that no link of an image leads
 * out of the root in force, be it through ".." or through a descriptor in /proc. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "verbs.h"

#define LINKS_MAX 8     /* dangling links followed to what they name */

static int open_how(int directory, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = resolve | RESOLVE_NO_MAGICLINKS,
	};
	return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

int close_with(int fd, int result)
{
	int error = errno;
	close(fd);
	errno = error;
	return result;
}

int path_open(const char *path, int flags, mode_t mode)
{
	return open_how(AT_FDCWD, path, flags, mode, 0);
}

/* Opens `prefix`, whose last part is `name` in `parent`; a missing one is made. */
static int open_or_make(int parent, const char *prefix, const char *name, mode_t mode)
{
	int fd = path_open(prefix, O_PATH | O_DIRECTORY, 0);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (mkdirat(parent, name, mode) < 0 && errno != EEXIST)
		return -1;
	return path_open(prefix, O_PATH | O_DIRECTORY, 0);
}

static int make_parts(char *path, mode_t mode)
{
	int parent = path_open("/", O_PATH | O_DIRECTORY, 0);
	for (char *name = path + strspn(path, "/"); parent >= 0 && *name;) {
		char *end = name + strcspn(name, "/");
		char *next = end + strspn(end, "/");
		bool last = *next == '\0';
		*end = '\0';
		parent = close_with(parent, open_or_make(parent, path, name, last ? mode : 0755));
		if (!last)
			*end = '/';
		name = next;
	}
	return parent;
}

int path_directory(const char *path, mode_t mode)
{
	int fd = path_open(path, O_PATH | O_DIRECTORY, 0);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	char parts[PATH_MAX];
	size_t length = strlen(path);
	if (path[0] != '/' || length >= sizeof parts) {
		errno = path[0] != '/' ? EINVAL : ENAMETOOLONG;
		return -1;
	}
	memcpy(parts, path, length + 1);
	mode_t mask = umask(0);
	fd = make_parts(parts, mode);
	umask(mask);
	return fd;
}

/* Copies what comes before the last part of a path; returns that part, or NULL. */
static const char *split(const char *path, char directory[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	if (path[0] != '/' || slash[1] == '\0' || slash - path >= PATH_MAX) {
		errno = EINVAL;
		return NULL;
	}
	size_t length = slash == path ? 1 : (size_t)(slash - path);
	memcpy(directory, path, length);
	directory[length] = '\0';
	return slash + 1;
}

int path_parent(const char *path, const char **name)
{
	char directory[PATH_MAX];
	*name = split(path, directory);
	if (!*name)
		return -1;
	if (strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	return path_directory(directory, 0755);
}

/* Replaces a path by what the dangling symbolic link there names. */
static int follow(char path[PATH_MAX], int parent, const char *name)
{
	char link[PATH_MAX], directory[PATH_MAX];
	ssize_t length = readlinkat(parent, name, link, sizeof link - 1);
	if (length <= 0)
		return -1;
	link[length] = '\0';
	if (link[0] == '/')
		directory[0] = '\0';
	else if (!split(path, directory))
		return -1;
	if (snprintf(path, PATH_MAX, "%s%s%s", directory, link[0] == '/' ? "" : "/", link) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return 0;
}

static int make_file(int parent, const char *name)
{
	int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	close(fd);
	return openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

int path_target(const char *path, bool directory)
{
	char resolved[PATH_MAX];
	if (snprintf(resolved, sizeof resolved, "%s", path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (int links = 0; links < LINKS_MAX; links++) {
		const char *name;
		int fd = path_open(resolved, O_PATH, 0);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		int parent = path_parent(resolved, &name);
		if (parent < 0)
			return -1;
		if (directory && mkdirat(parent, name, 0755) == 0)
			fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		else if (!directory)
			fd = make_file(parent, name);
		if (fd >= 0 || errno != EEXIST)
			return close_with(parent, fd);
		if (close_with(parent, follow(resolved, parent, name)) < 0)
			return -1;
	}
	errno = ELOOP;
	return -1;
}

int write_all(int fd, const void *bytes, size_t length)
{
	const char *cursor = bytes;
	while (length > 0) {
		ssize_t count = write(fd, cursor, length);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -1;
		cursor += count;
		length -= (size_t)count;
	}
	return 0;
}

bool on_filesystem(int fd, long magic)
{
	struct statfs facts;
	return fstatfs(fd, &facts) == 0 && (long)facts.f_type == magic;
}

/* A clone of the mount at /proc alone: what masks parts of it or makes them read-only is not in it,
 * and nothing an image could have mounted there stands in the way. */
static int proc_open(void)
{
	int proc = path_open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	if (proc < 0)
		return -1;
	if (!on_filesystem(proc, PROC_SUPER_MAGIC)) {
		errno = EXDEV;
		return close_with(proc, -1);
	}
	return close_with(proc, open_tree(proc, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
}

int proc_write(const char *path, const char *content)
{
	int proc = proc_open();
	if (proc < 0)
		return -1;
	int fd = open_how(proc, path, O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
	close_with(proc, 0);
	if (fd < 0)
		return -1;
	if (!on_filesystem(fd, PROC_SUPER_MAGIC)) {
		errno = EXDEV;
		return close_with(fd, -1);
	}
	return close_with(fd, write_all(fd, content, strlen(content)));
}
