/* Verbs that configure network interfaces, by ioctl: see netdevice(7). */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "verbs.h"

#define MTU_MAX 65535

static void set_address(struct sockaddr *to, struct in_addr address)
{
	struct sockaddr_in internet = { .sin_family = AF_INET, .sin_addr = address };
	memcpy(to, &internet, sizeof internet);
}

static int name_request(struct context *context, struct ifreq *request, const char *name)
{
	size_t length = strlen(name);
	if (length == 0 || length >= IFNAMSIZ)
		return verb_fail(context, name, EINVAL);
	memset(request, 0, sizeof *request);
	memcpy(request->ifr_name, name, length);
	return 0;
}

static int set_up(int control, struct ifreq *request, bool up)
{
	if (ioctl(control, SIOCGIFFLAGS, request) < 0)
		return -1;
	if (!(request->ifr_flags & IFF_UP) == !up)
		return 0;
	request->ifr_flags = (short)(request->ifr_flags ^ IFF_UP);
	return ioctl(control, SIOCSIFFLAGS, request);
}

/* Renames the interface; the request names the new one afterwards. */
static int rename_interface(struct context *context, int control, struct ifreq *request, const char *name)
{
	struct ifreq renamed;
	if (strcmp(request->ifr_name, name) == 0)
		return 0;
	if (name_request(context, &renamed, name) < 0)
		return -1;
	if (set_up(control, request, false) < 0)
		return -1;      /* one that is up keeps its name */
	memcpy(request->ifr_newname, name, strlen(name) + 1);
	if (ioctl(control, SIOCSIFNAME, request) < 0)
		return -1;
	*request = renamed;
	return 0;
}

static int set_mac(struct context *context, int control, struct ifreq *request, const char *text)
{
	unsigned char *mac = (unsigned char *)request->ifr_hwaddr.sa_data;
	int used = 0;
	if (*text == '\0')
		return 0;
	int got = sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n",
			 &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &used);
	if (got != 6 || text[used] != '\0')
		return verb_fail(context, text, EINVAL);
	request->ifr_hwaddr.sa_family = ARPHRD_ETHER;
	return ioctl(control, SIOCSIFHWADDR, request);
}

static int set_prefix(struct context *context, int control, struct ifreq *request, const char *text)
{
	char address[INET_ADDRSTRLEN];
	struct in_addr internet, mask;
	long long bits;
	const char *slash = strchr(text, '/');
	if (*text == '\0')
		return 0;
	if (!slash || (size_t)(slash - text) >= sizeof address)
		return verb_fail(context, text, EINVAL);
	snprintf(address, sizeof address, "%.*s", (int)(slash - text), text);
	if (inet_pton(AF_INET, address, &internet) != 1)
		return verb_fail(context, text, EINVAL);
	if (verb_number(context, slash + 1, 0, 32, &bits) < 0)
		return -1;
	mask.s_addr = htonl(bits ? ~0u << (32 - bits) : 0);
	set_address(&request->ifr_addr, internet);
	if (ioctl(control, SIOCSIFADDR, request) < 0)
		return -1;
	set_address(&request->ifr_netmask, mask);
	return ioctl(control, SIOCSIFNETMASK, request);
}

static int set_mtu(struct context *context, int control, struct ifreq *request, const char *text)
{
	long long mtu;
	if (verb_number(context, text, 0, MTU_MAX, &mtu) < 0)
		return -1;
	request->ifr_mtu = (int)mtu;
	return mtu == 0 ? 0 : ioctl(control, SIOCSIFMTU, request);
}

VERB(interface)
{
	(void)argc;
	struct ifreq request;
	if (name_request(context, &request, argv[0]) < 0)
		return -1;
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (control < 0)
		return -1;
	int result = rename_interface(context, control, &request, argv[1]);
	if (result == 0)
		result = set_mac(context, control, &request, argv[2]);
	if (result == 0)
		result = set_mtu(context, control, &request, argv[4]);
	if (result == 0)
		result = set_prefix(context, control, &request, argv[3]);
	if (result == 0)
		result = set_up(control, &request, true);
	return close_with(control, result);
}

VERB(route)
{
	(void)argc;
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	struct in_addr gateway, any = { .s_addr = INADDR_ANY };
	if (inet_pton(AF_INET, argv[0], &gateway) != 1)
		return verb_fail(context, argv[0], EINVAL);
	set_address(&route.rt_dst, any);
	set_address(&route.rt_genmask, any);
	set_address(&route.rt_gateway, gateway);
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (control < 0)
		return -1;
	return close_with(control, ioctl(control, SIOCADDRT, &route));
}
