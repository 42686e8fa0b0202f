/* The monitor: holds one instance while engines come and go.  Requests of engines go to its own agent
 * core or to the guest's; what comes back is in events.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor.h"

#define FIRST_ENGINE_MS 10000   /* nobody connected: whoever made us is gone */
#define LINGER_MS 60000         /* without any client taking a byte, after the end */
#define KILLED_LINGER_MS 1000

struct monitor monitor;

static bool add(struct descriptors *descriptors, int fd)
{
	if (descriptors->count == KEPT_MAX)
		return false;
	descriptors->fds[descriptors->count++] = fd;
	return true;
}

/* ---- towards engines ---------------------------------------------------------------------------------- */

void tell(struct engine *engine, const struct frame *frame, const void *payload)
{
	if (engine)
		channel_send(&engine->channel, frame, payload);
}

void tell_all(const struct frame *frame, const void *payload)
{
	for (struct engine *engine = monitor.engines; engine; engine = engine->next)
		tell(engine, frame, payload);
}

static void done(struct engine *engine, const struct frame *request)
{
	tell(engine, &(struct frame){ .type = F_DONE, .argument = request->type, .id = request->id }, NULL);
}

static void failed(struct engine *engine, const struct frame *request, int error, const char *verb)
{
	char payload[FAILURE_MAX];
	struct failure failure = { .error = (uint32_t)error };
	snprintf(failure.verb, sizeof failure.verb, "%s", verb);
	struct frame frame = {
		.length = failure_encode(&failure, payload), .type = F_FAILED, .argument = request->type, .id = request->id,
	};
	tell(engine, &frame, payload);
}

/* ---- requests of engines ------------------------------------------------------------------------------------- */

static void forward(bool local, const struct frame *frame, char *payload, const int *fds, int fd_count)
{
	struct frame plain = *frame;
	plain.flags &= (uint8_t)~FRAME_LOCAL;
	if (local)
		agent_request(&monitor.agent, &plain, payload, fds, fd_count);
	else
		guest_send(&plain, payload);
}

void stream_request(struct stream *stream, uint8_t type, uint16_t argument, const void *bytes, uint32_t length)
{
	struct frame frame = { .length = length, .type = type, .argument = argument, .id = stream->id };
	forward(stream->local, &frame, (char *)(uintptr_t)bytes, NULL, 0);
}

static void attach(struct engine *engine, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	struct stream *stream = stream_open(frame->id);
	if (fd_count != 1 || !stream || !stream_attach(stream, fds[0], frame->flags, payload, frame->length)) {
		failed(engine, frame, EINVAL, "attach");
		return;
	}
	fds[0] = -1;
	done(engine, frame);
	stream_release(stream);
}

static void state(struct engine *engine, const struct frame *request)
{
	struct stream *next;
	for (struct stream *stream = stream_first(); stream; stream = next) {
		struct {
			uint32_t pid;
			uint32_t code, signal;
			uint32_t finished[2];
		} status = { .pid = stream->pid, .code = stream->exit.code, .signal = stream->exit.signal };
		struct frame frame = {
			.length = sizeof status, .type = F_STATUS, .argument = (uint16_t)stream->state, .id = stream->id,
		};
		next = stream->next;
		memcpy(status.finished, &stream->exit.finished_ns, sizeof status.finished);
		if (stream->state == STREAM_NEW)
			continue;
		tell(engine, &frame, &status);
		stream->reported = true;
		stream_release(stream);
	}
	if (monitor.greeted && main_is_local())
		tell(engine, &(struct frame){ .type = F_HELLO }, NULL);
	done(engine, request);
}

static void give_kept(struct engine *engine, const struct frame *request)
{
	struct frame answer_frame = { .type = F_DONE, .argument = request->type, .id = request->id };
	if (request->argument < monitor.keep.count)
		channel_send_fd(&engine->channel, &answer_frame, monitor.keep.fds[request->argument]);
	else
		failed(engine, request, EBADF, "keep");
}

