/* One event loop, and framed non-blocking connections on it.  Used by the monitor and by init. */
#ifndef PROA_IO_H
#define PROA_IO_H

#include <sys/epoll.h>

#include "proa.h"

/* ---- loop.c: a descriptor somebody waits for --------------------------------------------------- */

struct watch {
	int fd;                 /* -1: none */
	bool added;
	uint32_t events;
	void (*ready)(struct watch *watch, uint32_t events);    /* may free the watch */
};
#define OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

void loop_open(void);                                   /* once, before any watch is set */
void watch_set(struct watch *watch, uint32_t events);   /* EPOLLIN, EPOLLOUT; 0: only hang-up and error */
void watch_pause(struct watch *watch);                  /* not even these */
void watch_close(struct watch *watch);                  /* and closes the descriptor */
bool loop_wait(int timeout_ms);                         /* handles at most one event; false: timed out */

uint64_t now_ns(void);                                  /* CLOCK_REALTIME */

/* ---- frame.c: bytes waiting to be written ------------------------------------------------------ */

struct queue {
	char *bytes;            /* allocated only while something waits */
	size_t start, end, capacity;
};
size_t queue_length(const struct queue *queue);
bool queue_add(struct queue *queue, const void *bytes, size_t length);
/* Writes what the descriptor takes; the number of bytes, or -1 when it is dead. */
ssize_t queue_flush(struct queue *queue, int fd);
/* Writes at once when nothing waits and queues the rest; false: the descriptor is dead (or no memory). */
bool queue_write(struct queue *queue, int fd, const void *bytes, size_t length);
void queue_free(struct queue *queue);

/* ---- frame.c: descriptors over a Unix socket ------------------------------------------------------ */

#define SENT_MAX (FDS_MAX + 4)  /* descriptors in one message: a request's, a plan and stdio */

struct sent {
	int fds[SENT_MAX];
	int count;
	pid_t pid;              /* of the sender, on a socket with SO_PASSCRED */
};
ssize_t send_message(int socket, const void *bytes, size_t length, const int *fds, int count);
ssize_t receive_message(int socket, void *bytes, size_t length, struct sent *sent);

/* ---- frame.c: frames over a socket or a virtio-serial port -------------------------------------- */

struct channel {
	struct watch watch;
	uint32_t limit;         /* longest payload accepted */
	/* `payload` and `fds` are the callee's to read until it returns; what it takes of `fds` it sets
	 * to -1, the others are closed.  The callee may close and free the channel. */
	void (*received)(struct channel *channel, const struct frame *frame, char *payload, int *fds, int fd_count);
	void (*lost)(struct channel *channel);  /* the peer is gone or broke the rules: close it */
	struct frame header;
	uint32_t have;          /* bytes of header and payload read so far */
	char *payload;
	int fds[FDS_MAX];
	int fd_count;
	bool resync;            /* the peer may start anew at any time, see frame.c */
	bool filling;           /* it does: bytes 0xff are passed over */
	bool mute;              /* the peer takes nothing more; what it still says is read to its end */
	struct queue queue;
};
#define CHANNEL_QUEUE_MAX (16u << 20)   /* a peer that lets more wait is lost */

/* `channel` has its callbacks and limit set and is zero otherwise; the descriptor becomes non-blocking. */
void channel_open(struct channel *channel, int fd);
/* Never blocks; a failure shows later, as `lost`.  `frame->length` bytes of payload are sent. */
void channel_send(struct channel *channel, const struct frame *frame, const void *payload);
/* The same with one descriptor; only for answers that are rare and small. */
void channel_send_fd(struct channel *channel, const struct frame *frame, int fd);
/* Reads once, as the loop does; false: nothing was there, or the channel is lost. */
bool channel_read(struct channel *channel);
void channel_close(struct channel *channel);

#endif
