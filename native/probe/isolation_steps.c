/* Steps of trials that take two instances: one takes as much as it can of something, within bounds that are
 * given, while the other tells how it fares; or one reads a file and the other looks whether it is in memory. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isolation.h"

struct step {
	uint64_t ms, lead, most, hold;  /* within how long to take, and whether to keep it so long */
	const char *path;
};

struct stepping {
	const char *name;
	void (*run)(const struct step *step);   /* adds its fields to the answer */
};

static void rest(uint64_t ms)
{
	poll(NULL, 0, (int)ms);
}

/* ---- how it fares ------------------------------------------------------------------------------------------ */

/* A little of everything: arithmetic, memory, a file, a process.  Returns what could not be had. */
static unsigned int live_once(void)
{
	enum { STEPS = 20000, BYTES = 1 << 16 };
	unsigned int failed = 0;
	for (int i = 0; i < STEPS; i++)
		__asm__ volatile("" : "+r"(i));
	char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	failed += memory == MAP_FAILED;
	if (memory != MAP_FAILED) {
		memset(memory, 1, BYTES);
		munmap(memory, BYTES);
	}
	int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	failed += file < 0;
	if (file >= 0)
		close(file);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	failed += child < 0 || waitpid(child, NULL, 0) != child;
	return failed;
}

static void step_pulse(const struct step *step)
{
	uint64_t failed = 0, done = 0;
	struct statfs status;
	rest(step->lead);
	uint64_t begin = now_ns(), end = begin + step->ms * 1000000, now;
	do {
		failed += live_once();
		done++;
		now = now_ns();
	} while (now < end);
	answer_number("rate", (double)done * 1e9 / (double)(now - begin));
	answer_count("failed", failed);
	if (statfs(step->path, &status) == 0) {
		answer_count("free", (uint64_t)status.f_bavail * (uint64_t)status.f_bsize);
		answer_count("all", (uint64_t)status.f_blocks * (uint64_t)status.f_bsize);
	}
}

/* ---- taking ------------------------------------------------------------------------------------------------ */

static void step_cpu(const struct step *step)
{
	long count = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t end = now_ns() + step->ms * 1000000, begun = 0;
	for (long i = 0; i < count && i < 64; i++) {
		pid_t child = fork();
		begun += child > 0;
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (now_ns() < end)
				continue;
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		continue;
	answer_count("taken", begun);
	answer_flag("limited", false);
}

/* In a child, which the kernel may kill for it; what it got is told by shared memory. */
static void step_memory(const struct step *step)
{
	enum { PIECE = 1 << 20 };
	int status = 0;
	volatile uint64_t *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (taken == MAP_FAILED)
		return;
	uint64_t end = now_ns() + step->ms * 1000000;
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (*taken + PIECE <= step->most && now_ns() < end) {
			char *memory = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (memory == MAP_FAILED)
				break;
			memset(memory, 1, PIECE);
			*taken += PIECE;
		}
		while (step->hold && now_ns() < end)
			rest(10);
		_exit(*taken + PIECE <= step->most);
	}
	if (child > 0)
		waitpid(child, &status, 0);
	answer_count("taken", *taken);
	answer_flag("limited", child < 0 || WIFSIGNALED(status));
}

static void step_processes(const struct step *step)
{
	uint64_t taken = 0;
	bool limited = false;
	pid_t *children = calloc(step->most, sizeof(*children));
	uint64_t end = now_ns() + step->ms * 1000000;
	while (children && taken < step->most && !limited && now_ns() < end) {
		pid_t child = fork();
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			rest(10 * step->ms);
			_exit(0);
		}
		limited = child < 0;
		if (child > 0)
			children[taken++] = child;
	}
	while (step->hold && now_ns() < end)
		rest(10);
	for (uint64_t i = 0; i < taken; i++)
		kill(children[i], SIGKILL);
	while (wait(NULL) > 0)
		continue;
	free(children);
	answer_count("taken", taken);
	answer_flag("limited", limited);
}

static void step_files(const struct step *step)
{
	uint64_t taken = 0, end = now_ns() + step->ms * 1000000;
	while (taken < step->most && open("/proc/self/stat", O_RDONLY | O_CLOEXEC) >= 0)
		taken++;
	bool limited = taken < step->most;
	while (step->hold && now_ns() < end)
		rest(10);
	answer_count("taken", taken);
	answer_flag("limited", limited);
}

/* A file without a name, gone with this process. */
static void step_disk(const struct step *step)
{
	static char piece[1 << 20];
	static const char *const places[] = { "/var/tmp", "/tmp", "/root", "/var", "/" };
	uint64_t taken = 0, end = now_ns() + step->ms * 1000000;
	int file = -1;
	memset(piece, 0x5a, sizeof(piece));
	char path[64];
	for (size_t i = 0; i < sizeof(places) / sizeof(*places) && file < 0; i++) {
		snprintf(path, sizeof(path), "%s/.proa-probe-%d", places[i], getpid());
		file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (file >= 0)
			unlink(path);
	}
	ssize_t done = 0;
	while (file >= 0 && taken < step->most && now_ns() < end && (done = write(file, piece, sizeof(piece))) > 0)
		taken += (uint64_t)done;
	if (file >= 0)
		fsync(file);
	while (step->hold && now_ns() < end)
		rest(10);
	answer_count("taken", taken);
	answer_flag("limited", file < 0 || done <= 0);
}

