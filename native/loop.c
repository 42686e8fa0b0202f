/* The event loop: epoll, one event at a time, so that a handler may free any watch. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "io.h"

static int loop = -1;

void loop_open(void)
{
	loop = epoll_create1(EPOLL_CLOEXEC);
	if (loop < 0)
		abort();
}

void watch_set(struct watch *watch, uint32_t events)
{
	if (watch->fd < 0 || (watch->added && watch->events == events))
		return;
	struct epoll_event event = { .events = events, .data.ptr = watch };
	int operation = watch->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	watch->added = epoll_ctl(loop, operation, watch->fd, &event) == 0;
	watch->events = events;
}

void watch_pause(struct watch *watch)
{
	if (watch->added)
		epoll_ctl(loop, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->added = false;
}

void watch_close(struct watch *watch)
{
	watch_pause(watch);     /* a child may still hold the description: closing alone would not do */
	if (watch->fd >= 0)
		close(watch->fd);
	watch->fd = -1;
}

uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool loop_wait(int timeout_ms)
{
	struct epoll_event event;
	int count = epoll_wait(loop, &event, 1, timeout_ms);
	if (count < 0 && errno != EINTR)
		abort();
	if (count > 0) {
		struct watch *watch = event.data.ptr;
		watch->ready(watch, event.events);
	}
	return count != 0;
}
