/* Steps of trials that take two instances: one reads a file and the other looks whether it is in memory; one
 * calls and the other answers. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "isolation.h"

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

void step_find(const struct step *step)
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

/* Where mincore does not tell, time does: what reading the page takes, which brings it to memory. */
static void look_by_time(int file)
{
	enum { AGAIN = 16 };
	char byte;
	posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);   /* no page but the one that is read */
	for (int i = 0; i < AGAIN; i++)         /* the way there, by the file's first */
		if (pread(file, &byte, 1, 0) != 1)
			return;
	uint64_t begin = now_ns();
	if (pread(file, &byte, 1, LOOKED_AT) == 1)
		answer_count("ns", now_ns() - begin);
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

void step_look(const struct step *step)
{
	with_file(step, look);
}

void step_time(const struct step *step)
{
	with_file(step, look_by_time);
}

void step_drop(const struct step *step)
{
	with_file(step, drop);
}

void step_load(const struct step *step)
{
	with_file(step, load);
}

/* ---- who answers ------------------------------------------------------------------------------------------- */

/* Whether an address answers: a port where nobody listens is refused by one who is there. */
void step_reach(const struct step *step)
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
