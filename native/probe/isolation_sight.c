/* What is learnt here of the machine and of others on it.  What equals the host's own is for its side to tell. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "isolation.h"

/* `about`: a file and the beginning of a line in it, apart by a '|'. */
static void ask_line(struct finding *finding, const struct inquiry *inquiry)
{
	char path[64], value[300];
	snprintf(path, sizeof(path), "%.*s", (int)strcspn(inquiry->about, "|"), inquiry->about);
	if (line_of(path, strchr(inquiry->about, '|') + 1, value, sizeof(value))) {
		fact(finding, "value", "%s", value);
		opened(finding, "%s says '%s'", path, value);
	} else {
		closed(finding, "%s does not answer", path);
	}
}

static void ask_names(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	struct utsname name;
	uname(&name);
	fact(finding, "value", "%s", name.nodename);
	opened(finding, "it is called '%s'", name.nodename);
}

/* Name and blocks of each disk, as one word each. */
static void ask_disks(struct finding *finding, const struct inquiry *inquiry)
{
	char text[256], name[64], word[120], all[600] = "";
	unsigned long blocks;
	FILE *file = fopen(inquiry->about, "re");
	while (file && fgets(text, sizeof(text), file))
		if (sscanf(text, "%*u %*u %lu %63s", &blocks, name) == 2) {
			snprintf(word, sizeof(word), "%s=%lu", name, blocks);
			add_word(all, sizeof(all), word);
		}
	fact(finding, "value", "%s", all);
	if (*all)
		opened(finding, "%s lists %s", inquiry->about, all);
	else
		closed(finding, "%s lists nothing", inquiry->about);
}

/* Reads the kernel's log without taking anything from it. */
static void ask_log(struct finding *finding, const struct inquiry *inquiry)
{
	char text[256];
	int error = klogctl(3, text, sizeof(text)) > 0 ? 0 : errno;
	if (error == 0 || read_start(inquiry->about, text, sizeof(text)) > 0)
		opened(finding, "it can be read by %s", error == 0 ? "syslog(2)" : inquiry->about);
	else
		closed(finding, "syslog(2): %s; %s: %s", error_name(error), inquiry->about, error_name(errno));
}

struct mounted {
	char root[300], point[300], kind[32], upper[300];
};

/* The next mount that is not made up by the kernel, nor brings this program. */
static bool next_mount(FILE *file, struct mounted *mount)
{
	char text[4096], *option;
	while (file && fgets(text, sizeof(text), file)) {
		*mount->upper = '\0';
		option = strstr(text, " - ");
		if (!option || sscanf(text, "%*s %*s %*s %299s %299s", mount->root, mount->point) != 2
		    || sscanf(option, " - %31s", mount->kind) != 1
		    || strstr("proc sysfs tmpfs devtmpfs devpts mqueue cgroup cgroup2 nsfs securityfs pstore bpf binfmt_misc "
			      "hugetlbfs debugfs tracefs configfs fusectl efivarfs autofs ramfs", mount->kind)
		    || strncmp(mount->point, "/.proa", 6) == 0 || strcmp(mount->point, "/dev/.shares") == 0)
			continue;
		option = strstr(text, "upperdir=");
		if (option)
			sscanf(option + 9, "%299[^, \n]", mount->upper);
		return true;
	}
	return false;
}

/* Paths of where mounts come from: a root that is not the file system's, the top of an overlay. */
static void ask_mounts(struct finding *finding, const struct inquiry *inquiry)
{
	struct mounted mount;
	char all[600] = "";
	for (FILE *file = fopen(inquiry->about, "re"); next_mount(file, &mount); ) {
		if (mount.root[1] != '\0')
			add_word(all, sizeof(all), mount.root);
		if (*mount.upper)
			add_word(all, sizeof(all), mount.upper);
	}
	fact(finding, "value", "%s", all);
	if (*all)
		opened(finding, "mounts come from %s", all);
	else
		closed(finding, "no mount tells where it comes from");
}

