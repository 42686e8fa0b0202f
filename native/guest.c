/* The agent core as a service of a machine with a system of its own.  It is not PID 1 and reaps only what it
 * made; a process watches over one session after the other, for the host may go and another one come. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "init.h"

#define VERSION 1
#define GOODBYE 1       /* as a greeting's number; no session has it */

static struct agent agent;
static struct channel channel;

static void rest(void)
{
	static const struct timespec moment = { .tv_nsec = 250000000 };
	nanosleep(&moment, NULL);
}

static void send_frame(struct agent *from, const struct frame *frame, const void *payload)
{
	(void)from;
	channel_send(&channel, frame, payload);
}

static void lost(struct channel *from)
{
	(void)from;
	agent_kill(&agent);
	_exit(0);
}

/* A greeting out of turn: the host is another one and knows nothing of this session. */
static void received(struct channel *from, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	if (frame->type == F_HELLO)
		lost(from);
	agent_request(&agent, frame, payload, fds, fd_count);
}

/* The service is being stopped: a greeting tells the host that this session is over. */
static void terminated(struct watch *watch, uint32_t events)
{
	static const struct frame goodbye = { .type = F_HELLO, .argument = VERSION, .id = GOODBYE };
	(void)watch, (void)events;
	channel_send(&channel, &goodbye, NULL);
	lost(&channel);
}

static void watch_termination(void)
{
	static struct watch watch;
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	watch = (struct watch){ .fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), .ready = terminated };
	watch_set(&watch, EPOLLIN);
}

/* The port, once it is there, is nobody else's and a host listens. */
static int await_host(void)
{
	for (;; rest()) {
		struct pollfd port = { .fd = init_find_port(), .events = POLLOUT };
		if (port.fd >= 0 && poll(&port, 1, 0) == 1 && !(port.revents & (POLLHUP | POLLERR)))
			return port.fd;
		close(port.fd);
	}
}

static bool write_whole(int port, const char *bytes, size_t length)
{
	for (ssize_t count; length > 0; bytes += count, length -= (size_t)count)
		if ((count = write(port, bytes, length)) <= 0)
			return false;
	return true;
}

/* Either side may be in the midst of a frame that an earlier session left.  Padding ends the host's; ours is
 * over, and everything else of old, when our own greeting comes back, which no other session sent. */
static bool greet(int port)
{
	static char padding[FRAME_GUEST_MAX + sizeof(struct frame)];
	struct frame hello = { .type = F_HELLO, .argument = VERSION, .id = (uint32_t)(now_ns() >> 10) | 2 };
	char seen[sizeof hello] = "";
	memset(padding, 0xff, sizeof padding);
	if (!write_whole(port, padding, sizeof padding) || !write_whole(port, (const char *)&hello, sizeof hello))
		return false;
	while (memcmp(seen, &hello, sizeof hello) != 0) {
		memmove(seen, seen + 1, sizeof seen - 1);
		if (read(port, seen + sizeof seen - 1, 1) != 1)
			return false;
	}
	return true;
}

static _Noreturn void serve(void)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	int port = await_host();
	if (!greet(port))
		_exit(0);
	loop_open();
	agent_init(&agent, send_frame, true);
	watch_termination();
	channel = (struct channel){ .limit = PLAN_MAX + 64, .received = received, .lost = lost };
	channel_open(&channel, port);
	for (;;)
		loop_wait(-1);
}

void guest_main(void)
{
	if (chdir("/") < 0)
		_exit(1);
	for (;; rest()) {
		pid_t session = fork();
		if (session == 0)
			serve();
		waitpid(session, NULL, 0);
	}
}
