/* Standing still, so that a copy of this machine's memory holds no half frame and no process in the middle
 * of anything; and answering a monitor that has never seen these processes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "still.h"

#define FREEZE "/sys/fs/cgroup/place/cgroup.freeze"
#define EVENTS "/sys/fs/cgroup/place/cgroup.events"
#define FREEZE_TRIES 5000       /* of 200 microseconds */

static bool frozen(void)
{
	char text[256];
	int file = open(EVENTS, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return true;
	ssize_t length = read(file, text, sizeof text - 1);
	close(file);
	text[length > 0 ? length : 0] = '\0';
	return strstr(text, "frozen 1");
}

/* A machine without a place's cgroup runs on: its memory is copied between two instructions anyway. */
static bool write_freeze(char state)
{
	int file = open(FREEZE, O_WRONLY | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT;
	bool written = write(file, &state, 1) == 1;
	close(file);
	return written;
}

static bool freeze(void)
{
	static const struct timespec moment = { .tv_nsec = 200000 };
	if (!write_freeze('1'))
		return false;
	for (int tries = 0; tries < FREEZE_TRIES; tries++) {
		if (frozen())
			return true;
		nanosleep(&moment, NULL);
	}
	write_freeze('0');
	errno = ETIMEDOUT;
	return false;
}

static bool between(const struct agent *agent)
{
	for (struct process *process = agent->processes; process; process = process->next)
		if (process->placing || process->launching)
			return false;
	return true;
}

/* Everything said is out, and nothing more will be said until a frame comes: only those are waited for. */
static void stand(struct still *still)
{
	still->standing = true;
	while (still->standing) {
		bool waiting = queue_length(&still->channel->queue) > 0;
		struct pollfd port = { still->channel->watch.fd, (short)(waiting ? POLLIN | POLLOUT : POLLIN), 0 };
		if (poll(&port, 1, -1) < 0)
			continue;
		if ((port.revents & POLLOUT) && queue_flush(&still->channel->queue, port.fd) < 0)
			still->channel->lost(still->channel);
		if (port.revents & (POLLIN | POLLHUP | POLLERR))
			channel_read(still->channel);
	}
}

static void quiesce(struct still *still, uint8_t flags)
{
	struct failure failure;
	errno = EBUSY;
	if (!still->standing && between(still->agent) && freeze()) {
		if (flags & QUIESCE_SYNC)
			sync();
		answer(still->agent, F_DONE, HULL, F_QUIESCE);
		stand(still);
		return;
	}
	failure_set(&failure, 0, "quiesce", "");
	answer_failure(still->agent, HULL, F_QUIESCE, &failure);
}

/* The new monitor has taken nothing yet, so nothing is unacknowledged. */
static void adopt(struct still *still)
{
	struct { uint32_t pid, code, signal, finished[2]; } status = { 0 };
	still->standing = false;
	for (struct process *process = still->agent->processes; process; process = process->next) {
		struct frame frame = { .length = sizeof status, .type = F_STATUS, .argument = 2, .id = process->id };
		if (process->pid <= 0 || process->placing || process->launching || process->control.fd >= 0)
			continue;       /* a place that waits is not running */
		status.pid = (uint32_t)process->pid;
		still->agent->emit(still->agent, &frame, &status);
		process_credit(process, process->unacknowledged);
	}
	answer(still->agent, F_DONE, HULL, F_ADOPT);
}

static void resume(struct still *still)
{
	still->standing = false;
	write_freeze('0');
	answer(still->agent, F_DONE, HULL, F_RESUME);
}

bool still_request(struct still *still, const struct frame *frame)
{
	switch (frame->type) {
	case F_QUIESCE: quiesce(still, frame->flags); return true;
	case F_ADOPT: adopt(still); return true;
	case F_RESUME: resume(still); return true;
	default: return false;
	}
}
