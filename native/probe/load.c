/* The outside of network work: a load generator for one HTTP/1.1 server.
 *
 * Closed loop: every connection asks again as soon as it is answered.  With `rate` the loop is open: a
 * request is due when its time has come, and its latency counts from then even when the connection was
 * still busy, so a server that stops for a while cannot hide it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

#define CONNECTIONS_MAX 1024
#define PATIENCE_NS 10000000000u        /* without a byte from anybody */

struct asker {
	int fd;
	bool asked;
	uint64_t since;         /* when the request under way was made, or due */
	struct reply reply;
};

struct load {
	struct sockaddr_in address;
	char request[1024];
	size_t request_length;
	int poll;
	uint64_t connections, ms, rate;
	uint64_t begin, until, next_due;
	uint64_t good, bad, body, connects, clock_reads;
	struct histogram times;
};

static int fail(const char *code, const char *detail, int error)
{
	answer_error("load", code, detail, error);
	return 1;
}

static bool open_asker(struct load *load, struct asker *asker)
{
	asker->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = 5 };
	setsockopt(asker->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(asker->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	load->connects++;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = asker };
	return connect(asker->fd, (struct sockaddr *)&load->address, sizeof(load->address)) == 0 &&
		epoll_ctl(load->poll, EPOLL_CTL_ADD, asker->fd, &event) == 0;
}

/* Sends the next request, when one is due; false when the server does not take it. */
static bool ask(struct load *load, struct asker *asker, uint64_t now)
{
	if (now >= load->until || (load->rate && load->next_due > now))
		return true;
	asker->since = now;
	if (load->rate) {
		asker->since = load->next_due;
		load->next_due += 1000000000u / load->rate;
	}
	if (asker->fd < 0 && !open_asker(load, asker))
		return false;
	reply_begin(&asker->reply);
	asker->asked = true;
	return send(asker->fd, load->request, load->request_length, MSG_NOSIGNAL) == (ssize_t)load->request_length;
}

static void finish(struct load *load, struct asker *asker, uint64_t now)
{
	bool good = asker->reply.state == REPLY_DONE && asker->reply.status >= 200 && asker->reply.status < 400;
	asker->asked = false;
	load->clock_reads += 2;         /* of this and of its begin; waiting costs the server nothing */
	*(good ? &load->good : &load->bad) += 1;
	if (good)
		histogram_add(&load->times, now - asker->since);
	if (asker->reply.closes || asker->reply.state == REPLY_BROKEN) {
		close(asker->fd);
		asker->fd = -1;
	}
}

/* Takes what came.  At the end of the time a reply that is not whole counts for its bytes alone. */
static void receive(struct load *load, struct asker *asker)
{
	static char bytes[256 << 10];
	ssize_t got = recv(asker->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN)
		return;
	if (!asker->asked || got <= 0) {        /* ended, or said something unasked */
		reply_ended(&asker->reply);
		if (asker->asked) {
			finish(load, asker, now_ns());
		} else {
			close(asker->fd);
			asker->fd = -1;
		}
		return;
	}
	uint64_t before = asker->reply.body;
	size_t taken = reply_take(&asker->reply, bytes, (size_t)got);
	load->body += asker->reply.body - before;
	if (taken < (size_t)got)        /* more than it was asked for */
		asker->reply.state = REPLY_BROKEN;
	if (asker->reply.state == REPLY_DONE || asker->reply.state == REPLY_BROKEN)
		finish(load, asker, now_ns());
}

static bool ask_all(struct load *load, struct asker *askers)
{
	for (uint64_t i = 0; i < load->connections; i++)
		if (!askers[i].asked && !ask(load, &askers[i], now_ns()))
			return false;
	return true;
}

static int wait_ms(const struct load *load, uint64_t now)
{
	uint64_t until = load->rate && load->next_due < load->until ? load->next_due : load->until;
	return until <= now ? 0 : (int)((until - now) / 1000000);
}

static bool run(struct load *load, struct asker *askers)
{
	struct epoll_event events[64];
	uint64_t heard = now_ns(), now = heard;
	for (;;) {
		if (!ask_all(load, askers))
			return false;
		int ready = epoll_wait(load->poll, events, 64, wait_ms(load, now));
		for (int i = 0; i < ready; i++)
			receive(load, events[i].data.ptr);
		now = now_ns();
		if (now >= load->until)
			return true;
		if (ready > 0 || load->rate)
			heard = now;
		errno = ETIMEDOUT;
		if (now - heard > PATIENCE_NS)
			return false;
	}
}

static void answer(struct load *load)
{
	double seconds = (double)(now_ns() - load->begin) / 1e9;
	answer_begin("load");
	answer_number("seconds", seconds);
	answer_number("requests_per_second", (double)load->good / seconds);
	answer_number("bytes_per_second", (double)load->body / seconds);
	answer_count("bad", load->bad);
	answer_count("connections", load->connections);
	answer_count("connects", load->connects);
	answer_count("rate", load->rate);
	answer_number("overhead_seconds", (double)load->clock_reads * clock_cost_ns() / 1e9);
	histogram_answer(&load->times);
	answer_end();
}

static bool prepare(struct load *load, const char *target, const char *path)
{
	char host[64];
	unsigned int port;
	if (sscanf(target, "%63[0-9.]:%u", host, &port) != 2 || port == 0 || port > 65535 ||
	    inet_pton(AF_INET, host, &load->address.sin_addr) != 1)
		return false;
	load->address.sin_family = AF_INET;
	load->address.sin_port = htons((uint16_t)port);
	int length = snprintf(load->request, sizeof(load->request),
		"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: proa-probe\r\nAccept: */*\r\n\r\n", path, target);
	load->request_length = (size_t)length;
	return length > 0 && (size_t)length < sizeof(load->request) && !strpbrk(path, " \r\n");
}

int load_main(int count, char **arguments)
{
	static struct load load = { .connections = 8, .ms = 300 };
	const char *path = "/";
	const struct option options[] = {
		{ "connections", NULL, &load.connections, 1, CONNECTIONS_MAX },
		{ "ms", NULL, &load.ms, 1, 600000 },
		{ "rate", NULL, &load.rate, 0, 10000000 },
		{ "path", &path, NULL, 0, 0 },
	};
	if (count < 1 || !options_read(count - 1, arguments + 1, options, 4) || !prepare(&load, arguments[0], path)) {
		fputs("usage: proa-probe load IPV4:PORT [connections=N] [ms=N] [rate=N] [path=/...]\n", stderr);
		return 2;
	}
	struct asker *askers = calloc(load.connections, sizeof(*askers));
	load.poll = epoll_create1(EPOLL_CLOEXEC);
	for (uint64_t i = 0; askers && i < load.connections; i++)
		if (!open_asker(&load, &askers[i]))
			return fail("no connection", "the target takes no connection", errno);
	if (!askers || load.poll < 0)
		return fail("no memory", "no room for the connections", errno);
	load.begin = load.next_due = now_ns();
	load.until = load.begin + load.ms * 1000000;
	if (!run(&load, askers))
		return fail("no answer", "the target stopped answering", errno);
	answer(&load);
	free(askers);
	return 0;
}
