/* What processes tell, by the own core or by the guest, and how everything ends. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "monitor.h"

#define HELLO_MAX 256
#define EXITS_KEPT 256          /* of execs that ended while no engine was there */

/* ---- the end ---------------------------------------------------------------------------------------------- */

void monitor_end(void)
{
	monitor.ended = true;
	agent_kill(&monitor.agent);
	for (int i = 0; i < monitor.hold.count; i++)
		close(monitor.hold.fds[i]);
	monitor.hold.count = 0;
}

static void tell_exit(struct stream *stream, bool oom)
{
	struct frame frame = {
		.length = sizeof stream->exit, .type = F_EXIT, .flags = oom ? EXIT_OOM : 0, .id = stream->id,
	};
	static int kept;
	stream->reported = monitor.engines || kept >= EXITS_KEPT;
	kept += !stream->reported;
	stream_ended(stream);
	tell_all(&frame, &stream->exit);
}

/* The main process is the virtual machine itself, or an ordinary process of this host. */
bool main_is_local(void)
{
	struct stream *stream = stream_find(MAIN);
	return stream && stream->local;
}

/* A process is over; with the main process everything is, or only the claim to outlive the engines. */
static void exited(struct stream *stream, const struct exit_report *report, bool oom, const char *error)
{
	stream->exit = *report;
	if (stream->id == MAIN && monitor.launched && !monitor.ended) {
		monitor.launched = !monitor.stay;
		if (!monitor.stay)
			record_exit(report, oom, error);
		if (!monitor.stay || !monitor.engines)
			monitor_end();
	}
	tell_exit(stream, oom);
	stream_release(stream);
}

/* The guest's processes end with their machine. */
void guest_died(void)
{
	struct exit_report report = { 128 + SIGKILL, SIGKILL, now_ns() };
	struct stream *next;
	monitor.stay = false;
	monitor.greeted = false;
	for (struct stream *stream = stream_first(); stream; stream = next) {
		next = stream->next;
		if (!stream->local && stream->id > MAIN && stream->state == STREAM_RUNNING)
			exited(stream, &report, false, "");
	}
	struct stream *main_stream = stream_find(MAIN);
	if (main_stream && !main_stream->local && monitor.launched && !monitor.ended)
		exited(main_stream, &report, false, monitor.killed ? "" : monitor.reason);
}

static void machine_exited(void)
{
	while (monitor.guest.watch.fd >= 0 && channel_read(&monitor.guest))
		;       /* its last words */
	guest_died();
}

static void hull_exited(struct stream *stream, const struct exit_report *report)
{
	machine_exited();
	stream->exit = *report;
	tell_exit(stream, false);
}

/* The guest broke the protocol, or its channel is gone.  A system of its own only loses what we know of it. */
void guest_lost(struct channel *channel)
{
	channel_close(channel);
	if (!main_is_local())
		agent_kill(&monitor.agent);
	if (main_is_local() || !monitor.agent.processes)
		guest_died();           /* otherwise the hull's EXIT tells */
}

static void hostile(void)
{
	monitor.reason = "the virtual machine broke the protocol";
	guest_lost(&monitor.guest);
}

/* ---- events of processes, from the own core or the guest ---------------------------------------------------- */

static void on_placed(struct stream *stream, const struct frame *frame, const char *payload)
{
	memcpy(&stream->pid, payload, sizeof stream->pid);
	stream->asked--;
	stream->state = STREAM_WAITING;
	tell(stream->asker, frame, payload);
}

static void on_started(struct stream *stream, const struct frame *frame, const char *payload)
{
	memcpy(&stream->pid, payload, sizeof stream->pid);
	stream->asked--;
	monitor.launched = monitor.launched || stream->id == MAIN;
	tell(stream->asker, frame, payload);
	stream_started(stream);
}

static void on_failed(struct stream *stream, const struct frame *frame, const char *payload)
{
	tell(stream->asker, frame, payload);
	if (frame->argument == F_SETUP) {
		stream->setting_up = false;
		return;
	}
	stream->asked--;
	bool second = stream->state >= STREAM_RUNNING;  /* a further request for a process there was already */
	if (stream->id == MAIN && stream->state != STREAM_RUNNING)
		monitor.launched = false;               /* EXITED: after a launch that left us here (STAY) */
	if (!second) {
		stream->state = STREAM_NEW;
		stream_abandon(stream);
	}
	if (!monitor.launched && (!monitor.engines || monitor.killed))
		monitor_end();
	if (!second)
		stream_release(stream);
}

