/* Frames over non-blocking descriptors: reading piece by piece, queueing what cannot be written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io.h"

#define HEADER 12u
_Static_assert(sizeof(struct frame) == HEADER, "the header is sent as it lies in memory");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little endian");

/* ---- queue --------------------------------------------------------------------------------------- */

size_t queue_length(const struct queue *queue)
{
	return queue->end - queue->start;
}

bool queue_add(struct queue *queue, const void *bytes, size_t length)
{
	if (length == 0)
		return true;
	if (queue->capacity - queue->end < length && queue->start > 0) {
		memmove(queue->bytes, queue->bytes + queue->start, queue_length(queue));
		queue->end -= queue->start;
		queue->start = 0;
	}
	if (queue->capacity - queue->end < length) {
		size_t capacity = (queue->end + length) * 3 / 2;
		char *larger = realloc(queue->bytes, capacity);
		if (!larger)
			return false;
		queue->bytes = larger;
		queue->capacity = capacity;
	}
	memcpy(queue->bytes + queue->end, bytes, length);
	queue->end += length;
	return true;
}

ssize_t queue_flush(struct queue *queue, int fd)
{
	size_t before = queue_length(queue);
	while (queue_length(queue) > 0) {
		ssize_t count = write(fd, queue->bytes + queue->start, queue_length(queue));
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			break;
		if (count <= 0)
			return -1;
		queue->start += (size_t)count;
	}
	size_t after = queue_length(queue);
	if (after == 0)
		queue_free(queue);
	return (ssize_t)(before - after);
}

bool queue_write(struct queue *queue, int fd, const void *bytes, size_t length)
{
	ssize_t count = 0;
	if (queue_length(queue) == 0) {
		count = write(fd, bytes, length);
		if (count < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		count = count < 0 ? 0 : count;
	}
	return queue_add(queue, (const char *)bytes + count, length - (size_t)count);
}

void queue_free(struct queue *queue)
{
	free(queue->bytes);
	*queue = (struct queue){ 0 };
}

/* ---- messages with descriptors -------------------------------------------------------------------- */

union message_space {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(SENT_MAX * sizeof(int))];        /* or a few of them and credentials */
};

ssize_t send_message(int socket, const void *bytes, size_t length, const int *fds, int count)
{
	size_t size = (size_t)count * sizeof(int);
	union message_space space = { 0 };
	struct iovec part = { (void *)(uintptr_t)bytes, length };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = CMSG_SPACE(size),
	};
	space.align = (struct cmsghdr){ CMSG_LEN(size), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&space.align), fds, size);
	return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t receive_message(int socket, void *bytes, size_t length, struct sent *sent)
{
	union message_space space;
	struct iovec part = { bytes, length };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof space,
	};
	sent->count = 0;
	sent->pid = 0;
	ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	for (struct cmsghdr *c = received < 0 ? NULL : CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		struct ucred credentials;
		size_t size = c->cmsg_len - CMSG_LEN(0);
		if (c->cmsg_type == SCM_RIGHTS && size <= sizeof sent->fds) {
			memcpy(sent->fds, CMSG_DATA(c), size);
			sent->count = (int)(size / sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
			sent->pid = credentials.pid;
		}
	}
	return received;
}

/* ---- channel: reading ------------------------------------------------------------------------------ */

