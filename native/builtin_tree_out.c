/* The builtins `tree-out`, `changes` and `stat`: files as records. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "builtin.h"
#include "verbs.h"

static char block[65536];
static bool with_attributes, without_holes, names_only;
static int report = -1;         /* where progress and the end go, when the records go to a disk */

/* A file with several names: the first one seen carries the content. */
struct inode {
	dev_t device;
	ino_t number;
	char path[];
};

static int compare_inodes(const void *first, const void *second)
{
	const struct inode *a = first, *b = second;
	if (a->device != b->device)
		return a->device < b->device ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

/* The first name of a file met before; NULL when this is the first (or memory is short: it is then
 * simply sent twice). */
static const char *known_name(const struct stat *facts, const char *path)
{
	static void *inodes;
	struct inode *inode = malloc(sizeof *inode + strlen(path) + 1);
	if (!inode)
		return NULL;
	inode->device = facts->st_dev;
	inode->number = facts->st_ino;
	memcpy(inode->path, path, strlen(path) + 1);
	struct inode **found = tsearch(inode, &inodes, compare_inodes);
	if (!found || *found == inode)
		return NULL;
	free(inode);
	return (*found)->path;
}

/* Says every MiB that it goes on: whoever waits hears nothing else. */
static void tell(uint64_t bytes)
{
	static uint64_t done, told;
	struct { struct record record; char path; } progress = {
		.record = { .path_length = 1, .flags = RECORD_PROGRESS }, .path = '.',
	};
	done += bytes;
	if (report < 0 || done - told < sizeof block * 16)
		return;
	told = progress.record.size = done;
	if (write(report, &progress, sizeof progress.record + 1) < 0)
		told = 0;       /* nobody listens any more: that ends us soon */
}

static int open_file(int directory, const char *name)
{
	return openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* Exactly `size` bytes, however the file changes meanwhile: cut, or filled up with zeros. */
static int send_bytes(int file, uint64_t size)
{
	bool more = file >= 0;
	while (size > 0 && !ferror(stdout)) {
		size_t wanted = size < sizeof block ? (size_t)size : sizeof block;
		ssize_t count = more ? read(file, block, wanted) : 0;
		if (count < 0 && with_attributes)
			return -1;      /* a disk's bad block is no change */
		if (count <= 0) {
			more = false;
			memset(block, 0, wanted);
			count = (ssize_t)wanted;
		}
		fwrite(block, (size_t)count, 1, stdout);
		size -= (uint64_t)count;
		tell((uint64_t)count);
	}
	return ferror(stdout) ? -1 : 0;
}

/* Where a file has data; beyond so many places the rest counts as one. */
static int find_pieces(int file, uint64_t size, struct piece pieces[PIECES_MAX])
{
	int count = 0;
	for (uint64_t at = 0; at < size && count < PIECES_MAX; count++) {
		off_t data = lseek(file, (off_t)at, SEEK_DATA);
		if (data < 0 || (uint64_t)data >= size)
			return data < 0 && errno != ENXIO ? -1 : count;
		off_t hole = count == PIECES_MAX - 1 ? -1 : lseek(file, data, SEEK_HOLE);
		at = hole > data && (uint64_t)hole < size ? (uint64_t)hole : size;
		pieces[count] = (struct piece){ (uint64_t)data, at - (uint64_t)data };
	}
	return count;
}

/* A file without its holes: the map, then what is stored of it. */
static int send_sparse(int file, const char *path, struct record *record)
{
	static struct piece pieces[PIECES_MAX];
	int count = find_pieces(file, record->size, pieces);
	record->flags |= RECORD_SPARSE;
	record->major = (uint32_t)count;
	if (count < 0 || record_write(record, path, "") < 0)
		return -1;
	fwrite(pieces, sizeof *pieces, (size_t)count, stdout);
	for (int i = 0; i < count; i++)
		if (lseek(file, (off_t)pieces[i].offset, SEEK_SET) < 0 || send_bytes(file, pieces[i].length) < 0)
			return -1;
	return 0;
}

static int send_link(int directory, const char *name, const char *path, struct record *record)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(directory, name, target, sizeof target - 1);
	if (length < 0)
		return -1;
	target[length] = '\0';
	return record_write(record, path, target);
}

/* The extended attributes of an open file, each as a record of its own. */
static int send_open_attributes(int file, const char *path)
{
	static char names[65536], value[65536];         /* XATTR_LIST_MAX, XATTR_SIZE_MAX */
	ssize_t length = flistxattr(file, names, sizeof names);
	if (length < 0)
		return errno == ENOTSUP ? 0 : -1;
	for (char *name = names; name < names + length; name += strlen(name) + 1) {
		ssize_t size = fgetxattr(file, name, value, sizeof value);
		if (size < 0)
			return -1;
		struct record record = { .flags = RECORD_XATTR, .size = (uint64_t)size };
		if (record_write(&record, path, name) < 0)
			return -1;
		fwrite(value, (size_t)size, 1, stdout);
	}
	return ferror(stdout) ? -1 : 0;
}

/* They come ahead of what they belong to, as in a tar. */
static int send_attributes(int directory, const char *name, const char *path)
{
	if (!with_attributes)
		return 0;
	int file = open_file(directory, name);
	if (file < 0)
		return errno == ENOENT ? 0 : -1;
	return close_with(file, send_open_attributes(file, path));
}

static int send_entry(int directory, const char *name, char *path);

/* What the kernel makes up has no content worth copying. */
static bool is_kernels(int directory)
{
	return on_filesystem(directory, PROC_SUPER_MAGIC) || on_filesystem(directory, SYSFS_MAGIC)
		|| on_filesystem(directory, DEVPTS_SUPER_MAGIC);
}

static int send_children(int parent, const char *name, char *path)
{
	size_t length = strlen(path);
	int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0)
		return errno == ENOENT ? 0 : -1;
	DIR *listing = is_kernels(directory) ? NULL : fdopendir(directory);
	if (!listing)
		return close_with(directory, is_kernels(directory) ? 0 : -1);
	int result = 0;
	for (struct dirent *entry; result == 0 && (errno = 0, entry = readdir(listing));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (snprintf(path + length, PATH_MAX - length, "/%s", entry->d_name) >= (int)(PATH_MAX - length)) {
			errno = ENAMETOOLONG;
			result = -1;
		} else {
			result = send_entry(directory, entry->d_name, path);
		}
		path[length] = '\0';
	}
	if (result == 0 && errno != 0)
		result = -1;
	int error = errno;
	closedir(listing);
	errno = error;
	return result;
}

