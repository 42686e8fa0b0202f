/* What a shared folder can do, seen by a process: one line per question, `name answer`.
 *
 *     folder DIRECTORY             everything that needs no second party
 *     folder append FILE TAG N     N lines `TAG number` by O_APPEND
 *     folder lock FLOCK FCNTL      "locked", a file by flock and one by fcntl, until stdin ends
 *     folder try FLOCK FCNTL       "taken" or "free", each
 *     folder watch DIRECTORY       "ready", then the name of the first change, or "nothing" after 2 s
 *     folder map FILE              the first byte as each line of stdin comes, by one shared mapping
 *     folder write FILE MIB        so much, in pieces of 1 MiB, then fsync
 *     folder read FILE             all of it, not from this kernel's cache
 *     folder stats DIRECTORY N     N files made there at first; lstat of each, ten times
 *
 * An answer is "ok", a value, or the name of an errno. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MANY 500
#define ALICE 1000

static const char *of(long result)
{
	return result < 0 ? strerrorname_np(errno) : "ok";
}

static void say(const char *name, const char *answer)
{
	printf("%s %s\n", name, answer);
	fflush(stdout);
}

static void tell(const char *name, long result)
{
	say(name, of(result));
}

static int make(const char *path, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		return -1;
	return fd;
}

static void tell_file(const char *name, const char *path)
{
	struct stat facts;
	if (lstat(path, &facts) < 0)
		return tell(name, -1);
	printf("%s %o %u:%u %u\n", name, facts.st_mode, facts.st_uid, facts.st_gid, (unsigned)facts.st_nlink);
}

static void content(const char *name, int fd)
{
	char text[64] = "";
	ssize_t got = pread(fd, text, sizeof text - 1, 0);
	say(name, got < 0 ? of(-1) : got == 0 ? "(empty)" : text);
}

/* Runs as another user; its answer is what it writes to its own lines. */
static void as(unsigned user, void (*work)(void))
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		if (setgid(user) < 0 || setuid(user) < 0)
			tell("become", -1);
		work();
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void by_alice(void)
{
	umask(0);
	close(open("open/alice", O_WRONLY | O_CREAT, 0640));
	tell_file("owner-alice", "open/alice");
	tell("alice-reads-roots", open("secret", O_RDONLY));
	tell("alice-chowns", chown("open/alice", 0, 0));
	tell("alice-unlinks-sticky", unlink("sticky/root"));
	close(open("setgid/alice", O_WRONLY | O_CREAT, 0640));
	tell_file("setgid-inherits", "setgid/alice");
	if (chmod("open/alice", 06755) == 0)
		tell_file("setuid-bit", "open/alice");
	int fd = open("open/alice", O_WRONLY);
	tell("setuid-write", write(fd, "x", 1));
	tell_file("setuid-bit-after-write", "open/alice");
	close(fd);
}

static void owners(void)
{
	umask(0);
	mkdir("open", 0777), mkdir("sticky", 01777), mkdir("setgid", 02777);
	tell("chown-directory", chown("setgid", 0, 50));
	chmod("setgid", 02777);
	close(open("sticky/root", O_WRONLY | O_CREAT, 0666));
	close(open("secret", O_WRONLY | O_CREAT, 0600));
	tell_file("owner-root", "secret");
	close(make("given", "x"));
	tell("chown", chown("given", 1234, 50));
	tell("chmod", chmod("given", 0751));
	tell_file("owner-given", "given");
	tell("chown-beyond", chown("given", 70000, 70000));
	as(ALICE, by_alice);
}

static void renames(void)
{
	struct stat facts;
	int old = make("old", "old"), new = make("new", "new");
	tell("rename-over-open", rename("new", "old"));
	content("rename-old-still-reads", old);
	tell("rename-fstat", fstat(old, &facts));
	content("rename-new-reads", new);
	tell("rename-write-after", pwrite(new, "NEW", 3, 0));
	int again = open("old", O_RDONLY);
	content("rename-seen-by-name", again);
	mkdir("dir", 0755), close(make("dir/file", "inner"));
	int inner = open("dir/file", O_RDWR);
	tell("rename-directory", rename("dir", "moved"));
	tell("rename-open-below", pwrite(inner, "I", 1, 0));
	tell("rename-to-full-directory", (mkdir("empty", 0755), rename("empty", "moved")));
	make("one", "1"), make("two", "2");
	tell("rename-noreplace", renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_NOREPLACE));
	tell("rename-exchange", renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_EXCHANGE));
	tell("rmdir-full", rmdir("moved"));
}