/* Descriptors that must stay open as long as the instance lives (sockets that reserve its ports), or as
 * this monitor does (a tap, whose last close takes long: nobody waits for our end). */
static void hold(struct engine *engine, const struct frame *frame, int *fds, int fd_count)
{
	struct descriptors *where = frame->flags & HOLD_LONGEST ? &monitor.keep : &monitor.hold;
	for (int i = 0; i < fd_count; i++) {
		if (!add(where, fds[i])) {
			failed(engine, frame, EMFILE, "hold");
			return;
		}
		fds[i] = -1;
	}
	done(engine, frame);
}

static void kill_everything(void)
{
	monitor.killed = true;
	monitor.stay = false;
	if (main_is_local() && monitor.launched) {
		agent_kill(&monitor.agent);     /* its EXIT ends us */
		return;
	}
	guest_died();
	monitor_end();
}

/* A request with an answer: whoever asked last is told. */
static void ask(struct engine *engine, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	struct stream *stream = stream_open(frame->id);
	bool local = !monitor.has_guest || (frame->flags & FRAME_LOCAL);
	if (!stream || monitor.ended || monitor.killed || (!local && monitor.guest.watch.fd < 0)) {
		failed(engine, frame, ESHUTDOWN, "monitor");
		return;
	}
	if (!local && main_is_local() && !monitor.greeted) {    /* a system of its own, without our agent so far */
		failed(engine, frame, EHOSTDOWN, "guest");
		return;
	}
	stream->asker = engine;
	if (frame->type == F_SETUP) {
		stream->setting_up = true;
	} else {
		bool first = stream->state == STREAM_NEW && stream->asked == 0;
		stream->asked++;
		stream->local = first ? local : stream->local;
	}
	if (frame->type == F_LAUNCH)
		stream->logged = frame->flags & LAUNCH_LOG;
	if (frame->type == F_LAUNCH && frame->id == MAIN) {
		monitor.launched = true;
		monitor.stay = frame->flags & LAUNCH_STAY;
		monitor.guest.resync = local;   /* its guest may start again at any time */
	}
	forward(local, frame, payload, fds, fd_count);
}

