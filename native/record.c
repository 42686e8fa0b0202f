/* Files of the instance's directory: the log, the hull's own log, the exit record. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "monitor.h"

#define RECORD_ROOM 512         /* bytes, more than any exit record has */
#define HULL_LOG_MAX 65536
#define NEW_RECORD "exit.new"

struct file {
	const char *name;
	int fd;
	off_t length;
};

struct log_header {
	uint64_t time_ns;
	uint32_t length;
	uint8_t stream;
	uint8_t zero[3];
};

static int directory = -1;
static int record = -1;
static struct file process_log = { "log", -1, 0 };
static struct file hull_log = { "qemu.log", -1, 0 };

void record_open(int directory_fd)
{
	static const char room[RECORD_ROOM];
	directory = directory_fd;
	record = openat(directory, NEW_RECORD, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (record >= 0 && write(record, room, sizeof room) < 0)
		return;         /* full already: a small record may still find room later */
}

void record_exit(const struct exit_report *exit, bool oom, const char *error)
{
	char text[RECORD_ROOM];
	int length = snprintf(text, sizeof text, "code=%u\nsignal=%u\noom=%d\nfinished_ns=%llu\nerror=%s\n",
	                      exit->code, exit->signal, oom, (unsigned long long)exit->finished_ns, error);
	if (record >= 0 && pwrite(record, text, (size_t)length, 0) == length && ftruncate(record, length) == 0)
		renameat(directory, NEW_RECORD, directory, "exit");
	else
		record_drop();
}

void record_drop(void)
{
	if (record >= 0)
		unlinkat(directory, NEW_RECORD, 0);
}

static bool open_file(struct file *file)
{
	struct stat status;
	if (file->fd < 0)
		file->fd = openat(directory, file->name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file->fd < 0 || fstat(file->fd, &status) < 0)
		return false;
	file->length = status.st_size;
	return true;
}

/* All or nothing: what fits only in part is taken back. */
static void append(struct file *file, const struct iovec *parts, int count)
{
	ssize_t total = 0;
	for (int i = 0; i < count; i++)
		total += (ssize_t)parts[i].iov_len;
	if (file->fd < 0 && !open_file(file))
		return;
	ssize_t written = writev(file->fd, parts, count);
	if (written == total)
		file->length += written;
	else if (written > 0 && ftruncate(file->fd, file->length) < 0)
		open_file(file);
}

void record_log(uint8_t stream, const char *bytes, uint32_t length)
{
	struct log_header header = { .time_ns = now_ns(), .length = length, .stream = stream };
	struct iovec parts[] = { { &header, sizeof header }, { (void *)(uintptr_t)bytes, length } };
	append(&process_log, parts, 2);
}

void record_hull(const char *bytes, uint32_t length)
{
	struct iovec part = { (void *)(uintptr_t)bytes, length };
	if (hull_log.length + length <= HULL_LOG_MAX)
		append(&hull_log, &part, 1);
}
