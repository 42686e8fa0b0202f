/* A client of DHCP (RFC 2131), no more than a machine with one program needs: discover, request. */
#include <arpa/inet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "verbs.h"

#define SERVER_PORT 67
#define CLIENT_PORT 68
#define COOKIE 0x63825363u
#define BROADCAST 0x8000
#define TRIES 4                         /* each waits twice as long as the one before */
#define FIRST_WAIT_MS 1000

enum kind { DISCOVER = 1, OFFER, REQUEST, ACK = 5 };
enum option { MASK = 1, ROUTER = 3, NAMES = 6, ADDRESS = 50, LEASE = 51, KIND = 53, SERVER = 54, WANTED = 55, END = 255 };

struct message {
	uint8_t operation, hardware, length, hops;
	uint32_t id;
	uint16_t seconds, flags;
	uint32_t mine, yours, next, relay;
	uint8_t mac[16], server[64], file[128];
	uint32_t cookie;
	uint8_t options[312];
};

/* The first Ethernet interface, and its address of hardware. */
static bool find_interface(int control, char name[IFNAMSIZ], uint8_t mac[6])
{
	bool found = false;
	struct if_nameindex *all = if_nameindex();
	for (struct if_nameindex *one = all; one && one->if_index && !found; one++) {
		struct ifreq request = { 0 };
		snprintf(request.ifr_name, IFNAMSIZ, "%s", one->if_name);
		found = ioctl(control, SIOCGIFHWADDR, &request) == 0
			&& request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
		if (found) {
			memcpy(name, request.ifr_name, IFNAMSIZ);
			memcpy(mac, request.ifr_hwaddr.sa_data, 6);
		}
	}
	if (all)
		if_freenameindex(all);
	return found;
}

static int open_socket(const char *interface)
{
	int yes = 1, udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(CLIENT_PORT) };
	if (udp < 0)
		return -1;
	if (setsockopt(udp, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes) < 0
	    || setsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface) + 1) < 0
	    || bind(udp, (struct sockaddr *)&here, sizeof here) < 0)
		return close_with(udp, -1);
	return udp;
}

static uint8_t *put(uint8_t *at, uint8_t option, const void *value, uint8_t length)
{
	*at++ = option;
	*at++ = length;
	memcpy(at, value, length);
	return at + length;
}

/* The value of an option of at least this length, bounded by the message; NULL without one. */
static const uint8_t *get(const struct message *message, size_t size, uint8_t option, uint8_t least, uint8_t *length)
{
	const uint8_t *at = message->options, *end = (const uint8_t *)message + size;
	while (at < end && *at != END) {
		if (*at == 0) {
			at++;
			continue;
		}
		if (end - at < 2 || end - at - 2 < at[1])
			return NULL;
		if (*at == option && at[1] >= least) {
			*length = at[1];
			return at + 2;
		}
		at += 2 + at[1];
	}
	return NULL;
}

static bool send_message(int udp, const struct message *base, uint8_t kind, const struct message *offer, size_t size)
{
	static const uint8_t wanted[] = { MASK, ROUTER, NAMES, LEASE };
	struct sockaddr_in everybody = {
		.sin_family = AF_INET, .sin_port = htons(SERVER_PORT), .sin_addr.s_addr = INADDR_BROADCAST,
	};
	struct message message = *base;
	uint8_t length, *at = put(message.options, KIND, &kind, 1);
	at = put(at, WANTED, wanted, sizeof wanted);
	if (offer) {
		const uint8_t *server = get(offer, size, SERVER, 4, &length);
		at = put(at, ADDRESS, &offer->yours, 4);
		if (server)
			at = put(at, SERVER, server, 4);
	}
	*at = END;
	return sendto(udp, &message, sizeof message, 0, (struct sockaddr *)&everybody, sizeof everybody) > 0;
}

/* An answer of this kind to our question; its size, 0 when none comes in time. */
static size_t receive(int udp, const struct message *question, uint8_t kind, struct message *answer, int wait_ms)
{
	struct pollfd ready = { .fd = udp, .events = POLLIN };
	for (int strangers = 0; strangers < 64 && poll(&ready, 1, wait_ms) > 0; strangers++) {
		uint8_t length;
		ssize_t size = recv(udp, answer, sizeof *answer, 0);
		if (size < (ssize_t)offsetof(struct message, options) || answer->id != question->id
		    || answer->operation != 2 || answer->cookie != htonl(COOKIE))
			continue;
		const uint8_t *found = get(answer, (size_t)size, KIND, 1, &length);
		if (found && *found == kind)
			return (size_t)size;
	}
	return 0;
}

static void read_lease(const struct message *message, size_t size, struct lease *lease)
{
	uint8_t length;
	uint32_t mask = htonl(0xffffff00u);
	const uint8_t *value = get(message, size, MASK, 4, &length);
	if (value)
		memcpy(&mask, value, 4);
	inet_ntop(AF_INET, &message->yours, lease->address, INET_ADDRSTRLEN);
	size_t end = strlen(lease->address);
	snprintf(lease->address + end, sizeof lease->address - end, "/%d", __builtin_popcount(mask));
	value = get(message, size, ROUTER, 4, &length);
	if (value)
		inet_ntop(AF_INET, value, lease->gateway, sizeof lease->gateway);
	value = get(message, size, NAMES, 4, &length);
	for (int i = 0; value && i < 3 && 4 * (i + 1) <= length; i++)
		inet_ntop(AF_INET, value + 4 * i, lease->servers[i], sizeof lease->servers[i]);
	value = get(message, size, LEASE, 4, &length);
	if (value)
		memcpy(&lease->seconds, value, 4);
	lease->seconds = ntohl(lease->seconds);
}

static bool converse(int udp, const struct message *question, struct lease *lease)
{
	struct message offer, agreed;
	for (int tries = 0, wait = FIRST_WAIT_MS; tries < TRIES; tries++, wait *= 2) {
		send_message(udp, question, DISCOVER, NULL, 0);
		size_t size = receive(udp, question, OFFER, &offer, wait);
		if (size == 0 || !send_message(udp, question, REQUEST, &offer, size))
			continue;
		size = receive(udp, question, ACK, &agreed, wait);
		if (size > 0) {
			read_lease(&agreed, size, lease);
			return true;
		}
	}
	return false;
}

bool dhcp_ask(struct lease *lease)
{
	struct context context = { 0 };
	struct message question = {
		.operation = 1, .hardware = 1, .length = 6, .flags = htons(BROADCAST), .cookie = htonl(COOKIE),
	};
	char none[] = "", keep[] = "0", *link[] = { lease->interface, lease->interface, none, none, keep };
	*lease = (struct lease){ 0 };
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool found = control >= 0 && find_interface(control, lease->interface, question.mac);
	if (control >= 0)
		close(control);
	if (!found || verb_interface(&context, 5, link) < 0)
		return false;
	struct timespec now;            /* there may be no entropy yet, and nothing depends on it */
	clock_gettime(CLOCK_REALTIME, &now);
	memcpy(&question.id, question.mac + 2, sizeof question.id);
	question.id ^= (uint32_t)now.tv_nsec;
	int udp = open_socket(lease->interface);
	bool agreed = udp >= 0 && converse(udp, &question, lease);
	if (udp >= 0)
		close(udp);
	return agreed;
}
