/* Devices and kernel files: what is there, what can be opened.  A device is opened for reading only when its
 * opening is known to do nothing; a watchdog, say, would bite after it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "isolation.h"

#define ENOUGH 16       /* that can be opened: more would be no worse */

static unsigned int seen, reached;
static char words[500];

static bool is_ordinary(dev_t device)
{
	unsigned int kind = major(device), which = minor(device);
	return (kind == 1 && which >= 3 && which <= 9 && which != 4 && which != 6) || (kind == 5 && which != 1)
		|| kind == 136;
}

/* Whether the driver of a miscellaneous device is there; else opening would have it loaded. */
static bool is_loaded(dev_t device)
{
	enum { MISCELLANEOUS = 10 };
	unsigned int number;
	char text[128];
	bool found = major(device) != MISCELLANEOUS;
	FILE *file = fopen("/proc/misc", "re");
	while (file && !found && fgets(text, sizeof(text), file))
		found = sscanf(text, "%u", &number) == 1 && number == minor(device);
	if (file)
		fclose(file);
	return found;
}

/* Not of a floppy drive, which would start, nor of a disc, which would be sought. */
static bool is_harmless(const char *path, const struct stat *status)
{
	enum { FLOPPY = 2, DISC = 11 };
	static const char *const names[] = { "mem", "kmsg", "port", "kvm", "fuse", "tun", "loop-control", "btrfs-control",
		"vhost-net", "vhost-vsock", "vsock", "userfaultfd", "udmabuf", "rfkill" };
	const char *name = strrchr(path, '/') + 1;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(name, names[i]) == 0)
			return is_loaded(status->st_rdev);
	return S_ISBLK(status->st_mode) && major(status->st_rdev) != FLOPPY && major(status->st_rdev) != DISC;
}

static int see_node(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)where;
	if (kind != FTW_F || !(S_ISBLK(status->st_mode) || S_ISCHR(status->st_mode)) || is_ordinary(status->st_rdev))
		return 0;
	seen++;
	int file = is_harmless(path, status) ? open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
						      : access(path, R_OK | W_OK);
	if (file >= 0) {
		add_word(words, sizeof(words), path);
		reached++;
	}
	if (file > 0)
		close(file);
	return reached >= ENOUGH;
}

static void ask_nodes(struct finding *finding, const struct inquiry *inquiry)
{
	nftw(inquiry->about, see_node, 8, FTW_PHYS | FTW_MOUNT);
	if (seen == 0)
		closed(finding, "nothing in %s beside null, zero, full, random, urandom and terminals", inquiry->about);
	else if (reached == 0)
		partly(finding, 0.8, "%u further devices in %s, none of which can be opened", seen, inquiry->about);
	else
		opened(finding, "%s%u of %u further devices can be opened: %s", reached < ENOUGH ? "" : "at least ", reached, seen, words);
}

/* A node for the first disk there is: made, opened for reading, not read, removed. */
static void ask_mknod(struct finding *finding, const struct inquiry *inquiry)
{
	static const char *const places[] = { "/dev/shm", "/tmp", "/var/tmp", "/", "/dev" };
	unsigned int kind = 7, which = 0;
	FILE *list = fopen("/proc/partitions", "re");
	char text[256], path[64];
	while (list && fgets(text, sizeof(text), list))
		if (sscanf(text, "%u %u", &kind, &which) == 2)
			break;
	int error = EROFS;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(path, sizeof(path), "%s/.proa-probe-%d", places[i], getpid());
		if (mknod(path, S_IFBLK | 0600, makedev(kind, which)) == 0) {
			int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
			error = errno;
			unlink(path);
			if (file >= 0) {
				opened(finding, "%s of disk %u:%u was made in %s, and opened", inquiry->about, kind, which, places[i]);
				return;
			}
			partly(finding, 0.5, "a node of disk %u:%u can be made, opening it is refused: %s", kind, which,
			       error_name(error));
		} else if (errno != EROFS && errno != ENOENT) {
			error = errno;
		}
	}
	if (strcmp(finding->outcome, "partly") != 0)
		closed(finding, "mknod of disk %u:%u: %s", kind, which, error_name(error));
}

/* Settings of the kernel that no namespace has for itself.  File systems mounted among them are left alone: in
 * those of tracing and debugging, opening alone can do something. */
static bool is_own(const char *path)
{
	static const char *const own[] = { "/proc/sys/net/", "/proc/sys/kernel/shm", "/proc/sys/kernel/msg",
		"/proc/sys/kernel/sem", "/proc/sys/fs/mqueue/", "/proc/sys/user/", "/proc/sys/kernel/hostname",
		"/proc/sys/kernel/domainname", "/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/auto_msgmni" };
	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		if (strncmp(path, own[i], strlen(own[i])) == 0)
			return true;
	return false;
}