/* ---- what is in memory ------------------------------------------------------------------------------------- */

#define LOOKED_AT (1 << 14)     /* the page that is looked at; what is chosen is twice as long */

static char chosen[400];

/* The first file of the image that is large enough to tell by and that no program here has mapped. */
static int choose(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)where;
	if (kind == FTW_D && (strcmp(path, "/proc") == 0 || strcmp(path, "/sys") == 0 || strcmp(path, "/dev") == 0))
		return FTW_SKIP_SUBTREE;
	if (kind != FTW_F || !S_ISREG(status->st_mode) || status->st_size < 2 * LOOKED_AT || strlen(path) >= sizeof(chosen))
		return FTW_CONTINUE;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return FTW_CONTINUE;
	close(file);
	strcpy(chosen, path);
	return FTW_STOP;
}

static void step_find(const struct step *step)
{
	static const char *const places[] = { "/usr/share", "/usr/lib", "/opt", "/usr" };
	(void)step;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places) && !*chosen; i++)
		nftw(places[i], choose, 8, FTW_PHYS | FTW_ACTIONRETVAL);
	if (!*chosen)
		nftw("/", choose, 8, FTW_PHYS | FTW_ACTIONRETVAL);
	answer_text("path", chosen);
}

static void with_file(const struct step *step, void (*use)(int file))
{
	int file = open(step->path, O_RDONLY | O_CLOEXEC);
	if (file >= 0)
		use(file);
	else
		answer_text("error", error_name(errno));
	if (file >= 0)
		close(file);
}

/* A page is mapped, not touched; mincore tells.  Those who may not know are told that every page is there. */
static void look(int file)
{
	unsigned char there = 0;
	void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, LOOKED_AT);
	bool told = page != MAP_FAILED && mincore(page, 4096, &there) == 0;
	answer_text("seen", !told ? error_name(errno) : there & 1 ? "yes" : "no");
}

static void drop(int file)
{
	answer_text("dropped", posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0 ? "yes" : "no");
}

static void load(int file)
{
	char bytes[1 << 15];
	answer_text("loaded", pread(file, bytes, sizeof(bytes), 0) > LOOKED_AT ? "yes" : "no");
}

static void step_look(const struct step *step)
{
	with_file(step, look);
}

static void step_drop(const struct step *step)
{
	with_file(step, drop);
}

static void step_load(const struct step *step)
{
	with_file(step, load);
}

/* ---- who answers ------------------------------------------------------------------------------------------- */

/* Whether an address answers: a port where nobody listens is refused by one who is there. */
static void step_reach(const struct step *step)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	int channel = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
	struct pollfd wait_for = { channel, POLLOUT, 0 };
	socklen_t size = sizeof(error);
	if (channel < 0 || inet_pton(AF_INET, step->path, &to.sin_addr) != 1)
		return;
	uint64_t begin = now_ns();
	if (connect(channel, (struct sockaddr *)&to, sizeof(to)) < 0)
		error = errno;
	if (error == EINPROGRESS) {
		error = ETIMEDOUT;
		if (poll(&wait_for, 1, (int)step->ms) == 1)
			getsockopt(channel, SOL_SOCKET, SO_ERROR, &error, &size);
	}
	close(channel);
	answer_flag("answers", error == 0 || error == ECONNREFUSED);
	answer_text("said", error ? error_name(error) : "connected");
	answer_number("ms", (double)(now_ns() - begin) / 1e6);
}

int step_main(int count, char **arguments)
{
	static const struct stepping steps[] = {
		{ "pulse", step_pulse }, { "cpu", step_cpu }, { "memory", step_memory },
		{ "processes", step_processes }, { "files", step_files }, { "disk", step_disk }, { "find", step_find },
		{ "look", step_look }, { "drop", step_drop }, { "load", step_load }, { "reach", step_reach },
	};
	struct step step = { .ms = 300, .most = 256, .hold = 1, .path = "/" };
	const struct option options[] = {
		{ "ms", NULL, &step.ms, 1, 5000 }, { "lead", NULL, &step.lead, 0, 5000 },
		{ "most", NULL, &step.most, 1, 1 << 30 }, { "path", &step.path, NULL, 0, 0 },
		{ "hold", NULL, &step.hold, 0, 1 },
	};
	for (size_t i = 0; count > 0 && i < sizeof(steps) / sizeof(*steps); i++)
		if (strcmp(steps[i].name, arguments[0]) == 0) {
			if (!options_read(count - 1, arguments + 1, options, 5))
				return 2;
			answer_begin("isolation");
			answer_text("step", steps[i].name);
			steps[i].run(&step);
			answer_end();
			return 0;
		}
	fprintf(stderr, "proa-probe: isolation do STEP [KEY=VALUE...]\n");
	return 2;
}
