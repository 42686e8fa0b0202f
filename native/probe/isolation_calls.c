/* Which system calls get through to the kernel: none of them is made.
 *
 * Every call is issued with a mark in its last argument, under a filter of our own that hands marked calls
 * to a supervisor (seccomp_unotify(2)), which answers instead of the kernel.  A filter further out that
 * refuses has the last word before ours: its error comes back, and that is the only other answer there is. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isolation.h"

#define MARK 0x50524f41u
#define THROUGH EOWNERDEAD      /* the supervisor's answer; no filter gives it */
#define NUMBERS 470             /* Linux 6.17 has 469 */
#define GAP_FIRST 335           /* up to 423 there are none, but for arm64's below 295 */
#define GAP_LAST 423

static const struct {
	const char *name;
	int number;
} notable[] = {
	{ "mount", SYS_mount }, { "unshare", SYS_unshare }, { "setns", SYS_setns }, { "bpf", SYS_bpf },
	{ "keyctl", SYS_keyctl }, { "ptrace", SYS_ptrace }, { "userfaultfd", SYS_userfaultfd },
	{ "perf_event_open", SYS_perf_event_open }, { "io_uring_setup", SYS_io_uring_setup },
	{ "kexec_load", SYS_kexec_load }, { "init_module", SYS_init_module }, { "fsopen", SYS_fsopen },
	{ "open_by_handle_at", SYS_open_by_handle_at }, { "move_mount", SYS_move_mount },
	{ "pivot_root", SYS_pivot_root }, { "clone3", SYS_clone3 }, { "syslog", SYS_syslog },
	{ "reboot", SYS_reboot }, { "swapon", SYS_swapon }, { "quotactl", SYS_quotactl },
	{ "process_vm_writev", SYS_process_vm_writev }, { "add_key", SYS_add_key },
};

static int listener;

/* Asks what a call would come to: THROUGH, or the error of a filter. */
static int ask_call(long number, long first)
{
	return syscall(number, first, 0, 0, 0, 0, MARK) < 0 ? errno : 0;
}

static void *supervise(void *unused)
{
	struct seccomp_notif call;
	for (;;) {
		memset(&call, 0, sizeof(call));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0 && errno != EINTR)
			return unused;
		struct seccomp_notif_resp reply = { .id = call.id, .error = -THROUGH };
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
	}
}

/* Only this thread is filtered, so the supervisor, which is started before, is not. */
static bool listen_to_marked(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(*code), code };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	return listener >= 0;
}

static bool goes_through(long number)
{
	return ask_call(number, 0) == THROUGH || ask_call(number, 1) == THROUGH;
}

/* The thread waits for the filter of the other: a pipe's byte. */
static int ready[2];
static void *wait_and_supervise(void *unused)
{
	char byte;
	return read(ready[0], &byte, 1) == 1 ? supervise(unused) : unused;
}

static void ask_calls(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	pthread_t thread;
	unsigned int through = 0, all = 0;
	char named[500] = "";
	if (pipe(ready) < 0 || pthread_create(&thread, NULL, wait_and_supervise, NULL) != 0 || !listen_to_marked()) {
		untried(finding, "no filter of our own can be set: %s", error_name(errno));
		return;
	}
	if (write(ready[1], "", 1) != 1)
		return;
	for (long number = 0; number < NUMBERS; number++)
		if (number < GAP_FIRST || number > GAP_LAST) {
			all++;
			through += goes_through(number);
		}
	for (size_t i = 0; i < sizeof(notable) / sizeof(*notable); i++)
		if (goes_through(notable[i].number))
			add_word(named, sizeof(named), notable[i].name);
	fact(finding, "through", "%u", through);
	fact(finding, "all", "%u", all);
	fact(finding, "notable", "%s", named);
	partly(finding, 1 - (double)through / all, "%u of %u calls get through to the kernel%s%s", through, all,
	       *named ? ", among them " : "", named);
	if (through == all)
		finding->outcome = "open";
}

/* The calls of 32-bit programs have other numbers, which a filter may have forgotten. */
static void ask_compat(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
#ifdef __x86_64__
	int status;
	pid_t child = fork();
	if (child == 0) {
		long result;
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
		_exit(result == getpid() ? 42 : 1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 42)
		opened(finding, "getpid of a 32-bit program (int 0x80) is answered");
	else
		closed(finding, "getpid of a 32-bit program (int 0x80) is %s",
		       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "refused");
#else
	closed(finding, "a 64-bit program of this processor cannot make a 32-bit call");
#endif
}

static void ask_identity(struct finding *finding, const struct inquiry *inquiry)
{
	(void)inquiry;
	struct utsname name;
	char boot[64] = "";
	uname(&name);
	read_start("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	fact(finding, "boot", "%s", boot);
	fact(finding, "release", "%s", name.release);
	fact(finding, "version", "%s", name.version);
	opened(finding, "%s %s, boot %s", name.sysname, name.release, boot);
}

static const struct inquiry table[] = {
	{ "kernel.identity", ask_identity, NULL },
	{ "kernel.calls", ask_calls, NULL },
	{ "kernel.compat", ask_compat, NULL },
};
const struct inquiries kernel_inquiries = INQUIRIES(table);
