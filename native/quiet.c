/* The monitor's side of a copy: nothing is on the way to the guest, or from it, while its memory is read;
 * and a fresh monitor learns from a copied guest what runs there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "monitor.h"

#define LISTED_MAX 1024         /* processes a guest may list */
#define HEADER sizeof(struct frame)

static struct {
	uint8_t asked;          /* QUIESCE, ADOPT or RESUME, not answered yet */
	bool holding;           /* since QUIESCE: frames for the guest wait in `held` */
	bool logged;            /* ADOPT: whether the main process's output is */
	uint32_t listed;
	struct engine *by;      /* who asked last, and whose end undoes it */
	struct queue held;
} quiet;

static void release(void)
{
	struct queue held = quiet.held;
	struct frame frame;
	quiet.holding = false;
	quiet.held = (struct queue){ 0 };
	while (queue_length(&held) >= HEADER) {
		memcpy(&frame, held.bytes + held.start, HEADER);
		channel_send(&monitor.guest, &frame, held.bytes + held.start + HEADER);
		held.start += HEADER + frame.length;
	}
	queue_free(&held);
}

static void ask(uint8_t type, uint8_t flags)
{
	quiet.asked = type;
	channel_send(&monitor.guest, &(struct frame){ .type = type, .flags = flags }, NULL);
	if (type == F_QUIESCE)
		quiet.holding = true;
	else
		release();
}

int quiet_request(struct engine *engine, const struct frame *frame)
{
	struct stream *main_stream = stream_find(MAIN);
	bool fresh = !monitor.launched && (!main_stream || main_stream->state == STREAM_NEW);
	if (!monitor.has_guest || monitor.guest.watch.fd < 0 || monitor.ended)
		return ESHUTDOWN;
	if (frame->type != F_RESUME && (quiet.asked || quiet.holding))
		return EBUSY;
	if (frame->type == F_ADOPT && !fresh)
		return EEXIST;
	quiet.by = engine;
	quiet.logged = frame->flags & LAUNCH_LOG;
	quiet.listed = 0;
	ask(frame->type, frame->type == F_QUIESCE ? frame->flags & QUIESCE_SYNC : 0);
	return 0;
}

void quiet_lost(const struct engine *engine)
{
	if (quiet.by != engine)
		return;
	quiet.by = NULL;
	if (quiet.holding)
		ask(F_RESUME, 0);
}

void guest_send(const struct frame *frame, const char *payload)
{
	if (!quiet.holding)
		channel_send(&monitor.guest, frame, payload);
	else if (queue_length(&quiet.held) + frame->length < CHANNEL_QUEUE_MAX && queue_add(&quiet.held, frame, HEADER)
	         && !queue_add(&quiet.held, payload, frame->length))
		quiet.held.end -= HEADER;
}

/* A process that runs in the copy; a hostile guest gains nothing by inventing some. */
static void listed(const struct frame *frame, const char *payload)
{
	struct stream *stream = frame->id > HULL && frame->argument == STREAM_RUNNING && quiet.listed < LISTED_MAX
	                        ? stream_open(frame->id) : NULL;
	if (!stream || stream->local || stream->state != STREAM_NEW)
		return;
	quiet.listed++;
	memcpy(&stream->pid, payload, sizeof stream->pid);
	if (stream->id == MAIN) {
		stream->logged = quiet.logged;
		monitor.launched = true;
	}
	stream_started(stream);
}

bool quiet_answer(const struct frame *frame, const char *payload)
{
	bool ours = frame->id == HULL && frame->argument == quiet.asked;
	bool failed = frame->type == F_FAILED && frame->length >= 10 && frame->length <= FAILURE_MAX;
	if (!quiet.asked)
		return false;
	if (frame->type == F_STATUS && quiet.asked == F_ADOPT && frame->length == 20) {
		listed(frame, payload);
		return true;
	}
	if (!ours || !(failed || (frame->type == F_DONE && frame->length == 0)))
		return false;
	quiet.asked = 0;
	if (failed)
		release();
	tell(quiet.by, frame, payload);
	return true;
}