static int see_setting(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)where;
	if (kind != FTW_F || !S_ISREG(status->st_mode) || !(status->st_mode & 0222) || is_own(path))
		return 0;
	seen++;
	int file = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (file >= 0) {
		close(file);
		reached++;
		add_word(words, sizeof(words), path);
	}
	return reached >= ENOUGH;
}

static void ask_settings(struct finding *finding, const struct inquiry *inquiry)
{
	nftw(inquiry->about, see_setting, 8, FTW_PHYS | FTW_MOUNT);
	if (reached > 0)
		opened(finding, "%s%u files below %s can be opened for writing: %s", reached < ENOUGH ? "" : "at least ", reached,
		       inquiry->about, words);
	else
		closed(finding, "none of %u files below %s can be opened for writing", seen, inquiry->about);
}

/* Addresses of the kernel's memory: zeros are what those get who may not know. */
static void ask_memory(struct finding *finding, const struct inquiry *inquiry)
{
	static const char *const files[] = { "/proc/kcore", "/proc/kpageflags", "/proc/kpagecount", "/proc/kallsyms", "/proc/iomem" };
	char text[64];
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		ssize_t length = read_start(files[i], text, sizeof(text));
		if (length > 0 && (i < 3 || strspn(text, " 0-") < 8))
			add_word(words, sizeof(words), files[i]);
	}
	if (*words)
		opened(finding, "%s tell of the kernel's memory", words);
	else
		closed(finding, "%s tells of the kernel's memory or where it is", inquiry->about);
}

#define PCI_ID 22       /* the beginning of a modalias: pci:v00008086d0000100E */

static unsigned int list_directory(const char *path, const char *file, char *list, size_t size)
{
	unsigned int count = 0;
	char name[600], text[64];
	DIR *directory = opendir(path);
	for (struct dirent *entry; directory && (entry = readdir(directory)); ) {
		if (entry->d_name[0] == '.')
			continue;
		count++;
		snprintf(name, sizeof(name), "%s/%s/%s", path, entry->d_name, file);
		bool told = *file && read_start(name, text, PCI_ID + 1) > 0;
		add_word(list, size, told ? text : entry->d_name);
	}
	if (directory)
		closedir(directory);
	return count;
}

/* Devices of the machine around; when that is a vm's, its host's programs answer behind each. */
static void ask_machine(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	char cards[500] = "", parts[300] = "";
	unsigned int count = list_directory("/sys/bus/pci/devices", "modalias", cards, sizeof(cards));
	unsigned int others = list_directory("/sys/bus/virtio/devices", "", parts, sizeof(parts));
	fact(finding, "pci", "%u", count);
	fact(finding, "virtio", "%u", others);
	fact(finding, "cards", "%s", cards);
	opened(finding, "%u devices on PCI, %u of virtio", count, others);
}

static void ask_directories(struct finding *finding, const struct inquiry *inquiry)
{
	char paths[400], list[16];
	snprintf(paths, sizeof(paths), "%s", inquiry->about);
	for (char *path = strtok(paths, " "); path; path = strtok(NULL, " ")) {
		*list = '\0';
		if (list_directory(path, "", list, sizeof(list)) > 0)
			add_word(words, sizeof(words), path);
	}
	if (*words)
		opened(finding, "can be listed: %s", words);
	else
		closed(finding, "empty or out of reach: %s", inquiry->about);
}

static const struct inquiry table[] = {
	{ "devices.nodes", ask_nodes, "/dev" },
	{ "devices.mknod", ask_mknod, "a node" },
	{ "devices.settings", ask_settings, "/proc/sys" },
	{ "devices.switches", ask_settings, "/sys/kernel" },
	{ "devices.power", ask_settings, "/sys/power" },
	{ "devices.memory", ask_memory, "no file" },
	{ "devices.tracing", ask_directories, "/sys/kernel/debug /sys/kernel/tracing /sys/fs/bpf /sys/fs/pstore /sys/kernel/security" },
	{ "devices.tables", ask_readable, "/proc/keys /proc/timer_list /proc/slabinfo /proc/vmallocinfo /proc/sched_debug "
		"/proc/modules /proc/interrupts /proc/diskstats /proc/vmstat /proc/locks" },
	{ "devices.firmware", ask_directories, "/sys/firmware/acpi/tables /sys/firmware/dmi/tables /sys/firmware/efi/efivars "
		"/proc/acpi /proc/scsi" },
	{ "devices.machine", ask_machine, NULL },
};
const struct inquiries device_inquiries = INQUIRIES(table);
