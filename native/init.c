/* Init, PID 1 of a vm's guest: mounts, modules, then the agent core on the port to the monitor.
 * It says nothing unless it fails, and makes few system calls: every one is emulated where there is no KVM. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "init.h"
#include "still.h"

#define PORTS "/sys/class/virtio-ports"
#define PORT_NAME "proa.agent"
#define PORT_TRIES 10000        /* milliseconds the port may take to appear */
#define VERSION "1"

static struct agent agent;
static struct channel channel;
static struct still still = { .agent = &agent, .channel = &channel };

_Noreturn void init_power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

_Noreturn void init_fatal(const char *what, const char *argument)
{
	int error = errno, kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	dprintf(kmsg < 0 ? 2 : kmsg, "<2>proa init: %s '%s': %s\n", what, argument, strerror(error));
	init_power_off();
}

/* ---- the machine ------------------------------------------------------------------------------- */

/* The first root of a kernel cannot be pivoted away from; a mount of it can, so that a place is rid of
 * all this when it changes to its own root. */
static void leave_first_root(void)
{
	if (mount("/", "/mnt", NULL, MS_BIND, NULL) < 0 || chdir("/mnt") < 0
	    || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		init_fatal("cannot leave", "the first root");
}

static void mount_kernel_trees(void)
{
	static const struct { const char *kind, *target; } trees[] = {
		{ "devtmpfs", "/dev" }, { "proc", "/proc" }, { "sysfs", "/sys" }, { "cgroup2", "/sys/fs/cgroup" },
	};
	for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++)
		if (mount(trees[i].kind, trees[i].target, trees[i].kind, 0, NULL) < 0 && errno != EBUSY)
			init_fatal("cannot mount", trees[i].target);
}

/* A kernel without a console starts init with nothing open. */
static void open_stdio(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 2);
	if (fd > 2)
		close(fd);
}

/* A driver of another hypervisor's devices refuses: a line with a dash in front says it may. */
static void load_module(const char *path)
{
	bool optional = *path == '-';
	int file = open(path + optional, O_RDONLY | O_CLOEXEC);
	if (file < 0 || (syscall(SYS_finit_module, file, "", 0) < 0 && errno != EEXIST && !optional))
		init_fatal("cannot load the module", path);
	close(file);
}

static void load_modules(void)
{
	char *line = NULL;
	size_t size = 0;
	FILE *list = fopen("/modules", "re");
	if (!list && errno == ENOENT)
		return;
	if (!list)
		init_fatal("cannot read", "/modules");
	for (ssize_t length; (length = getline(&line, &size, list)) > 0;) {
		line[strcspn(line, "\n")] = '\0';
		if (*line)
			load_module(line);
	}
	free(line);
	fclose(list);
}

/* ---- the port ---------------------------------------------------------------------------------- */

static bool is_named(int ports, const char *port)
{
	char path[512], name[sizeof PORT_NAME + 1] = "";
	snprintf(path, sizeof path, "%s/name", port);
	int file = openat(ports, path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	ssize_t length = read(file, name, sizeof name - 1);
	close(file);
	return length == (ssize_t)sizeof PORT_NAME && memcmp(name, PORT_NAME "\n", sizeof PORT_NAME) == 0;
}

int init_find_port(void)
{
	char device[512];
	int port = -1;
	DIR *ports = opendir(PORTS);
	if (!ports)
		return -1;
	for (struct dirent *entry; port < 0 && (entry = readdir(ports));) {
		if (entry->d_name[0] == '.' || !is_named(dirfd(ports), entry->d_name))
			continue;
		snprintf(device, sizeof device, "/dev/%s", entry->d_name);
		port = open(device, O_RDWR | O_CLOEXEC);
	}
	closedir(ports);
	return port;
}

/* The driver learns of its ports from the host, some time after it was loaded. */
static int wait_for_port(void)
{
	static const struct timespec millisecond = { .tv_nsec = 1000000 };
	for (int tries = 0; tries < PORT_TRIES; tries++) {
		int port = init_find_port();
		if (port >= 0)
			return port;
		nanosleep(&millisecond, NULL);
	}
	errno = ENODEV;
	init_fatal("no port named", PORT_NAME);
}

/* ---- serving ----------------------------------------------------------------------------------- */

static void send_frame(struct agent *from, const struct frame *frame, const void *payload)
{
	(void)from;
	channel_send(&channel, frame, payload);
}

static void received(struct channel *from, const struct frame *frame, char *payload, int *fds, int fd_count)
{
	(void)from;
	if (!still_request(&still, frame))
		agent_request(&agent, frame, payload, fds, fd_count);
}

static void lost(struct channel *from)
{
	(void)from;
	init_power_off();
}

static void terminated(struct watch *watch, uint32_t events)
{
	(void)watch, (void)events;
	init_power_off();
}

static void watch_termination(struct watch *watch)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	*watch = (struct watch){ .fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), .ready = terminated };
	watch_set(watch, EPOLLIN);
}

void init_kernel(void)
{
	leave_first_root();
	mount_kernel_trees();
	open_stdio();
	load_modules();
}

void init_main(void)
{
	static struct watch termination;
	init_kernel();
	int port = wait_for_port();
	loop_open();
	agent_init(&agent, send_frame, true);
	watch_termination(&termination);
	channel = (struct channel){ .limit = PLAN_MAX + 64, .received = received, .lost = lost };
	channel_open(&channel, port);
	channel_send(&channel, &(struct frame){ .type = F_HELLO, .length = sizeof VERSION - 1 }, VERSION);
	for (;;)
		loop_wait(-1);
}
