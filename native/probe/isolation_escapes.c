/* The first steps of escapes that were published, each only as far as it does nothing: what would come next is
 * not done.  Names and sources of all are in src/proa/compare/isolation/inquiries.py. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/kexec.h>
#include <linux/keyctl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "isolation.h"

static bool same_file(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Programs that run here but are not of these files: the engine's own.  Can one be opened as a writer? */
static void ask_programs(struct finding *finding, const struct inquiry *inquiry)
{
	char link[300], target[PATH_MAX], foreign[300] = "", writable[300] = "";
	struct stat running, ours;
	DIR *directory = opendir(inquiry->about);
	for (struct dirent *entry; directory && (entry = readdir(directory)); ) {
		snprintf(link, sizeof(link), "%s/%s/exe", inquiry->about, entry->d_name);
		ssize_t length = isdigit((unsigned char)*entry->d_name) ? readlink(link, target, sizeof(target) - 1) : -1;
		if (length < 0 || stat(link, &running) < 0)
			continue;
		target[length] = '\0';
		if (stat(target, &ours) == 0 && same_file(&running, &ours))
			continue;
		add_word(foreign, sizeof(foreign), target);
		int file = open(link, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (file >= 0 || errno == ETXTBSY)
			add_word(writable, sizeof(writable), target);
		if (file >= 0)
			close(file);
	}
	if (*writable)
		opened(finding, "programs from outside can be opened for writing: %s", writable);
	else if (*foreign)
		partly(finding, 0.8, "programs from outside run here, none can be written: %s", foreign);
	else
		closed(finding, "every program that runs here is of these files");
}

/* Directories and devices left open, a directory of work that is outside of the root. */
static void ask_descriptors(struct finding *finding, const struct inquiry *inquiry)
{
	char path[300], target[PATH_MAX], found[500] = "";
	struct stat status, root;
	DIR *directory = opendir(inquiry->about);
	stat("/", &root);
	for (struct dirent *entry; directory && (entry = readdir(directory)); ) {
		int number = atoi(entry->d_name);
		snprintf(path, sizeof(path), "%s/%s", inquiry->about, entry->d_name);
		ssize_t length = readlink(path, target, sizeof(target) - 1);
		if (!isdigit((unsigned char)*entry->d_name) || number == dirfd(directory) || length < 0 || fstat(number, &status) < 0)
			continue;
		target[length] = '\0';
		if (number > 2 || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode))
			add_word(found, sizeof(found), target);
	}
	if (!getcwd(target, sizeof(target)) || *target != '/')
		add_word(found, sizeof(found), "a directory of work outside of the root");
	if (*found)
		opened(finding, "inherited: %s", found);
	else
		closed(finding, "no descriptor beside standard input, output and error was inherited");
}

/* A root other than ours behind /proc/PID/root leads out. */
static void ask_roots(struct finding *finding, const struct inquiry *inquiry)
{
	char path[300], found[300] = "";
	struct stat root, other;
	DIR *directory = opendir(inquiry->about);
	stat("/", &root);
	for (struct dirent *entry; directory && (entry = readdir(directory)); ) {
		snprintf(path, sizeof(path), "%s/%s/root/.", inquiry->about, entry->d_name);
		if (isdigit((unsigned char)*entry->d_name) && stat(path, &other) == 0 && !same_file(&root, &other))
			add_word(found, sizeof(found), path);
	}
	if (*found)
		opened(finding, "another root can be entered: %s", found);
	else
		closed(finding, "no process has another root than this one");
}

static void ask_release_agent(struct finding *finding, const struct inquiry *inquiry)
{
	char text[1024], path[600], *point;
	FILE *file = fopen("/proc/self/mounts", "re");
	while (file && fgets(text, sizeof(text), file))
		if (strstr(text, " cgroup ") && (point = strchr(text, ' ')) && sscanf(point, "%500s", path) == 1) {
			strcat(path, "/release_agent");
			if (access(path, W_OK) == 0) {
				opened(finding, "%s can be written", path);
				return;
			}
		}
	if (unshared(CLONE_NEWNS | CLONE_NEWCGROUP))
		partly(finding, 0.5, "no %s can be written, but a namespace in which one could be mounted can be made", inquiry->about);
	else
		closed(finding, "no %s can be written; namespaces: %s", inquiry->about, error_name(errno));
}

