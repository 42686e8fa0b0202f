/* Init of a disk made of an image: finds the root by its partition's name and becomes the image's own
 * init, or runs the image's one program, watches over it and turns the machine off after it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "verbs.h"

#define BLOCKS "/sys/class/block"
#define ROOT "/mnt/root"
#define PLAN "/plan"
#define RESOLVER "/dev/.resolv.conf"    /* /dev moves into the root with it */
#define DISK_TRIES 3000                 /* of 10 ms each */
#define GRACE_TRIES 200
#define BUTTONS 16
#define RETRY_SECONDS 60

static const struct timespec moment = { .tv_nsec = 10000000 };

/* A whole small file as a string of the caller's, or NULL. */
static char *read_text(const char *path, size_t *length)
{
	struct stat facts;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return NULL;
	size_t room = fstat(file, &facts) == 0 && facts.st_size > 0 ? (size_t)facts.st_size : 4096;
	char *text = calloc(1, room + 1);
	ssize_t count = text ? read(file, text, room) : -1;
	close(file);
	*length = count < 0 ? 0 : (size_t)count;
	return text;
}

/* ---- the root ---------------------------------------------------------------------------------- */

static bool has_name(const char *block, const char *wanted)
{
	char path[512], line[160];
	size_t length;
	snprintf(path, sizeof path, BLOCKS "/%s/uevent", block);
	snprintf(line, sizeof line, "\nPARTNAME=%s\n", wanted);
	char *facts = read_text(path, &length);
	bool same = facts && strstr(facts, line);
	free(facts);
	return same;
}

/* The device of the partition of this name; false while there is none. */
static bool find_disk(const char *wanted, char device[512])
{
	bool found = false;
	DIR *blocks = opendir(BLOCKS);
	if (!blocks)
		return false;
	for (struct dirent *entry; !found && (entry = readdir(blocks));) {
		found = entry->d_name[0] != '.' && has_name(entry->d_name, wanted);
		if (found)
			snprintf(device, 512, "/dev/%s", entry->d_name);
	}
	closedir(blocks);
	return found;
}

/* Drivers find their disks some time after they were loaded. */
static void mount_root(const char *wanted)
{
	char device[512];
	int tries = 0;
	while (!find_disk(wanted, device)) {
		errno = ENODEV;
		if (++tries > DISK_TRIES)
			init_fatal("no partition named", wanted);
		nanosleep(&moment, NULL);
	}
	if (mount(device, ROOT, "ext4", 0, "") < 0)
		init_fatal("cannot mount", device);
}

/* ---- the network ------------------------------------------------------------------------------- */

static void configure(void)
{
	struct lease lease;
	struct context context = { 0 };
	char none[] = "", keep[] = "0", loopback[] = "lo";
	char *lo[] = { loopback, loopback, none, none, keep };
	verb_interface(&context, 5, lo);
	FILE *resolver = fopen(RESOLVER, "we");
	if (dhcp_ask(&lease)) {
		char *link[] = { lease.interface, lease.interface, none, lease.address, keep };
		char *gateway[] = { lease.gateway };
		if (verb_interface(&context, 5, link) < 0
		    || (*lease.gateway && verb_route(&context, 1, gateway) < 0 && errno != EEXIST))
			fprintf(stderr, "proa: cannot use the address %s: %s\n", lease.address, strerror(errno));
		for (int i = 0; resolver && i < 3 && *lease.servers[i]; i++)
			fprintf(resolver, "nameserver %s\n", lease.servers[i]);
		if (lease.seconds > 1)
			alarm(lease.seconds / 2);       /* then it is asked for again */
	} else if (*lease.interface) {
		fprintf(stderr, "proa: nobody gives %s an address\n", lease.interface);
		alarm(RETRY_SECONDS);
	}
	if (resolver)
		fclose(resolver);
}

/* ---- the program ------------------------------------------------------------------------------- */

/* Ends in the plan's program, or in its failure. */
static _Noreturn void execute(char *bytes, size_t length)
{
	struct plan plan;
	struct failure failure = { 0 };
	struct context context = { .tty_socket = -1, .guest = true };
	plan_open(&plan, bytes, length);
	plan_run(&plan, &context, &failure);
	fprintf(stderr, "proa: %s '%s': %s\n", failure.verb, failure.argument, strerror((int)failure.error));
	_exit(failure.error == ENOENT ? 127 : 126);
}

static volatile sig_atomic_t asked, due;

static void ask(int number)
{
	if (number == SIGALRM)
		due = 1;
	else
		asked = 1;
}

/* The power button of ACPI, pressed when somebody asks the machine to power off, is SIGTERM to us. */
static void watch_button(void)
{
	char path[64], *name;
	size_t length;
	for (int i = 0; i < BUTTONS; i++) {
		snprintf(path, sizeof path, "/sys/class/input/event%d/device/name", i);
		name = read_text(path, &length);
		bool button = name && strcmp(name, "Power Button\n") == 0;
		free(name);
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int device = button ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
		if (device >= 0) {      /* open until the end */
			fcntl(device, F_SETSIG, SIGTERM);
			fcntl(device, F_SETOWN, getpid());
			fcntl(device, F_SETFL, O_ASYNC | O_NONBLOCK);
		}
	}
}

/* Reaps everything until `program` has ended; its status.  Ctrl-Alt-Del and SIGTERM are passed on. */
static int watch_over(pid_t program)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, 0);
		if (pid == program)
			return status;
		if (asked)
			kill(program, SIGTERM);
		asked = 0;
		if (due) {
			due = 0;
			configure();
		}
	}
}

/* What is left gets two seconds to end. */
static void end_everybody(void)
{
	kill(-1, SIGTERM);
	for (int tries = 0; tries < GRACE_TRIES && waitpid(-1, NULL, WNOHANG) >= 0; tries++)
		nanosleep(&moment, NULL);
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		continue;
}

static void run(char *bytes, size_t length)
{
	struct sigaction action = { .sa_handler = ask };
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	reboot(RB_DISABLE_CAD);
	watch_button();
	configure();
	pid_t program = fork();
	if (program < 0)
		init_fatal("cannot fork for", "the program");
	if (program == 0) {
		setsid();
		execute(bytes, length);
	}
	int status = watch_over(program);
	end_everybody();
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	if (WIFSIGNALED(status))
		printf("proa: the command was ended by signal %d\n", WTERMSIG(status));
	else
		printf("proa: the command ended with exit code %d\n", WEXITSTATUS(status));
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
}

/* The kernel has opened the console for us; where it has none, init_kernel opens /dev/null. */
void machine_main(void)
{
	size_t length;
	char name[128] = "", how[16] = "";
	init_kernel();
	char *wanted = read_text(MACHINE, &length), *plan = read_text(PLAN, &length);
	if (!wanted || !plan || sscanf(wanted, "%15s %127s", how, name) != 2)
		init_fatal("cannot read", MACHINE);
	mount_root(name);
	if (strcmp(how, "become") == 0)
		execute(plan, length);
	run(plan, length);
	init_power_off();
}
