/* The inside of network work: an HTTP/1.1 server of one known answer, or an echo.
 *
 *   GET /           three bytes
 *   GET /bytes/N    N bytes
 *
 * With `delay_ms` every answer waits that long, with `after_ms` the port opens that late: known answers for
 * those who measure. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

#define CONNECTIONS 1024
#define REQUEST_MAX 4096
#define PIECE (64u << 10)

struct connection {
	int fd;
	bool closes;
	uint64_t due;           /* when the answer may go, 0: now */
	uint64_t left;          /* of the answer's body */
	size_t head, used, sent;        /* length of the answer's head; bytes of the request; sent of the head */
	char answer[160];
	char request[REQUEST_MAX];
};

static struct connection *connections[CONNECTIONS];
static char zeros[PIECE];
static uint64_t delay_ms, echoes;

static void drop(struct connection **place)
{
	close((*place)->fd);
	free(*place);
	*place = NULL;
}

/* Makes the answer to the request at the beginning of the buffer, if it is whole. */
static bool next_answer(struct connection *connection)
{
	char path[64] = "", *end = memmem(connection->request, connection->used, "\r\n\r\n", 4);
	int minor = 1;
	if (!end)
		return false;
	*end = '\0';
	bool good = sscanf(connection->request, "GET %63s HTTP/1.%d", path, &minor) == 2;
	bool asked = strcasestr(connection->request, "\nConnection: keep-alive");
	connection->closes = !good || (minor == 0 ? !asked : strcasestr(connection->request, "\nConnection: close") != NULL);
	bool many = strncmp(path, "/bytes/", 7) == 0;
	connection->left = many ? strtoull(path + 7, NULL, 10) : good && strcmp(path, "/") == 0 ? 3 : 0;
	connection->head = (size_t)snprintf(connection->answer, sizeof(connection->answer),
		"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %llu\r\nConnection: %s\r\n\r\n",
		!good ? "400 Bad Request" : many || connection->left ? "200 OK" : "404 Not Found",
		(unsigned long long)connection->left, connection->closes ? "close" : "keep-alive");
	connection->sent = 0;
	size_t taken = (size_t)(end + 4 - connection->request);
	connection->used -= taken;
	memmove(connection->request, connection->request + taken, connection->used);
	connection->due = delay_ms ? now_ns() + delay_ms * 1000000 : 0;
	return true;
}

/* 1: all sent, 0: the socket is full, -1: the connection is dead. */
static int flush(struct connection *connection)
{
	while (connection->sent < connection->head || connection->left > 0) {
		bool head = connection->sent < connection->head;
		size_t length = head ? connection->head - connection->sent :
			connection->left < PIECE ? (size_t)connection->left : PIECE;
		/* Head and short body leave together. */
		ssize_t sent = send(connection->fd, head ? connection->answer + connection->sent : zeros, length,
			MSG_NOSIGNAL | MSG_DONTWAIT | (head && connection->left ? MSG_MORE : 0));
		if (sent < 0)
			return errno == EAGAIN ? 0 : -1;
		if (head)
			connection->sent += (size_t)sent;
		else
			connection->left -= (uint64_t)sent;
	}
	connection->head = 0;
	return connection->closes ? -1 : 1;
}

/* Goes on with a connection as far as it goes; false when it is over. */
static bool go_on(struct connection *connection)
{
	for (;;) {
		bool answering = connection->head > 0;
		if (answering && connection->due > now_ns())
			return true;
		if (answering) {
			int done = flush(connection);
			if (done <= 0)
				return done == 0;
		}
		if (next_answer(connection))
			continue;
		ssize_t got = recv(connection->fd, connection->request + connection->used,
			REQUEST_MAX - connection->used, MSG_DONTWAIT);
		if (got <= 0)
			return got < 0 && errno == EAGAIN && connection->used < REQUEST_MAX;
		connection->used += (size_t)got;
	}
}

static bool echo(struct connection *connection)
{
	ssize_t got;
	while ((got = recv(connection->fd, connection->request, REQUEST_MAX, MSG_DONTWAIT)) > 0)
		if (send(connection->fd, connection->request, (size_t)got, MSG_NOSIGNAL) != got)
			return false;
	return got < 0 && errno == EAGAIN;
}

static void accept_one(int listener, int poll)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	size_t free_place = 0;
	while (free_place < CONNECTIONS && connections[free_place])
		free_place++;
	struct connection *made = free_place < CONNECTIONS && fd >= 0 ? calloc(1, sizeof(*made)) : NULL;
	if (!made) {
		close(fd);
		return;
	}
	made->fd = fd;
	connections[free_place] = made;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.u64 = free_place + 1 };
	epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

/* Answers whose time has come; milliseconds until the next, -1 when none waits. */
static int answer_due(void)
{
	uint64_t next = UINT64_MAX, now = now_ns();
	for (size_t i = 0; delay_ms && i < CONNECTIONS; i++) {
		struct connection *one = connections[i];
		if (one && one->head && one->due <= now && !go_on(one))
			drop(&connections[i]);
		else if (one && one->head && one->due < next && one->due > now)
			next = one->due;
	}
	return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000) + 1;
}

static int listen_on(uint64_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	bool good = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, CONNECTIONS) == 0;
	socklen_t length = sizeof(address);
	if (!good || getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
		answer_error("serve", "no port", "the port cannot be listened on", errno);
		return -1;
	}
	answer_begin("serve");
	answer_count("port", ntohs(address.sin_port));
	answer_end();
	return fd;
}

int serve_main(int count, char **arguments)
{
	uint64_t port = 8099, after_ms = 0;
	const struct option options[] = {
		{ "port", NULL, &port, 0, 65535 },
		{ "echo", NULL, &echoes, 0, 1 },
		{ "delay_ms", NULL, &delay_ms, 0, 60000 },
		{ "after_ms", NULL, &after_ms, 0, 600000 },
	};
	if (!options_read(count, arguments, options, 4))
		return 2;
	nanosleep(&(struct timespec){ (time_t)(after_ms / 1000), (long)(after_ms % 1000) * 1000000 }, NULL);
	int poll = epoll_create1(EPOLL_CLOEXEC), listener = listen_on(port);
	struct epoll_event events[64] = { { .events = EPOLLIN, .data.u64 = 0 } };
	if (listener < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, events) != 0)
		return 1;
	signal(SIGTERM, SIG_DFL);
	for (;;) {
		int ready = epoll_wait(poll, events, 64, answer_due());
		for (int i = 0; i < ready; i++) {
			uint64_t which = events[i].data.u64;
			if (which == 0)
				accept_one(listener, poll);
			else if (connections[which - 1] && !(echoes ? echo : go_on)(connections[which - 1]))
				drop(&connections[which - 1]);
		}
	}
}
