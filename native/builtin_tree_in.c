/* The builtin `tree-in`: records as files, below a directory and nowhere else. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "builtin.h"
#include "verbs.h"

static char block[65536];

struct incoming {
	int base;                       /* nothing above it is reachable, through no link */
	struct record record;
	char path[PATH_MAX], link[PATH_MAX];
};

static int open_below(int base, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	return (int)syscall(SYS_openat2, base, path, &how, sizeof how);
}

/* Relative, and without empty or dot parts. */
static bool is_clean(const char *path)
{
	for (const char *part = path;; part++) {
		size_t length = strcspn(part, "/");
		if (length == 0 || (part[0] == '.' && (length == 1 || (length == 2 && part[1] == '.'))))
			return false;
		part += length;
		if (*part == '\0')
			return true;
	}
}

/* Opens the directory a record's path lies in, making missing ones, and finds its last part. */
static int open_parent(int base, char *path, const char **name)
{
	int parent = open_below(base, ".", O_PATH | O_DIRECTORY);
	for (char *slash; parent >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		*slash = '\0';
		int next = open_below(parent, path, O_PATH | O_DIRECTORY);
		if (next < 0 && errno == ENOENT && mkdirat(parent, path, 0755) == 0)
			next = open_below(parent, path, O_PATH | O_DIRECTORY);
		parent = close_with(parent, next);
		*slash = '/';
	}
	*name = path;
	return parent;
}

static int receive_bytes(void *bytes, size_t length)
{
	if (length > 0 && fread(bytes, length, 1, stdin) != 1) {
		errno = EPIPE;
		return -1;
	}
	return 0;
}

static int receive_name(char name[PATH_MAX], uint32_t length)
{
	if (length >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (receive_bytes(name, length) < 0)
		return -1;
	name[length] = '\0';
	return 0;
}

static int receive_content(int file, uint64_t size)
{
	while (size > 0) {
		size_t count = size < sizeof block ? (size_t)size : sizeof block;
		if (receive_bytes(block, count) < 0)
			return -1;
		if (write_all(file, block, count) < 0)
			return -1;
		size -= count;
	}
	return 0;
}

static int make_file(int parent, const char *name, const struct record *record)
{
	int file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0)
		return -1;
	return close_with(file, receive_content(file, record->size));
}

static int make_hardlink(struct incoming *in, int parent, const char *name)
{
	const char *old_name;
	if (!is_clean(in->link)) {
		errno = EINVAL;
		return -1;
	}
	int old_parent = open_parent(in->base, in->link, &old_name);
	if (old_parent < 0)
		return -1;
	return close_with(old_parent, linkat(old_parent, old_name, parent, name, 0));
}

static int make_entry(struct incoming *in, int parent, const char *name)
{
	const struct record *record = &in->record;
	if (record->flags & RECORD_HARDLINK)
		return make_hardlink(in, parent, name);
	switch (record->mode & S_IFMT) {
	case S_IFREG: return make_file(parent, name, record);
	case S_IFDIR: return mkdirat(parent, name, 0700);
	case S_IFLNK: return symlinkat(in->link, parent, name);
	case S_IFIFO: case S_IFCHR: case S_IFBLK:
		return mknodat(parent, name, record->mode, makedev(record->major, record->minor));
	}
	errno = EINVAL;
	return -1;
}

static int set_mode(int parent, const char *name, mode_t mode)
{
	int file = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return file < 0 ? -1 : close_with(file, fchmod(file, mode & 07777));
}

/* Owner first: changing it clears set-id bits. */
static int set_facts(int parent, const char *name, const struct record *record)
{
	struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = (time_t)(record->mtime_ns / 1000000000u), .tv_nsec = (long)(record->mtime_ns % 1000000000u) },
	};
	if (fchownat(parent, name, record->uid, record->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if ((S_ISREG(record->mode) || S_ISDIR(record->mode)) && set_mode(parent, name, record->mode) < 0)
		return -1;
	return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
}

/* Replaces what is there, except that a directory meets a directory. */
static int receive_entry(struct incoming *in, int parent, const char *name)
{
	struct stat present;
	bool exists = fstatat(parent, name, &present, AT_SYMLINK_NOFOLLOW) == 0;
	bool keep = exists && S_ISDIR(present.st_mode) && S_ISDIR(in->record.mode);
	if (exists && !keep && unlinkat(parent, name, 0) < 0)
		return -1;
	if (!keep && make_entry(in, parent, name) < 0)
		return -1;
	return in->record.flags & RECORD_HARDLINK ? 0 : set_facts(parent, name, &in->record);
}

/* One record: 1, or 0 at the end, or -1. */
static int receive(struct incoming *in)
{
	struct record *record = &in->record;
	const char *name;
	in->path[0] = '\0';
	if (receive_bytes(record, sizeof *record) < 0 || receive_name(in->path, record->path_length) < 0
	    || receive_name(in->link, record->link_length) < 0)
		return -1;
	if (record->path_length == 0) {
		errno = (int)record->size;
		return record->size ? -1 : 0;
	}
	bool content = S_ISREG(record->mode) && !(record->flags & RECORD_HARDLINK);
	if (!is_clean(in->path) || (record->size != 0 && !content)) {
		errno = EINVAL;
		return -1;
	}
	int parent = open_parent(in->base, in->path, &name);
	if (parent < 0)
		return -1;
	return close_with(parent, receive_entry(in, parent, name)) < 0 ? -1 : 1;
}

int builtin_tree_in(int argc, char **argv)
{
	(void)argc;
	static struct incoming in;
	in.base = path_open(argv[1], O_PATH | O_DIRECTORY, 0);
	if (in.base < 0) {
		perror(argv[1]);
		return 1;
	}
	umask(0);
	int result;
	do
		result = receive(&in);
	while (result > 0);
	int error = result < 0 ? errno : 0;
	if (error)
		fprintf(stderr, "%s/%s: %s\n", argv[1], in.path, strerror(error));
	return record_end(error);
}