/* Directories of somebody else's: of a file system beside the root's, which in a machine may be its own disk,
 * or served from outside. */
static void ask_shares(struct finding *finding, const struct inquiry *inquiry)
{
	struct mounted mount;
	char writable[400] = "", readable[400] = "", served[400] = "";
	for (FILE *file = fopen(inquiry->about, "re"); next_mount(file, &mount); ) {
		if (strcmp(mount.point, "/") == 0 || strncmp(mount.point, "/etc/", 5) == 0)
			continue;
		bool may = access(mount.point, W_OK) == 0;
		add_word(may ? writable : readable, sizeof(writable), mount.point);
		if (strstr("9p virtiofs nfs nfs4 cifs", mount.kind) || strncmp(mount.kind, "fuse", 4) == 0)
			add_word(served, sizeof(served), mount.point);
	}
	fact(finding, "served", "%s", served);
	if (*writable)
		opened(finding, "files from outside can be written at %s", writable);
	else if (*readable)
		partly(finding, 0.5, "files from outside can be read at %s", readable);
	else
		closed(finding, "no directory from outside is mounted");
}

static void ask_processes(struct finding *finding, const struct inquiry *inquiry)
{
	unsigned int count = 0;
	DIR *directory = opendir(inquiry->about);
	for (struct dirent *entry; directory && (entry = readdir(directory)); )
		count += isdigit((unsigned char)entry->d_name[0]) != 0;
	fact(finding, "value", "%u", count);
	opened(finding, "%u processes are seen", count);
}

static void ask_network(struct finding *finding, const struct inquiry *inquiry)
{
	char text[256], address[64], names[300] = "";
	unsigned int count = 0;
	FILE *file = fopen(inquiry->about, "re");
	while (file && fgets(text, sizeof(text), file))
		if (isdigit((unsigned char)text[0]) && sscanf(text, "%63s", address) == 1) {
			add_word(names, sizeof(names), address);
			count++;
		}
	if (count > 1)
		partly(finding, 0.5, "%u neighbours in %s: %s", count, inquiry->about, names);
	else
		closed(finding, "%s in %s beside the gateway", count ? "nobody" : "nobody at all", inquiry->about);
}

/* A clock this fine is what every timing side channel is made of. */
static void ask_clock(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	uint64_t least = UINT64_MAX, before = now_ns(), now;
	for (int i = 0; i < 20000; i++, before = now)
		if ((now = now_ns()) > before && now - before < least)
			least = now - before;
	if (least < 1000)
		opened(finding, "the clock shows steps below a microsecond");
	else
		partly(finding, 0.5, "the finest step of the clock is %u microseconds", (unsigned int)(least / 1000));
}

static const struct inquiry table[] = {
	{ "sight.processor", ask_line, "/proc/cpuinfo|model name" },
	{ "sight.memory", ask_line, "/proc/meminfo|MemTotal" },
	{ "sight.uptime", ask_fact, "/proc/uptime" },
	{ "sight.activity", ask_line, "/proc/stat|processes" },
	{ "sight.disks", ask_disks, "/proc/partitions" },
	{ "sight.hardware", ask_fact, "/sys/class/dmi/id/modalias" },
	{ "sight.command-line", ask_fact, "/proc/cmdline" },
	{ "sight.log", ask_log, "/dev/kmsg" },
	{ "sight.mounts", ask_mounts, "/proc/self/mountinfo" },
	{ "privileges.shares", ask_shares, "/proc/self/mountinfo" },
	{ "sight.processes", ask_processes, "/proc" },
	{ "sight.names", ask_names, NULL },
	{ "sight.neighbours", ask_network, "/proc/net/arp" },
	{ "sight.clock", ask_clock, NULL },
};
const struct inquiries sight_inquiries = INQUIRIES(table);
