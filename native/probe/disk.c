/* Work on a disk: one file of known size and content, whose name is gone before the work begins.
 *
 * Writes count with the sync that makes them last.  Reads begin with this system's cache of the file
 * dropped, and say how much of it was dropped indeed; what lies below (the host's cache of a vm's disk) is
 * not this program's to drop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "work.h"

#define PAGE 4096u
#define BLOCK (1u << 20)
#define NAME ".proa-probe-file"

enum place { MEMORY, DISK };    /* what a file system keeps its files in */
static const struct { uint32_t magic; enum place place; const char *name; } file_systems[] = {
	{ 0xef53, DISK, "ext4" }, { 0x58465342, DISK, "xfs" }, { 0x9123683e, DISK, "btrfs" },
	{ 0x794c7630, DISK, "overlay" }, { 0x01021997, DISK, "9p" }, { 0x65735546, DISK, "fuse" },
	{ 0x6969, DISK, "nfs" }, { 0x2fc12fc1, DISK, "zfs" }, { 0xf2f52010, DISK, "f2fs" },
	{ 0x01021994, MEMORY, "tmpfs" }, { 0x858458f6, MEMORY, "ramfs" }, { 0x19800202, MEMORY, "mqueue" },
	{ 0x958458f6, MEMORY, "hugetlbfs" },
};
#define FILE_SYSTEMS (sizeof(file_systems) / sizeof(*file_systems))

struct disk {
	int fd;
	uint64_t size, pages, syncs;
	double resident;        /* the worst share of the file in the cache when reading began */
	char path[4096];
	const char *file_system;
	struct histogram *times;
	unsigned char *buffer;
};

static const char *kind_of(int fd, enum place *place)
{
	struct statfs facts;
	*place = DISK;
	if (fstatfs(fd, &facts) != 0)
		return "unknown";
	for (size_t i = 0; i < FILE_SYSTEMS; i++)
		if ((uint32_t)facts.f_type == file_systems[i].magic) {
			*place = file_systems[i].place;
			return file_systems[i].name;
		}
	return "unknown";
}

/* A file without a name in a directory; false when it cannot be had there, or `anywhere` unset, in memory. */
static bool take(struct disk *disk, const char *path, bool anywhere)
{
	enum place place;
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return false;
	disk->file_system = kind_of(directory, &place);
	disk->fd = -1;
	if (place == DISK || anywhere) {
		disk->fd = openat(directory, NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (disk->fd >= 0)
			unlinkat(directory, NAME, 0);
	}
	int error = errno;
	close(directory);
	errno = error;
	if (path != disk->path)
		snprintf(disk->path, sizeof(disk->path), "%s", path);
	return disk->fd >= 0;
}

/* The first mount point on a disk that can be written: a volume, when the root is read-only. */
static bool take_mount(struct disk *disk)
{
	char line[8192], path[4096];
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	bool taken = false;
	while (mounts && !taken && fgets(line, sizeof(line), mounts))
		taken = sscanf(line, "%*s %*s %*s %*s %4095s", path) == 1 && take(disk, path, false);
	if (mounts)
		fclose(mounts);
	return taken;
}

static bool take_somewhere(struct disk *disk, const char *directory)
{
	static const char *const usual[] = { "/var/tmp", "/tmp", "/var/lib", "/", "/root", "/home", "." };
	if (*directory)
		return take(disk, directory, true);
	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++)
		if (take(disk, usual[i], false))
			return true;
	const char *home = getenv("HOME");
	return (home && take(disk, home, false)) || take_mount(disk);
}

static uint64_t mark_of(uint64_t number)
{
	return number * 0x9e3779b97f4a7c15u + 1;
}

static void stamp(unsigned char *page, uint64_t number)
{
	uint64_t mark = mark_of(number);
	memcpy(page, &mark, sizeof(mark));
}

static bool stamped(const unsigned char *page, uint64_t number)
{
	uint64_t mark = mark_of(number);
	return memcmp(page, &mark, sizeof(mark)) == 0;
}

static bool whole(ssize_t done, size_t wanted)
{
	if (done >= 0 && (size_t)done != wanted)
		errno = ENOSPC;
	return done >= 0 && (size_t)done == wanted;
}

static bool write_block(struct disk *disk, uint64_t offset)
{
	for (uint64_t page = 0; page < BLOCK / PAGE; page++)
		stamp(disk->buffer + page * PAGE, offset / PAGE + page);
	return whole(pwrite(disk->fd, disk->buffer, BLOCK, (off_t)offset), BLOCK);
}

static bool sync_file(struct disk *disk)
{
	disk->syncs++;
	return fdatasync(disk->fd) == 0;
}

static bool fill(struct disk *disk)
{
	for (uint64_t offset = 0; offset < disk->size; offset += BLOCK)
		if (!write_block(disk, offset))
			return false;
	return sync_file(disk);
}