/* A file system's context, which is closed again, with the rights a new user namespace gives. */
static void ask_fsopen(struct finding *finding, const struct inquiry *inquiry)
{
	bool own = unshared(CLONE_NEWNS);
	char call[64];
	snprintf(call, sizeof(call), "fsopen(\"%s\")%s", inquiry->about, own ? " in a user namespace" : "");
	by_result(finding, call, syscall(SYS_fsopen, inquiry->about, 0));
}

static void ask_netfilter(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	bool own = unshared(CLONE_NEWNET);
	struct {
		struct nlmsghdr header;
		struct nfgenmsg body;
	} question = { { sizeof(question), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0 }, { AF_INET, 0, 0 } };
	char reply[512];
	int channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (channel < 0 || send(channel, &question, sizeof(question), 0) < 0 || recv(channel, reply, sizeof(reply), 0) < 0) {
		closed(finding, "netfilter's socket: %s", error_name(errno));
		return;
	}
	const struct nlmsghdr *header = (const void *)reply;
	const struct nlmsgerr *refused = NLMSG_DATA(header);
	if (header->nlmsg_type == NLMSG_ERROR && refused->error != 0)
		closed(finding, "nf_tables refuses: %s", error_name(-refused->error));
	else
		opened(finding, "nf_tables answers%s", own ? " in a network namespace of one's own" : "");
}

static void ask_packets(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, inquiry->about, socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
}

/* `about` is a list of sockets by which engines are commanded; none is spoken to. */
static void ask_engines(struct finding *finding, const struct inquiry *inquiry)
{
	char paths[600], found[300] = "";
	struct stat status;
	snprintf(paths, sizeof(paths), "%s", inquiry->about);
	for (char *path = strtok(paths, " "); path; path = strtok(NULL, " "))
		if (stat(path, &status) == 0 && S_ISSOCK(status.st_mode))
			add_word(found, sizeof(found), path);
	if (*found)
		opened(finding, "here is %s", found);
	else
		closed(finding, "no engine's socket in any of its usual places");
}

/* Abstract sockets, which belong to the network's namespace, of others than us. */
static void ask_abstract(struct finding *finding, const struct inquiry *inquiry)
{
	char text[400], name[200], found[400] = "";
	FILE *file = fopen(inquiry->about, "re");
	while (file && fgets(text, sizeof(text), file))
		if (sscanf(text, "%*s %*s %*s %*s %*s %*s %*s %199s", name) == 1 && *name == '@')
			add_word(found, sizeof(found), name);
	if (*found)
		opened(finding, "abstract sockets are seen: %s", found);
	else
		closed(finding, "no abstract socket in %s", inquiry->about);
}

/* A handle of our own root is opened: nothing new is reached by it, but the right to guess others is shown. */
static void ask_handle(struct finding *finding, const struct inquiry *inquiry)
{
	struct {
		struct file_handle handle;
		char bytes[MAX_HANDLE_SZ];
	} room = { .handle.handle_bytes = MAX_HANDLE_SZ };
	int mount_id, root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (name_to_handle_at(AT_FDCWD, inquiry->about, &room.handle, &mount_id, 0) < 0)        /* it has none: of nothing */
		room.handle = (struct file_handle){ .handle_bytes = 8, .handle_type = 1 };
	by_result(finding, "open_by_handle_at", open_by_handle_at(root, &room.handle, O_RDONLY | O_CLOEXEC));
}

static void ask_modules(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, inquiry->about, syscall(SYS_finit_module, -1, "", 0));
}

/* More segments than there may be, and flags there are none of. */
static void ask_kexec(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, inquiry->about, syscall(SYS_kexec_load, 0, KEXEC_SEGMENT_MAX + 1, NULL, 0xdead));
}

static void ask_keys(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, inquiry->about, syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
}

static void ask_userfault(struct finding *finding, const struct inquiry *inquiry)
{
	by_result(finding, inquiry->about, syscall(SYS_userfaultfd, O_CLOEXEC | 1));
}