static void links(void)
{
	struct stat facts = {0}, other = {0};
	char target[64] = "";
	int gone = make("gone", "still");
	tell("unlink-open", unlink("gone"));
	tell("unlink-open-write", pwrite(gone, "S", 1, 0));
	content("unlink-open-read", gone);
	tell("unlink-open-fstat", fstat(gone, &facts));
	tell("unlink-open-truncate", ftruncate(gone, 2));
	close(make("first", "1"));
	tell("hard-link", link("first", "second"));
	stat("first", &facts), stat("second", &other);
	say("hard-link-same", facts.st_ino == other.st_ino && facts.st_nlink == 2 ? "ok" : "differ");
	tell("symlink", symlink("first", "soft"));
	say("readlink", readlink("soft", target, sizeof target - 1) < 0 ? of(-1) : target);
	tell("symlink-dangling", (symlink("nowhere", "dangling"), open("dangling", O_RDONLY)));
	tell("symlink-nofollow", open("soft", O_RDONLY | O_NOFOLLOW));
}

static void attributes(void)
{
	char value[16] = "";
	close(make("attributed", "x"));
	tell("xattr-set", setxattr("attributed", "user.colour", "red", 3, 0));
	say("xattr-get", getxattr("attributed", "user.colour", value, sizeof value) < 0 ? of(-1) : value);
	char names[256] = "";
	say("xattr-list", listxattr("attributed", names, sizeof names) < 0 ? of(-1) : names);
	tell("xattr-remove", removexattr("attributed", "user.colour"));
	tell("xattr-trusted", setxattr("attributed", "trusted.colour", "red", 3, 0));
	static const char acl[] = "\2\0\0\0" "\1\0\6\0\377\377\377\377" "\2\0\4\0\350\3\0\0"
		"\4\0\4\0\377\377\377\377" "\20\0\4\0\377\377\377\377" "\40\0\0\0\377\377\377\377";
	tell("acl", setxattr("attributed", "system.posix_acl_access", acl, sizeof acl - 1, 0));
}

/* ---- locks ---------------------------------------------------------------------------------------- */

static int posix(int fd, int command, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET };
	return fcntl(fd, command, &lock);
}

static int take_flock(int fd, bool wait)
{
	return flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
}

static int take_posix(int fd, bool wait)
{
	return posix(fd, wait ? F_SETLKW : F_SETLK, F_WRLCK);
}

static int take_open_file(int fd, bool wait)
{
	return posix(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, F_WRLCK);
}

/* A child takes the lock and keeps it until told; then the parent gets it. */
static void contend(const char *name, int (*take)(int fd, bool wait))
{
	int mine = make(name, "x"), ready[2], done[2];
	char byte, line[64];
	if (pipe(ready) < 0 || pipe(done) < 0)
		return;
	pid_t child = fork();
	if (child == 0) {
		int fd = open(name, O_RDWR);
		byte = take(fd, false) == 0 ? 'y' : 'n';
		if (write(ready[1], &byte, 1) < 0 || read(done[0], &byte, 1) < 0)
			_exit(1);
		usleep(20000);
		_exit(0);
	}
	snprintf(line, sizeof line, "%s-other-takes", name);
	say(line, read(ready[0], &byte, 1) == 1 && byte == 'y' ? "ok" : "no");
	snprintf(line, sizeof line, "%s-then", name);
	tell(line, take(mine, false));
	if (take == take_posix) {
		struct flock who = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		say("fcntl-owner", fcntl(mine, F_GETLK, &who) == 0 && who.l_pid == child ? "ok" : "unknown");
	}
	snprintf(line, sizeof line, "%s-waits", name);
	if (write(done[1], "x", 1) == 1)
		tell(line, take(mine, true));
	waitpid(child, NULL, 0);
}

static void locks(void)
{
	contend("flock", take_flock);
	contend("fcntl", take_posix);
	contend("ofd", take_open_file);
	int fd = make("both", "x");
	tell("both-kinds", flock(fd, LOCK_EX) < 0 ? -1 : posix(fd, F_SETLK, F_WRLCK));
}