/* Drops the file from the page cache and looks what stayed. */
static void drop(struct disk *disk, int advice)
{
	unsigned char *resident = malloc(disk->pages);
	void *map = mmap(NULL, disk->size, PROT_READ, MAP_SHARED, disk->fd, 0);
	uint64_t stayed = 0;
	posix_fadvise(disk->fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(disk->fd, 0, 0, advice);
	if (map != MAP_FAILED && resident && mincore(map, disk->size, resident) == 0)
		for (uint64_t i = 0; i < disk->pages; i++)
			stayed += resident[i] & 1;
	else
		stayed = disk->pages;
	if ((double)stayed / (double)disk->pages > disk->resident)
		disk->resident = (double)stayed / (double)disk->pages;
	if (map != MAP_FAILED)
		munmap(map, disk->size);
	free(resident);
}

/* Every page once, in an order that looks like none: a generator of full period over a power of two. */
static uint64_t next_page(const struct disk *disk, uint64_t page)
{
	return (page * 1664525 + 1013904223) & (disk->pages - 1);
}

static bool page_io(struct disk *disk, enum disk_variant variant, uint64_t page)
{
	off_t offset = (off_t)(page * PAGE);
	if (variant != RANDOM_READ) {
		stamp(disk->buffer, page);
		return whole(pwrite(disk->fd, disk->buffer, PAGE, offset), PAGE) &&
			(variant != SYNCED_WRITE || sync_file(disk));
	}
	if (!whole(pread(disk->fd, disk->buffer, PAGE, offset), PAGE))
		return false;
	errno = EILSEQ;
	return stamped(disk->buffer, page);
}

/* One pass over the file by pages, until the time is over; each timed by itself. */
static bool pass_by_pages(struct disk *disk, enum disk_variant variant, struct stretch *stretch, uint64_t *done)
{
	uint64_t page = 0, before = now_ns();
	for (uint64_t i = 0; i < disk->pages; i++) {
		page = variant == SYNCED_WRITE ? i : next_page(disk, page);
		if (!page_io(disk, variant, page))
			return false;
		++*done;
		if (variant == RANDOM_WRITE)    /* which lasts once all are synced */
			continue;
		uint64_t after = now_ns();
		stretch->clock_reads++;
		histogram_add(disk->times, after - before);
		before = after;
		if (after >= stretch->until)
			break;
	}
	return variant != RANDOM_WRITE || sync_file(disk);
}

static bool pass_in_order(struct disk *disk, enum disk_variant variant, uint64_t *done)
{
	for (uint64_t offset = 0; offset < disk->size; offset += BLOCK) {
		if (variant == SEQUENTIAL_WRITE ? !write_block(disk, offset) :
		    !whole(pread(disk->fd, disk->buffer, BLOCK, (off_t)offset), BLOCK))
			return false;
		errno = EILSEQ;
		for (uint64_t page = 0; variant == SEQUENTIAL_READ && page < BLOCK / PAGE; page++)
			if (!stamped(disk->buffer + page * PAGE, offset / PAGE + page))
				return false;
		*done += BLOCK;
	}
	return variant != SEQUENTIAL_WRITE || sync_file(disk);
}

/* Passes until the time is over; what makes the file ready for the next is not timed. */
static bool passes(struct disk *disk, enum disk_variant variant, struct stretch *stretch, uint64_t *done)
{
	bool in_order = variant == SEQUENTIAL_READ || variant == SEQUENTIAL_WRITE;
	if (variant != SEQUENTIAL_WRITE && !fill(disk))
		return false;
	disk->syncs = 0;
	*done = 0;
	for (bool first = true; first || stretch_goes_on(stretch); first = false) {
		if (!first)
			stretch_pause(stretch);
		if (variant == SEQUENTIAL_WRITE && !first && (close(disk->fd) != 0 || !take(disk, disk->path, true)))
			return false;
		if (variant == SEQUENTIAL_READ || variant == RANDOM_READ)
			drop(disk, in_order ? POSIX_FADV_SEQUENTIAL : POSIX_FADV_RANDOM);
		if (first)
			stretch_begin(stretch, stretch->until);
		else
			stretch_resume(stretch);
		if (in_order ? !pass_in_order(disk, variant, done) : !pass_by_pages(disk, variant, stretch, done))
			return false;
	}
	return true;
}

static void answer(struct disk *disk, const struct sample *sample, struct stretch *stretch, uint64_t done)
{
	bool in_order = sample->variant == SEQUENTIAL_READ || sample->variant == SEQUENTIAL_WRITE;
	stretch_answer(stretch, sample, done, in_order ? "bytes" : "blocks");
	answer_count("size", disk->size);
	answer_count("block", in_order ? BLOCK : PAGE);
	answer_count("syncs", disk->syncs);
	answer_number("resident", disk->resident);
	answer_text("directory", disk->path);
	answer_text("file_system", disk->file_system);
	if (disk->times->count > 0)
		histogram_answer(disk->times);
	answer_end();
}

int work_disk(const struct sample *sample, const struct work *work)
{
	static struct histogram times;
	static unsigned char buffer[BLOCK];
	struct disk disk = { .times = &times, .buffer = buffer };
	struct stretch stretch = { .until = work->ms };
	uint64_t done = 0, value = 1;
	for (disk.size = BLOCK; disk.size < (work->bytes ? work->bytes : 32u << 20); disk.size *= 2)
		continue;
	disk.pages = disk.size / PAGE;
	for (size_t i = 0; i + sizeof(value) <= BLOCK; i += sizeof(value)) {
		value = STEP(value);
		memcpy(buffer + i, &value, sizeof(value));
	}
	if (!take_somewhere(&disk, work->directory)) {
		answer_error(sample->name, "no writable directory",
			"no directory on a disk can be written here", *work->directory ? errno : 0);
		return 1;
	}
	if (!passes(&disk, (enum disk_variant)sample->variant, &stretch, &done)) {
		answer_error(sample->name, "disk failed", "the file could not be written or read back", errno);
		return 1;
	}
	answer(&disk, sample, &stretch, done);
	close(disk.fd);
	return 0;
}
