/* Verbs about the kernel a place has: its name, its settings and, in a vm, its very own things. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "verbs.h"

#define ENTROPY_MAX 512         /* bytes in one step */
#define SYSCTL_MAX 256

VERB(hostname)
{
	(void)context, (void)argc;
	return sethostname(argv[0], strlen(argv[0]));
}

/* As sysctl(8): dots separate, unless a slash comes first; then a dot is part of a name. */
VERB(sysctl)
{
	(void)argc;
	char path[SYSCTL_MAX];
	if (snprintf(path, sizeof path, "sys/%s", argv[0]) >= (int)sizeof path)
		return verb_fail(context, argv[0], ENAMETOOLONG);
	char *first = strpbrk(path + 4, "./");
	if (first && *first == '.')
		for (char *c = first; *c; c++)
			*c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
	return proc_write(path, argv[1]);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *found = c ? strchr(digits, c | 0x20) : NULL;
	return found ? (int)(found - digits) : -1;
}

static int parse_hex(const char *text, unsigned char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return -1;
		bytes[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

VERB(entropy)
{
	(void)argc;
	uint32_t pool[2 + ENTROPY_MAX / 4];     /* struct rand_pool_info: bits, bytes, then these */
	size_t length = strlen(argv[0]) / 2;
	if (length == 0 || length > ENTROPY_MAX || argv[0][2 * length] != '\0'
	    || parse_hex(argv[0], (unsigned char *)&pool[2], length) < 0)
		return verb_fail(context, "(hex)", EINVAL);
	pool[0] = (uint32_t)length * 8;
	pool[1] = (uint32_t)length;
	context->failed = "/dev/urandom";
	int random = path_open("/dev/urandom", O_WRONLY, 0);
	if (random < 0)
		return -1;
	int result = ioctl(random, RNDADDENTROPY, pool);
	if (result == 0)
		result = ioctl(random, RNDRESEEDCRNG);
	explicit_bzero(pool, sizeof pool);
	return close_with(random, result);
}

VERB(clock)
{
	(void)argc;
	long long nanoseconds;
	if (verb_number(context, argv[0], 0, INT64_MAX, &nanoseconds) < 0)
		return -1;
	struct timespec now = {
		.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000),
	};
	return clock_settime(CLOCK_REALTIME, &now);
}

VERB(module)
{
	(void)context, (void)argc;
	int file = path_open(argv[0], O_RDONLY, 0);
	if (file < 0)
		return -1;
	int result = (int)syscall(SYS_finit_module, file, "", 0);
	if (result < 0 && errno == EEXIST)
		result = 0;
	return close_with(file, result);
}

bool place_pinned;

/* The descriptor stays open on purpose: with init holding the mount namespace of a process, nothing in
 * it is unmounted at its end, which takes a while and is of no use to files that are thrown away. */
VERB(pin)
{
	(void)argc;
	long long pid;
	char path[64];
	if (verb_number(context, argv[0], 1, INT32_MAX, &pid) < 0)
		return -1;
	snprintf(path, sizeof path, "/proc/%lld/ns/mnt", pid);
	place_pinned = open(path, O_RDONLY | O_CLOEXEC) >= 0;
	return place_pinned ? 0 : -1;
}

VERB(swap)
{
	(void)context, (void)argc;
	return swapon(argv[0], 0);
}