static void mappings(void)
{
	int fd = make("mapped", "aaaa"), other = open("mapped", O_RDWR);
	tell("mmap-grow", ftruncate(fd, 8192));
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return tell("mmap-shared", -1);
	say("mmap-shared", "ok");
	memcpy(map, "bbbb", 4);
	pid_t child = fork();
	if (child == 0) {
		char *theirs = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
		_exit(theirs != MAP_FAILED && memcmp(theirs, "bbbb", 4) == 0 && memcpy(theirs + 4096, "cc", 2) ? 0 : 1);
	}
	int status = 1;
	waitpid(child, &status, 0);
	say("mmap-two-processes", status == 0 && memcmp(map + 4096, "cc", 2) == 0 ? "ok" : "differ");
	tell("msync", msync(map, 8192, MS_SYNC));
	char text[5] = "";
	say("mmap-then-read", pread(other, text, 4, 0) == 4 && memcmp(text, "bbbb", 4) == 0 ? "ok" : text);
	say("write-then-map", pwrite(other, "dddd", 4, 0) == 4 && memcmp(map, "dddd", 4) == 0 ? "ok" : "stale");
}

/* ---- sizes, names, times ---------------------------------------------------------------------------- */

static void sizes(void)
{
	struct stat facts;
	int fd = make("sparse", "");
	tell("truncate-up", ftruncate(fd, 1L << 30));
	tell("sparse-write", pwrite(fd, "x", 1, 512L << 20));
	fsync(fd);
	fstat(fd, &facts);
	say("sparse-blocks", facts.st_size == 1L << 30 && facts.st_blocks < 2048 ? "few" : "many");
	say("seek-data", lseek(fd, 0, SEEK_DATA) == 512L << 20 ? "ok" : "as-if-full");
	tell("fallocate", fallocate(fd, 0, 0, 4096));
	tell("punch-hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 512L << 20, 4096));
	tell("fsync", fsync(fd));
	tell("fdatasync", fdatasync(fd));
	int directory = open(".", O_RDONLY | O_DIRECTORY);
	tell("fsync-directory", fsync(directory));
	tell("o-direct", open("sparse", O_RDONLY | O_DIRECT));
	tell("o-tmpfile", open(".", O_RDWR | O_TMPFILE, 0600));
	int copy = make("copy", "");
	off_t from = 512L << 20, to = 0;
	tell("copy-range", copy_file_range(fd, &from, copy, &to, 4096, 0));
}

static void names(void)
{
	char long_name[300];
	memset(long_name, 'n', sizeof long_name);
	long_name[255] = 0;
	tell("name-255", open(long_name, O_WRONLY | O_CREAT, 0600));
	long_name[255] = 'n', long_name[256] = 0;
	tell("name-256", open(long_name, O_WRONLY | O_CREAT, 0600));
	tell("name-latin1", open("caf\xe9", O_WRONLY | O_CREAT, 0600));
	tell("name-newline", open("a\nb \\ *", O_WRONLY | O_CREAT, 0600));
	mkdir("large", 0755);
	for (int i = 0; i < MANY; i++) {
		char name[32];
		snprintf(name, sizeof name, "large/%d", i);
		close(open(name, O_WRONLY | O_CREAT, 0600));
	}
	static bool seen[MANY];
	int count = 0;
	DIR *directory = opendir("large");
	for (struct dirent *entry; directory && (entry = readdir(directory));)
		if (entry->d_name[0] != '.' && !seen[atoi(entry->d_name)])
			seen[atoi(entry->d_name)] = true, count++;
	printf("large-directory %d\n", count);
	rewinddir(directory);
	int removed = 0;
	for (struct dirent *entry; (entry = readdir(directory));)
		removed += entry->d_name[0] != '.' && unlinkat(dirfd(directory), entry->d_name, 0) == 0;
	printf("large-removed-while-read %d\n", removed);
	tell("large-rmdir", rmdir("large"));
}

static void times(void)
{
	struct stat facts;
	struct timespec wanted[2] = { { 1000000000, 123456789 }, { 1500000000, 987654321 } };
	close(make("timed", "x"));
	tell("utimens", utimensat(AT_FDCWD, "timed", wanted, 0));
	stat("timed", &facts);
	printf("times %ld.%09ld %ld.%09ld\n", facts.st_atim.tv_sec, facts.st_atim.tv_nsec, facts.st_mtim.tv_sec,
	       facts.st_mtim.tv_nsec);
	int fd = open("timed", O_WRONLY);
	tell("time-write", write(fd, "y", 1));
	close(fd);
	stat("timed", &facts);
	say("time-moves", facts.st_mtim.tv_sec > 1600000000 ? "ok" : "stale");
}

static void special(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	tell("mkfifo", mkfifo("fifo", 0600));
	tell("mknod-device", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
	int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	tell("socket-bind", bind(server, (void *)&address, sizeof address));
	listen(server, 1);
	tell("socket-connect", connect(client, (void *)&address, sizeof address));
	struct statvfs facts;
	say("statfs", statvfs(".", &facts) == 0 && facts.f_blocks > 0 ? "ok" : "empty");
}

/* ---- with a second party ------------------------------------------------------------------------------ */

static int append(char **argv)
{
	int fd = open(argv[0], O_WRONLY | O_APPEND | O_CREAT, 0666);
	for (int i = 0; i < atoi(argv[2]); i++) {
		char line[64];
		int length = snprintf(line, sizeof line, "%s %d\n", argv[1], i);
		if (write(fd, line, (size_t)length) != length)
			return 1;
	}
	return 0;
}

static int lock(char **argv)
{
	int first = open(argv[0], O_RDWR | O_CREAT, 0666), second = open(argv[1], O_RDWR | O_CREAT, 0666);
	char byte;
	if (take_flock(first, false) < 0 || take_posix(second, false) < 0)
		return 1;
	puts("locked");
	fflush(stdout);
	return read(0, &byte, 1) < 0;
}

static int try(char **argv)
{
	int first = open(argv[0], O_RDWR), second = open(argv[1], O_RDWR);
	printf("%s ", take_flock(first, false) < 0 ? "taken" : "free");
	printf("%s\n", take_posix(second, false) < 0 ? "taken" : "free");
	return 0;
}

static int watch(char **argv)
{
	char buffer[4096] __attribute__((aligned(8)));
	int fd = inotify_init();
	if (inotify_add_watch(fd, argv[0], IN_CREATE) < 0)
		return 1;
	puts("ready");
	fflush(stdout);
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	if (poll(&poller, 1, 2000) == 1 && read(fd, buffer, sizeof buffer) > 0)
		puts(((struct inotify_event *)buffer)->name);
	else
		puts("nothing");
	return 0;
}

static int map(char **argv)
{
	char line[16];
	int fd = open(argv[0], O_RDWR);
	const volatile char *seen = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	while (seen != MAP_FAILED && fgets(line, sizeof line, stdin)) {
		printf("%c\n", *seen);
		fflush(stdout);
	}
	return 0;
}

/* ---- for the clock ---------------------------------------------------------------------------------- */

static char piece[1 << 20];

static int write_all(char **argv)
{
	int fd = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC, 0666);
	for (int i = 0; i < atoi(argv[1]); i++)
		if (write(fd, piece, sizeof piece) != sizeof piece)
			return 1;
	return fsync(fd) < 0;
}

static int read_all(char **argv)
{
	int fd = open(argv[0], O_RDONLY);
	ssize_t got;
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	while ((got = read(fd, piece, sizeof piece)) > 0)
		;
	return got < 0;
}

static int stats(char **argv)
{
	struct stat facts;
	char name[32];
	mkdir(argv[0], 0755);
	if (chdir(argv[0]) < 0)
		return 1;
	for (int i = 0; i < atoi(argv[1]) * 10; i++) {
		snprintf(name, sizeof name, "%d", i % atoi(argv[1]));
		if (lstat(name, &facts) < 0)
			close(open(name, O_WRONLY | O_CREAT, 0600));
	}
	return 0;
}

static const struct {
	const char *name;
	int (*work)(char **argv);
} modes[] = {
	{ "append", append }, { "lock", lock }, { "try", try }, { "watch", watch }, { "map", map },
	{ "write", write_all }, { "read", read_all }, { "stats", stats },
};

int main(int argc, char **argv)
{
	static void (*const all[])(void) = { owners, renames, links, attributes, locks, mappings, sizes, names,
					     times, special };
	for (size_t i = 0; argc > 2 && i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			return modes[i].work(argv + 2);
	if (argc < 2 || chdir(argv[1]) < 0)
		return 2;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		all[i]();
	return 0;
}