static void engine_request(struct channel *channel, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	struct engine *engine = OWNER(channel, struct engine, channel);
	struct stream *stream = stream_find(frame->id);
	switch (frame->type) {
	case F_SETUP: case F_PLACE: case F_LAUNCH: case F_EXEC:
		ask(engine, frame, payload, fds, fd_count);
		break;
	case F_SIGNAL: case F_RESIZE: case F_CLOSE_STDIN:
		if (stream)
			forward(stream->local, frame, payload, NULL, 0);
		break;
	case F_ATTACH:
		attach(engine, frame, payload, fds, fd_count);
		break;
	case F_STATE:
		state(engine, frame);
		break;
	case F_GET_FD:
		give_kept(engine, frame);
		break;
	case F_KILL:
		kill_everything();
		break;
	case F_HELLO:
		monitor.greeted = false;
		channel_send(&monitor.guest, frame, NULL);
		break;
	case F_HOLD:
		hold(engine, frame, fds, fd_count);
		break;
	case F_QUIESCE: case F_ADOPT: case F_RESUME: {
		int error = quiet_request(engine, frame);
		if (error)
			failed(engine, frame, error, "quiesce");
		break;
	}
	case F_QUIT:
		monitor.stay = false;
		if (!monitor.launched)
			monitor_end();
		break;
	default:
		break;
	}
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void engine_lost(struct channel *channel)
{
	struct engine *engine = OWNER(channel, struct engine, channel);
	struct engine **link = &monitor.engines;
	while (*link != engine)
		link = &(*link)->next;
	*link = engine->next;
	for (struct stream *stream = stream_first(); stream; stream = stream->next)
		if (stream->asker == engine)
			stream->asker = NULL;
	quiet_lost(engine);
	channel_close(channel);
	free(engine);
	if (!monitor.engines && !monitor.launched)
		monitor_end();
}

static void listener_ready(struct watch *watch, uint32_t event)
{
	(void)event;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct engine *engine = calloc(1, sizeof *engine);
	if (!engine) {
		close(fd);
		return;
	}
	engine->channel.limit = PLAN_MAX + 64;
	engine->channel.received = engine_request;
	engine->channel.lost = engine_lost;
	engine->next = monitor.engines;
	monitor.engines = engine;
	monitor.met = true;
	channel_open(&engine->channel, fd);
	if (monitor.greeted && main_is_local())
		tell(engine, &(struct frame){ .type = F_HELLO }, NULL);
}

/* ---- start and loop ----------------------------------------------------------------------------------------------- */

static bool engines_told(void)
{
	for (struct engine *engine = monitor.engines; engine; engine = engine->next)
		if (queue_length(&engine->channel.queue) > 0)
			return false;
	return true;
}

static void serve(void)
{
	for (;;) {
		bool gone = !monitor.agent.processes;
		if (monitor.ended && gone && engines_told() && (monitor.killed || streams_flushed()))
			return;
		int timeout = monitor.met || monitor.launched ? -1 : FIRST_ENGINE_MS;
		if (monitor.ended && gone)
			timeout = monitor.killed ? KILLED_LINGER_MS : LINGER_MS;
		if (!loop_wait(timeout) && timeout >= 0)
			return;
	}
}

static int parse_number(const char *text)
{
	char *rest;
	long number = strtol(text, &rest, 10);
	return *text && !*rest && number > 2 && fcntl((int)number, F_SETFD, FD_CLOEXEC) == 0 ? (int)number : -1;
}

static bool parse(int argc, char **argv, int *directory)
{
	monitor.listener.fd = *directory = monitor.guest.watch.fd = -1;
	for (int i = 0; i + 1 < argc; i += 2) {
		int fd = parse_number(argv[i + 1]);
		bool fine = fd >= 0;
		if (strcmp(argv[i], "--listen") == 0)
			monitor.listener.fd = fd;
		else if (strcmp(argv[i], "--directory") == 0)
			*directory = fd;
		else if (strcmp(argv[i], "--channel") == 0)
			monitor.guest.watch.fd = fd;
		else if (strcmp(argv[i], "--keep") == 0)
			fine = fine && add(&monitor.keep, fd);
		else if (strcmp(argv[i], "--hold") == 0)
			fine = fine && add(&monitor.hold, fd);
		else
			fine = false;
		if (!fine)
			return false;
	}
	return argc % 2 == 0 && monitor.listener.fd >= 0 && *directory >= 0;
}

/* Out of the engine's session, terminal and directory. */
static void leave(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
	setsid();
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (chdir("/") < 0)
		abort();
}

int monitor_main(int argc, char **argv)
{
	int directory;
	if (!parse(argc, argv, &directory)) {
		fputs("usage: proa-native monitor --listen FD --directory FD [--channel FD] [--keep FD]... [--hold FD]...\n",
		      stderr);
		return 2;
	}
	leave();
	loop_open();
	agent_init(&monitor.agent, own_event, false);
	record_open(directory);
	monitor.reason = "the virtual machine ended before its process reported";
	monitor.has_guest = monitor.guest.watch.fd >= 0;
	if (monitor.has_guest) {
		monitor.guest.limit = FRAME_GUEST_MAX;
		monitor.guest.received = guest_event;
		monitor.guest.lost = guest_lost;
		channel_open(&monitor.guest, monitor.guest.watch.fd);
	}
	fcntl(monitor.listener.fd, F_SETFL, O_NONBLOCK);
	monitor.listener.ready = listener_ready;
	watch_set(&monitor.listener, EPOLLIN);
	serve();
	record_drop();
	return 0;
}