static int send_file(int directory, const char *name, const char *path, struct record *record,
		     const struct stat *facts)
{
	const char *first = facts->st_nlink > 1 ? known_name(facts, path) : NULL;
	if (first) {
		record->flags |= RECORD_HARDLINK;
		record->size = 0;
		return record_write(record, path, first);
	}
	if (names_only) {       /* a file has no device: its size is told there, and nothing of it sent */
		record->major = (uint32_t)record->size;
		record->minor = (uint32_t)(record->size >> 32);
		record->size = 0;
	}
	if (send_attributes(directory, name, path) < 0)
		return -1;
	int file = open_file(directory, name), result;
	if (without_holes && file >= 0 && (uint64_t)facts->st_blocks * 512 < record->size)
		result = send_sparse(file, path, record);
	else
		result = record_write(record, path, "") < 0 ? -1 : send_bytes(file, record->size);
	return file < 0 ? result : close_with(file, result);
}

/* One name and what is below it; sockets mean nothing elsewhere, and what has just gone is no error. */
static int send_entry(int directory, const char *name, char *path)
{
	struct stat facts;
	if (fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -1;
	struct record record = record_of(&facts);
	tell(4096);
	if (S_ISSOCK(facts.st_mode))
		return 0;
	if (S_ISLNK(facts.st_mode))
		return send_link(directory, name, path, &record);
	if (S_ISREG(facts.st_mode))
		return send_file(directory, name, path, &record, &facts);
	if (S_ISDIR(facts.st_mode) && send_attributes(directory, name, path) < 0)
		return -1;
	if (record_write(&record, path, "") < 0)
		return -1;
	return S_ISDIR(facts.st_mode) ? send_children(directory, name, path) : 0;
}

/* The directory a path lies in and its last part; for the root itself, it and ".". */
static int open_place(const char *path, const char **name, char buffer[PATH_MAX])
{
	size_t length = strlen(path);
	if (path[0] != '/' || length >= PATH_MAX) {
		errno = EINVAL;
		return -1;
	}
	memcpy(buffer, path, length + 1);
	while (length > 1 && buffer[length - 1] == '/')
		buffer[--length] = '\0';
	char *slash = strrchr(buffer, '/');
	*name = slash[1] ? slash + 1 : ".";
	*slash = '\0';
	return path_open(slash == buffer ? "/" : buffer, O_PATH | O_DIRECTORY, 0);
}

/* Lets the records go to a disk: where all is emulated that is five times faster than a port. */
static int divert(const char *device)
{
	int disk = open(device, O_WRONLY | O_CLOEXEC);
	report = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (disk < 0 || report < 0 || dup2(disk, STDOUT_FILENO) < 0)
		return -1;
	return setvbuf(stdout, NULL, _IOFBF, sizeof block);
}

/* The end, to the disk and, once it is there, to whoever waits. */
static int end_diverted(int error)
{
	if (record_end(error) != 0 && error == 0)
		error = errno;
	if (fsync(STDOUT_FILENO) < 0 && error == 0)
		error = errno;
	dup2(report, STDOUT_FILENO);
	clearerr(stdout);
	return record_end(error);
}

int builtin_tree_out(int argc, char **argv)
{
	names_only = argc > 2 && strcmp(argv[2], "names") == 0;
	with_attributes = without_holes = argc > 2 && !names_only;
	if (argc > 3 && divert(argv[3]) < 0)
		return record_end(errno);
	char buffer[PATH_MAX], path[PATH_MAX];
	const char *name;
	struct stat facts;
	int directory = open_place(argv[1], &name, buffer);
	if (directory < 0 || fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
		return record_end(errno);
	snprintf(path, sizeof path, "%s", name);
	int result = send_entry(directory, name, path), error = result < 0 ? errno : 0;
	return report < 0 ? record_end(error) : end_diverted(error);
}

/* A mount of a disk that is in no namespace, so that it ends with us; one already mounted is shared. */
static int open_disk(const char *device)
{
	int tree = -1, fs = fsopen("ext4", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -1;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", device, 0) == 0
	    && fsconfig(fs, FSCONFIG_SET_FLAG, "noinit_itable", NULL, 0) == 0
	    && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		tree = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV);
	return close_with(fs, tree);
}

int builtin_changes(int argc, char **argv)
{
	char path[PATH_MAX] = ".";
	int disk = open_disk(argv[1]);
	if (disk < 0)
		return record_end(errno);
	with_attributes = without_holes = true;
	names_only = argc > 2;
	int result = send_entry(disk, "upper", path);
	return record_end(result < 0 ? errno : 0);
}

int builtin_stat(int argc, char **argv)
{
	(void)argc;
	char buffer[PATH_MAX];
	const char *name;
	struct stat facts;
	int directory = open_place(argv[1], &name, buffer);
	if (directory < 0 || fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
		return record_end(errno);
	struct record record = record_of(&facts);
	int result = S_ISLNK(facts.st_mode) ? send_link(directory, name, name, &record)
		: record_write(&record, name, "");
	return record_end(result < 0 ? errno : 0);
}