/* The shortest program there is: return 0.  It is attached to nothing. */
static void ask_bpf(struct finding *finding, const struct inquiry *inquiry)
{
	struct bpf_insn code[] = { { BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 }, { BPF_JMP | BPF_EXIT, 0, 0, 0, 0 } };
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2,
		.insns = (uintptr_t)code, .license = (uintptr_t)"GPL" };
	by_result(finding, inquiry->about, syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load)));
}

static void ask_perf(struct finding *finding, const struct inquiry *inquiry)
{
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event),
		.config = PERF_COUNT_SW_CPU_CLOCK, .disabled = 1, .exclude_kernel = 1 };
	by_result(finding, inquiry->about, syscall(SYS_perf_event_open, &event, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

static void ask_uring(struct finding *finding, const struct inquiry *inquiry)
{
	struct io_uring_params parameters = { 0 };
	by_result(finding, inquiry->about, syscall(SYS_io_uring_setup, 1, &parameters));
}

/* Done to a file of our own in memory: does a page spliced into a used pipe take what is written behind it? */
static void ask_dirty_pipe(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	static char page[4096];
	char byte = 0, path[64];
	int ends[2], file = memfd_create("probe", MFD_CLOEXEC);
	loff_t at = 0;
	if (file < 0 || pipe(ends) < 0 || write(file, "aaaa", 4) != 4)
		return;
	int size = fcntl(ends[1], F_GETPIPE_SZ);
	for (int done = 0; done < size; done += (int)sizeof(page))
		if (write(ends[1], page, sizeof(page)) < 0 || read(ends[0], page, sizeof(page)) < 0)
			return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	int reader = open(path, O_RDONLY | O_CLOEXEC);
	if (reader < 0 || splice(reader, &at, ends[1], NULL, 1, 0) != 1 || write(ends[1], "b", 1) != 1
	    || pread(file, &byte, 1, 1) != 1)
		untried(finding, "the trial did not work: %s", error_name(errno));
	else if (byte == 'b')
		opened(finding, "a file that was opened for reading was written through a pipe");
	else
		closed(finding, "a file that was opened for reading was not written through a pipe");
}

#define ENGINES "/var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock /run/podman/podman.sock " \
	"/run/crio/crio.sock /run/proa/proa.sock /run/k3s/containerd/containerd.sock /var/lib/incus/unix.socket"

static const struct inquiry table[] = {
	{ "escapes.programs", ask_programs, "/proc" },
	{ "escapes.descriptors", ask_descriptors, "/proc/self/fd" },
	{ "escapes.roots", ask_roots, "/proc" },
	{ "escapes.release-agent", ask_release_agent, "release_agent" },
	{ "escapes.fsconfig", ask_fsopen, "ext4" },
	{ "escapes.overlay", ask_fsopen, "overlay" },
	{ "escapes.netfilter", ask_netfilter, NULL },
	{ "escapes.packets", ask_packets, "a raw packet socket" },
	{ "escapes.core-pattern", ask_writable, "/proc/sys/kernel/core_pattern" },
	{ "escapes.modprobe", ask_writable, "/proc/sys/kernel/modprobe" },
	{ "escapes.sysrq", ask_writable, "/proc/sysrq-trigger" },
	{ "escapes.uevent-helper", ask_writable, "/sys/kernel/uevent_helper" },
	{ "escapes.binfmt", ask_writable, "/proc/sys/fs/binfmt_misc/register" },
	{ "escapes.engine-socket", ask_engines, ENGINES },
	{ "escapes.abstract-sockets", ask_abstract, "/proc/net/unix" },
	{ "escapes.handles", ask_handle, "/" },
	{ "escapes.modules", ask_modules, "finit_module of no file" },
	{ "escapes.kexec", ask_kexec, "kexec_load of nothing" },
	{ "escapes.keys", ask_keys, "keyctl" },
	{ "escapes.userfault", ask_userfault, "userfaultfd" },
	{ "escapes.bpf", ask_bpf, "bpf" },
	{ "escapes.perf", ask_perf, "perf_event_open" },
	{ "escapes.uring", ask_uring, "io_uring_setup" },
	{ "escapes.dirty-pipe", ask_dirty_pipe, NULL },
};
const struct inquiries escape_inquiries = INQUIRIES(table);