static void close_descriptors(int *fds, int count)
{
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* The header, with descriptors; plain read where the descriptor is no socket. */
static ssize_t read_header(struct channel *channel)
{
	char *rest = (char *)&channel->header + channel->have;
	struct sent sent;
	ssize_t count = receive_message(channel->watch.fd, rest, HEADER - channel->have, &sent);
	if (count < 0 && errno == ENOTSOCK)
		return read(channel->watch.fd, rest, HEADER - channel->have);
	int room = FDS_MAX - channel->fd_count;
	int taken = sent.count < room ? sent.count : room;
	memcpy(channel->fds + channel->fd_count, sent.fds, (size_t)taken * sizeof(int));
	channel->fd_count += taken;
	close_descriptors(sent.fds + taken, sent.count - taken);
	return count;
}

static ssize_t read_payload(struct channel *channel)
{
	if (!channel->payload)
		channel->payload = malloc(channel->header.length);
	if (!channel->payload)
		return -1;
	uint32_t done = channel->have - HEADER;
	return read(channel->watch.fd, channel->payload + done, channel->header.length - done);
}

enum progress { NOTHING, SOME, COMPLETE, LOST };

/* A peer that starts anew first sends 0xff bytes, enough to end any frame its forerunner was in the middle of;
 * where a header should be they are no valid length, and are passed over until another byte begins one. */
static bool passed_over(struct channel *channel)
{
	char *header = (char *)&channel->header;
	uint32_t skip = 0;
	while (skip < HEADER && header[skip] == (char)0xff)
		skip++;
	if (channel->resync && channel->header.length >> 24 == 0xff) {
		channel->filling = true;
		skip = skip < 4 ? 4 : skip;     /* a length that was cut off */
	}
	channel->filling = channel->filling && skip > 0;
	if (!channel->filling)
		return false;
	memmove(header, header + skip, HEADER - skip);
	channel->have = HEADER - skip;
	return true;
}

static enum progress read_some(struct channel *channel)
{
	bool in_header = channel->have < HEADER;
	ssize_t count = in_header ? read_header(channel) : read_payload(channel);
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return NOTHING;
	if (count <= 0)
		return LOST;
	channel->have += (uint32_t)count;
	if (channel->have < HEADER || (channel->have == HEADER && passed_over(channel)))
		return SOME;
	if (channel->header.length > channel->limit)
		return LOST;
	return channel->have - HEADER == channel->header.length ? COMPLETE : SOME;
}

static void deliver(struct channel *channel)
{
	static char empty[1];
	struct frame frame = channel->header;
	char *payload = channel->payload;
	int fds[FDS_MAX], fd_count = channel->fd_count;
	memcpy(fds, channel->fds, (size_t)fd_count * sizeof(int));
	channel->payload = NULL;
	channel->have = 0;
	channel->fd_count = 0;
	channel->received(channel, &frame, payload ? payload : empty, fds, fd_count);
	close_descriptors(fds, fd_count);
	free(payload);
}

bool channel_read(struct channel *channel)
{
	enum progress progress = read_some(channel);
	if (progress == COMPLETE)
		deliver(channel);
	else if (progress == LOST)
		channel->lost(channel);
	return progress == SOME || progress == COMPLETE;
}

/* ---- channel: writing ------------------------------------------------------------------------------- */

static void channel_break(struct channel *channel)
{
	channel->mute = true;
	queue_free(&channel->queue);
	shutdown(channel->watch.fd, SHUT_RDWR);
}

static void channel_ready(struct watch *watch, uint32_t events)
{
	struct channel *channel = OWNER(watch, struct channel, watch);
	if ((events & EPOLLOUT) && queue_flush(&channel->queue, watch->fd) < 0)
		channel_break(channel);
	if (queue_length(&channel->queue) == 0)
		watch_set(watch, EPOLLIN);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		channel_read(channel);
}

void channel_open(struct channel *channel, int fd)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	channel->watch = (struct watch){ .fd = fd, .ready = channel_ready };
	watch_set(&channel->watch, EPOLLIN);
}

void channel_send(struct channel *channel, const struct frame *frame, const void *payload)
{
	if (channel->mute || channel->watch.fd < 0)
		return;
	size_t total = HEADER + frame->length, sent = 0;
	if (queue_length(&channel->queue) == 0) {
		struct iovec parts[] = { { (void *)(uintptr_t)frame, HEADER },
		                         { (void *)(uintptr_t)payload, frame->length } };
		ssize_t count = writev(channel->watch.fd, parts, frame->length ? 2 : 1);
		sent = count > 0 ? (size_t)count : 0;
		if (count < 0 && errno != EAGAIN && errno != EINTR) {
			channel_break(channel);
			return;
		}
	}
	bool queued = queue_length(&channel->queue) + total <= CHANNEL_QUEUE_MAX;
	if (sent < HEADER)
		queued = queued && queue_add(&channel->queue, (const char *)frame + sent, HEADER - sent);
	size_t skip = sent > HEADER ? sent - HEADER : 0;
	if (frame->length > skip)
		queued = queued && queue_add(&channel->queue, (const char *)payload + skip, frame->length - skip);
	if (!queued)
		channel_break(channel);
	else if (queue_length(&channel->queue) > 0)
		watch_set(&channel->watch, EPOLLIN | EPOLLOUT);
}

void channel_send_fd(struct channel *channel, const struct frame *frame, int fd)
{
	bool sent = queue_length(&channel->queue) == 0 && !channel->mute
	            && send_message(channel->watch.fd, frame, HEADER, &fd, 1) == (ssize_t)HEADER;
	if (!sent)
		channel_break(channel);
}

void channel_close(struct channel *channel)
{
	watch_close(&channel->watch);
	close_descriptors(channel->fds, channel->fd_count);
	channel->fd_count = 0;
	free(channel->payload);
	channel->payload = NULL;
	queue_free(&channel->queue);
}
