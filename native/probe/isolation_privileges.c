/* Rights: which there are, over what, and whether more can be had. */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isolation.h"

/* Each of these has opened a container by itself (man 7 capabilities; Docker grants none by default). */
static void ask_capabilities(struct finding *finding, const struct inquiry *inquiry)
{
	static const struct {
		int number;
		const char *name;
	} strong[] = {
		{ CAP_SYS_ADMIN, "SYS_ADMIN" }, { CAP_SYS_MODULE, "SYS_MODULE" }, { CAP_SYS_RAWIO, "SYS_RAWIO" },
		{ CAP_SYS_PTRACE, "SYS_PTRACE" }, { CAP_SYS_BOOT, "SYS_BOOT" }, { CAP_SYS_TIME, "SYS_TIME" },
		{ CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH" }, { CAP_NET_ADMIN, "NET_ADMIN" }, { CAP_SYSLOG, "SYSLOG" },
		{ CAP_BPF, "BPF" }, { CAP_PERFMON, "PERFMON" }, { CAP_MAC_ADMIN, "MAC_ADMIN" },
		{ CAP_MAC_OVERRIDE, "MAC_OVERRIDE" }, { CAP_LINUX_IMMUTABLE, "LINUX_IMMUTABLE" },
	};
	char set[64] = "";
	line_of("/proc/self/status", inquiry->about, set, sizeof(set));
	uint64_t had = strtoull(set, NULL, 16);
	char names[400] = "";
	unsigned int found = 0;
	for (size_t i = 0; i < sizeof(strong) / sizeof(*strong); i++)
		if (had >> strong[i].number & 1) {
			add_word(names, sizeof(names), strong[i].name);
			found++;
		}
	if (found > 0)
		partly(finding, found > 4 ? 0 : 0.5 - found * 0.1, "%d, with %s", __builtin_popcountll(had), names);
	else if (had != 0)
		partly(finding, 0.8, "%d capabilities, none of the strong ones", __builtin_popcountll(had));
	else
		closed(finding, "none");
	if (found > 4)
		finding->outcome = "open";
}

static void ask_root(struct finding *finding, const struct inquiry *inquiry)
{
	unsigned int inside = 0, outside = 0, count = 0;
	char text[64] = "";
	read_start(inquiry->about, text, sizeof(text));
	if (sscanf(text, "%u %u %u", &inside, &outside, &count) != 3)
		untried(finding, "%s does not answer", inquiry->about);
	else if (inside == outside && count > 1u << 31)
		opened(finding, "no user namespace: user %u here is user %u of the kernel", geteuid(), geteuid());
	else
		closed(finding, "user 0 here is user %u of the kernel, %u ids of its own", outside, count);
	fact(finding, "user", "%u", geteuid());
}

/* `about` names a line of /proc/self/status that should not be 0. */
static void ask_status(struct finding *finding, const struct inquiry *inquiry)
{
	char value[64] = "";
	line_of("/proc/self/status", inquiry->about, value, sizeof(value));
	if (*value == '\0' || strcmp(value, "0") == 0)
		opened(finding, "%s is %s in /proc/self/status", inquiry->about, *value ? value : "not there");
	else
		closed(finding, "%s is %s in /proc/self/status", inquiry->about, value);
}

static void ask_userns(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	by_result(finding, "unshare of a user namespace, which gives all capabilities within", unshare(CLONE_NEWUSER));
}

static void ask_namespaces(struct finding *finding, const struct inquiry *inquiry)
{
	char names[] = "pid user mnt uts ipc net cgroup time", path[64];
	struct stat status;
	(void)inquiry;
	for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
		if (stat(path, &status) == 0)
			fact(finding, name, "%lu", (unsigned long)status.st_ino);
	}
	opened(finding, "their numbers are for the host's side to compare");
}

static void ask_label(struct finding *finding, const struct inquiry *inquiry)
{
	char text[128] = "";
	if (read_start(inquiry->about, text, sizeof(text)) > 0 && strcmp(text, "unconfined") != 0 && strncmp(text, "kernel", 6) != 0)
		closed(finding, "%s says %s", inquiry->about, text);
	else
		opened(finding, "no label of AppArmor or SELinux: %s says %s", inquiry->about, *text ? text : "nothing");
}

/* Changing the flags of a mount where there is none: refused for want of the right, or as senseless. */
static void ask_mount(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, "mount", mount("none", inquiry->about, NULL, MS_REMOUNT | MS_BIND, NULL));
}

/* A tick no clock has: the right is looked at first. */
static void ask_clock(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	struct timex change = { .modes = ADJ_TICK, .tick = 1 };
	by_result(finding, "adjtimex", adjtimex(&change));
}

static void ask_ptrace(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	pid_t child = fork_bound();
	if (child == 0) {
		pause();
		_exit(0);
	}
	long result = ptrace(PTRACE_SEIZE, child, 0, 0);
	int error = errno;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	errno = error;
	if (result == 0)
		partly(finding, 0.5, "a process of one's own can be traced; it has no more rights than the tracer");
	else
		closed(finding, "ptrace: %s", error_name(error));
}

static void ask_ports(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
#ifdef SYS_iopl
	by_result(finding, "iopl", syscall(SYS_iopl, 3));       /* of this process, which ends without using it */
#else
	closed(finding, "this processor has no I/O ports");
#endif
}

static const struct inquiry table[] = {
	{ "privileges.effective", ask_capabilities, "CapEff" },
	{ "privileges.bounding", ask_capabilities, "CapBnd" },
	{ "privileges.root", ask_root, "/proc/self/uid_map" },
	{ "privileges.no-new", ask_status, "NoNewPrivs" },
	{ "privileges.filter", ask_status, "Seccomp" },
	{ "privileges.label", ask_label, "/proc/self/attr/current" },
	{ "privileges.userns", ask_userns, NULL },
	{ "privileges.namespaces", ask_namespaces, NULL },
	{ "privileges.mount", ask_mount, "/proc/self/task" },
	{ "privileges.clock", ask_clock, NULL },
	{ "privileges.ptrace", ask_ptrace, NULL },
	{ "privileges.ports", ask_ports, NULL },
	{ "privileges.cgroups", ask_writable, "/sys/fs/cgroup/cgroup.procs" },
};
const struct inquiries privilege_inquiries = INQUIRIES(table);
