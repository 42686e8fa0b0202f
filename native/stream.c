/* Streams and their sinks: the clients attached to a process.  A sink is a socket to a client; what
 * it does not take waits in its queue, and the process's credit is given back only as queues empty. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor.h"

#define KEYS_MAX 64u
#define CREDIT_STEP (CREDIT_WINDOW / 8)         /* credit is returned in pieces of at least this */
#define RECEIVED_MAX (CREDIT_WINDOW + 2 * DRAIN_MAX)

struct sink {
	struct sink *next;
	struct stream *stream;
	struct watch watch;
	struct queue queue;
	uint8_t flags;
	bool input_done;        /* the client sends nothing more, or nothing it sends matters */
	uint32_t key_count;     /* of the sequence that detaches */
	uint32_t matched;       /* of it typed so far */
	char keys[KEYS_MAX];
};

static struct stream *streams;

/* ---- streams ---------------------------------------------------------------------------------------- */

struct stream *stream_first(void)
{
	return streams;
}

struct stream *stream_find(uint32_t id)
{
	struct stream *stream = streams;
	while (stream && stream->id != id)
		stream = stream->next;
	return stream;
}

struct stream *stream_open(uint32_t id)
{
	struct stream *stream = stream_find(id);
	if (stream)
		return stream;
	stream = calloc(1, sizeof *stream);
	if (!stream)
		return NULL;
	stream->id = id;
	stream->next = streams;
	streams = stream;
	return stream;
}

void stream_release(struct stream *stream)
{
	bool over = stream->state == STREAM_NEW || (stream->state == STREAM_EXITED && stream->reported);
	if (!over || stream->asked || stream->sinks || stream->id <= MAIN)
		return;
	struct stream **link = &streams;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	free(stream);
}

bool streams_flushed(void)
{
	for (struct stream *stream = streams; stream; stream = stream->next)
		if (stream->sinks)
			return false;
	return true;
}

/* Gives credit back for what every sink has taken. */
static void settle(struct stream *stream)
{
	size_t waiting = 0;
	for (struct sink *sink = stream->sinks; sink; sink = sink->next)
		if (queue_length(&sink->queue) > waiting)
			waiting = queue_length(&sink->queue);
	if (stream->state != STREAM_RUNNING || stream->received < waiting + CREDIT_STEP)
		return;
	uint32_t bytes = stream->received - (uint32_t)waiting;
	stream->received -= bytes;
	stream_request(stream, F_CREDIT, 0, &bytes, sizeof bytes);
}

/* ---- a sink's end -------------------------------------------------------------------------------------- */

static void sink_free(struct sink *sink)
{
	struct sink **link = &sink->stream->sinks;
	while (*link != sink)
		link = &(*link)->next;
	*link = sink->next;
	watch_close(&sink->watch);
	queue_free(&sink->queue);
	free(sink);
}

/* End of file for the client, also when the engine holds the socket too.  What it sent and nobody
 * wants is read away, or it would see a reset instead. */
static void sink_finish(struct sink *sink)
{
	char unwanted[512];
	shutdown(sink->watch.fd, SHUT_RDWR);
	while (recv(sink->watch.fd, unwanted, sizeof unwanted, MSG_DONTWAIT) > 0)
		;
	sink_free(sink);
}

static bool wants_input(const struct sink *sink)
{
	return (sink->flags & ATTACH_IN) && !sink->input_done;
}

/* The client is gone, and with it what it might still have typed. */
static void sink_lost(struct sink *sink)
{
	struct stream *stream = sink->stream;
	if (wants_input(sink) && (sink->flags & ATTACH_CLOSE) && stream->state == STREAM_RUNNING)
		stream_request(stream, F_CLOSE_STDIN, 0, NULL, 0);
	if ((sink->flags & ATTACH_HUP) && stream->state == STREAM_RUNNING)
		stream_request(stream, F_SIGNAL, SIGHUP, NULL, 0);
	sink_free(sink);
	settle(stream);
	stream_release(stream);
}

/* ---- from the client to the process ---------------------------------------------------------------------- */

static bool may_read(const struct sink *sink)
{
	return sink->stream->state == STREAM_RUNNING && sink->stream->sent + CHUNK_MAX <= CREDIT_WINDOW;
}

static void arm(struct sink *sink)
{
	uint32_t output = queue_length(&sink->queue) > 0 ? EPOLLOUT : 0;
	if (wants_input(sink) && !may_read(sink) && !output)
		watch_pause(&sink->watch);      /* or a hang-up would wake us again and again */
	else
		watch_set(&sink->watch, output | (wants_input(sink) && may_read(sink) ? EPOLLIN : 0));
}

static void send_input(struct stream *stream, const char *bytes, uint32_t length)
{
	if (length == 0)
		return;
	stream->sent += length;
	stream_request(stream, F_STDIN, 0, bytes, length);
}

/* Takes the detach sequence out of what was typed; keys of one that stays incomplete are passed on
 * with the key that breaks it.  Returns the length of `out`; sets `detached`. */