static void on_output(struct stream *stream, const struct frame *frame, const char *payload)
{
	if (stream->id == HULL)
		record_hull(payload, frame->length);
	if (!stream_output(stream, frame->flags, payload, frame->length))
		hostile();
}

static void on_exit_report(struct stream *stream, const struct frame *frame, const char *payload)
{
	struct exit_report report;
	memcpy(&report, payload, sizeof report);
	if (stream->id == HULL && stream->local) {
		hull_exited(stream, &report);
		return;
	}
	if (stream->id == MAIN && stream->local && monitor.has_guest)
		machine_exited();
	exited(stream, &report, frame->flags & EXIT_OOM, "");
}

static void on_credit(struct stream *stream, const struct frame *frame, const char *payload)
{
	uint32_t bytes;
	(void)frame;
	memcpy(&bytes, payload, sizeof bytes);
	stream_credit(stream, bytes);
}

static void on_done(struct stream *stream, const struct frame *frame, const char *payload)
{
	stream->setting_up = false;
	tell(stream->asker, frame, payload);
}

struct event {
	void (*handle)(struct stream *stream, const struct frame *frame, const char *payload);
	uint32_t minimum, maximum;      /* payload */
};

static const struct event events[] = {
	[F_CREDIT] = { on_credit, 4, 4 },
	[F_DONE] = { on_done, 0, 0 },
	[F_PLACED] = { on_placed, 4, 4 },
	[F_STARTED] = { on_started, 4, 4 },
	[F_FAILED] = { on_failed, 10, FAILURE_MAX },
	[F_OUTPUT] = { on_output, 1, CHUNK_MAX },
	[F_EXIT] = { on_exit_report, sizeof(struct exit_report), sizeof(struct exit_report) },
};

static const struct event *find_event(uint8_t type)
{
	bool known = type < sizeof events / sizeof *events && events[type].handle;
	return known ? &events[type] : NULL;
}

/* The own core is believed. */
void own_event(struct agent *agent, const struct frame *frame, const void *payload)
{
	(void)agent;
	struct stream *stream = stream_find(frame->id);
	const struct event *event = find_event(frame->type);
	if (stream && event)
		event->handle(stream, frame, payload);
}

/* The guest is believed only what it was asked, and what its processes can do in their present state. */
static bool believable(const struct event *event, const struct stream *stream, const struct frame *frame)
{
	bool answers_setup = stream->setting_up && frame->argument == F_SETUP;
	if (frame->length < event->minimum || frame->length > event->maximum)
		return false;
	if (stream->id == HULL || stream->local)
		return answers_setup && (frame->type == F_DONE || frame->type == F_FAILED);
	switch (frame->type) {
	case F_DONE: return answers_setup;
	case F_FAILED: return answers_setup || (stream->asked > 0 && frame->argument != F_SETUP);
	case F_PLACED: return stream->asked > 0 && stream->state == STREAM_NEW;
	case F_STARTED: return stream->asked > 0 && stream->state < STREAM_RUNNING;
	case F_EXIT: return stream->state == STREAM_WAITING || stream->state == STREAM_RUNNING;
	default: return stream->state == STREAM_RUNNING;
	}
}

/* An agent begins anew in a system of its own: what it was asked, and what that started, is gone.  It reads
 * nothing until it sees its own greeting, so that it never takes the rest of an old frame for a new one. */
static void guest_anew(const struct frame *hello)
{
	struct failure failure = { .error = ESHUTDOWN, .verb = "guest" };
	struct frame refusal = { .type = F_FAILED, .argument = F_EXEC };
	char payload[FAILURE_MAX];
	struct stream *next;
	refusal.length = failure_encode(&failure, payload);
	guest_died();
	for (struct stream *stream = stream_first(); stream; stream = next) {
		next = stream->next;
		refusal.id = stream->id;
		if (!stream->local && stream->asked > 0)
			on_failed(stream, &refusal, payload);
	}
	queue_free(&monitor.guest.queue);
	channel_send(&monitor.guest, hello, NULL);
}

void guest_event(struct channel *channel, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	(void)channel, (void)fds, (void)fd_count;
	if (frame->type == F_HELLO && frame->length <= HELLO_MAX && (!monitor.greeted || main_is_local())) {
		if (main_is_local() && frame->length == 0)
			guest_anew(frame);
		monitor.greeted = true;
		tell_all(&(struct frame){ .length = frame->length, .type = F_HELLO }, payload);
		return;
	}
	if (quiet_answer(frame, payload))
		return;
	struct stream *stream = stream_find(frame->id);
	const struct event *event = find_event(frame->type);
	if (stream && event && believable(event, stream, frame))
		event->handle(stream, frame, payload);
}