static uint32_t filter_keys(struct sink *sink, const char *in, uint32_t count, char *out, bool *detached)
{
	uint32_t length = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (sink->matched > 0 && in[i] != sink->keys[sink->matched]) {
			memcpy(out + length, sink->keys, sink->matched);
			length += sink->matched;
			sink->matched = 0;
		}
		if (sink->key_count == 0 || in[i] != sink->keys[sink->matched])
			out[length++] = in[i];
		else if (++sink->matched == sink->key_count)
			*detached = true;
		if (*detached)
			break;
	}
	return length;
}

static void input_ended(struct sink *sink)
{
	struct stream *stream = sink->stream;
	sink->input_done = true;
	send_input(stream, sink->keys, sink->matched);
	sink->matched = 0;
	if (sink->flags & ATTACH_CLOSE)
		stream_request(stream, F_CLOSE_STDIN, 0, NULL, 0);
	if (sink->flags & (ATTACH_OUT | ATTACH_ERR))
		arm(sink);
	else
		sink_lost(sink);
}

static void sink_read(struct sink *sink)
{
	char in[CHUNK_MAX - KEYS_MAX], out[CHUNK_MAX];
	ssize_t count = read(sink->watch.fd, in, sizeof in);
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (count <= 0) {
		input_ended(sink);
		return;
	}
	bool detached = false;
	struct stream *stream = sink->stream;
	uint32_t length = filter_keys(sink, in, (uint32_t)count, out, &detached);
	send_input(stream, out, length);
	if (!detached) {
		arm(sink);
		return;
	}
	sink_finish(sink);
	settle(stream);
}

void stream_credit(struct stream *stream, uint32_t bytes)
{
	stream->sent -= bytes < stream->sent ? bytes : stream->sent;
	for (struct sink *sink = stream->sinks; sink; sink = sink->next)
		arm(sink);
}

void stream_started(struct stream *stream)
{
	stream->state = STREAM_RUNNING;
	for (struct sink *sink = stream->sinks; sink; sink = sink->next)
		arm(sink);
}

/* ---- from the process to the clients ------------------------------------------------------------------------ */

static bool sink_write(struct sink *sink, uint8_t flags, const char *bytes, uint32_t length)
{
	int fd = sink->watch.fd;
	if (sink->flags & ATTACH_MUX) {
		uint32_t header[2] = { flags & OUTPUT_ERR ? 2 : 1, htonl(length) };
		if (!queue_write(&sink->queue, fd, header, sizeof header))
			return false;
	}
	return queue_write(&sink->queue, fd, bytes, length);
}

bool stream_output(struct stream *stream, uint8_t flags, const char *bytes, uint32_t length)
{
	uint8_t wanted = flags & OUTPUT_ERR ? ATTACH_ERR : ATTACH_OUT;
	if (stream->received + length > RECEIVED_MAX)
		return false;
	stream->received += length;
	if (stream->logged)
		record_log(flags & OUTPUT_ERR ? 2 : 1, bytes, length);
	struct sink *next;
	for (struct sink *sink = stream->sinks; sink; sink = next) {
		next = sink->next;
		if (!(sink->flags & wanted))
			continue;
		if (sink_write(sink, flags, bytes, length))
			arm(sink);
		else
			sink_lost(sink);
	}
	settle(stream);
	return true;
}

static void sink_ready(struct watch *watch, uint32_t events)
{
	struct sink *sink = OWNER(watch, struct sink, watch);
	struct stream *stream = sink->stream;
	if (events & EPOLLOUT) {
		bool dead = queue_flush(&sink->queue, watch->fd) < 0;
		if (dead)
			sink_lost(sink);
		else if (stream->state == STREAM_EXITED && queue_length(&sink->queue) == 0)
			sink_finish(sink);
		else
			arm(sink);
		if (dead)
			return;
		settle(stream);
		stream_release(stream);
	} else if (wants_input(sink) && may_read(sink)) {
		sink_read(sink);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		sink_lost(sink);
	} else {
		arm(sink);
	}
}

bool stream_attach(struct stream *stream, int fd, uint8_t flags, const char *keys, uint32_t key_count)
{
	struct sink *sink = key_count <= KEYS_MAX ? calloc(1, sizeof *sink) : NULL;
	if (!sink)
		return false;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	sink->stream = stream;
	sink->flags = flags;
	sink->key_count = key_count;
	memcpy(sink->keys, keys, key_count);
	sink->watch = (struct watch){ .fd = fd, .ready = sink_ready };
	sink->next = stream->sinks;
	stream->sinks = sink;
	if (stream->state == STREAM_EXITED)
		sink_finish(sink);
	else
		arm(sink);
	return true;
}

void stream_ended(struct stream *stream)
{
	struct sink *next;
	stream->state = STREAM_EXITED;
	for (struct sink *sink = stream->sinks; sink; sink = next) {
		next = sink->next;
		sink->input_done = true;
		if (queue_length(&sink->queue) == 0)
			sink_finish(sink);
		else
			arm(sink);
	}
}

void stream_abandon(struct stream *stream)
{
	while (stream->sinks) {
		int fd = stream->sinks->watch.fd;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);   /* as it came */
		sink_free(stream->sinks);
	}
}
