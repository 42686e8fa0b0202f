/* The seccomp filters: `default`, an allow-list after Docker's, as a binary search in BPF, and `machine`, the
 * same without what QEMU has no use for: programs and processes of its own, sockets but Unix ones.
 *
 * What is listed is allowed, what this file knows but does not list fails with EPERM, and what is newer
 * fails with ENOSYS so that programs fall back.  It grants nothing for capabilities: no mount, no new
 * namespaces, no bpf, keyrings, io_uring or userfaultfd, whoever asks. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "verbs.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp list for this architecture"
#endif

#define KNOWN (__NR_set_mempolicy_home_node + 1)        /* Linux 6.1; anything from here on is newer */
#define NEW_NAMESPACES 0x7e020000u      /* CLONE_NEW*, as in clone(2)'s first argument */
#define PROGRAM_MAX 512
#define DENY (SECCOMP_RET_ERRNO | EPERM)
#define MISSING (SECCOMP_RET_ERRNO | ENOSYS)

enum action { DENIED, ALLOWED, ABSENT, CLONE, SOCKET, PERSONALITY, THREAD, UNIX, ONCE };

#define N(name) __NR_##name
static const uint16_t allowed[] = {
	/* files */
	N(read), N(write), N(close), N(fstat), N(lseek), N(pread64), N(pwrite64), N(readv), N(writev),
	N(preadv), N(pwritev), N(preadv2), N(pwritev2), N(dup), N(dup3), N(pipe2), N(fcntl), N(ioctl),
	N(flock), N(fsync), N(fdatasync), N(truncate), N(ftruncate), N(getcwd), N(chdir), N(fchdir),
	N(fchmod), N(fchown), N(umask), N(statfs), N(fstatfs), N(sync), N(syncfs), N(sync_file_range),
	N(readahead), N(fadvise64), N(fallocate), N(openat), N(openat2), N(mkdirat), N(mknodat), N(fchownat),
	N(newfstatat), N(statx), N(unlinkat), N(renameat), N(renameat2), N(linkat), N(symlinkat),
	N(readlinkat), N(fchmodat), N(faccessat), N(faccessat2), N(utimensat), N(close_range),
	N(copy_file_range), N(sendfile), N(splice), N(tee), N(vmsplice), N(getdents64), N(name_to_handle_at),
	N(setxattr), N(lsetxattr), N(fsetxattr), N(getxattr), N(lgetxattr), N(fgetxattr), N(listxattr),
	N(llistxattr), N(flistxattr), N(removexattr), N(lremovexattr), N(fremovexattr), N(fanotify_mark),
	N(inotify_init1), N(inotify_add_watch), N(inotify_rm_watch), N(memfd_create), N(memfd_secret),
	N(io_setup), N(io_destroy), N(io_getevents), N(io_pgetevents), N(io_submit), N(io_cancel), N(chroot),
	/* waiting */
	N(pselect6), N(ppoll), N(epoll_create1), N(epoll_ctl), N(epoll_pwait), N(epoll_pwait2),
	N(eventfd2), N(signalfd4), N(timerfd_create), N(timerfd_settime), N(timerfd_gettime), N(nanosleep),
	N(clock_nanosleep), N(futex), N(futex_waitv), N(set_robust_list), N(get_robust_list), N(rseq),
	/* memory */
	N(mmap), N(mprotect), N(munmap), N(brk), N(mremap), N(msync), N(mincore), N(madvise), N(mlock),
	N(mlock2), N(munlock), N(mlockall), N(munlockall), N(membarrier), N(remap_file_pages),
	N(pkey_mprotect), N(pkey_alloc), N(pkey_free), N(process_mrelease),
	/* signals */
	N(rt_sigaction), N(rt_sigprocmask), N(rt_sigreturn), N(rt_sigpending), N(rt_sigtimedwait),
	N(rt_sigqueueinfo), N(rt_tgsigqueueinfo), N(rt_sigsuspend), N(sigaltstack), N(kill), N(tkill),
	N(tgkill), N(restart_syscall), N(pidfd_open), N(pidfd_send_signal),
	/* processes */
	N(execve), N(execveat), N(exit), N(exit_group), N(wait4), N(waitid), N(getpid), N(getppid),
	N(gettid), N(getpgid), N(setpgid), N(getsid), N(setsid), N(getuid), N(geteuid), N(getgid),
	N(getegid), N(setuid), N(setgid), N(setreuid), N(setregid), N(getgroups), N(setgroups),
	N(setresuid), N(getresuid), N(setresgid), N(getresgid), N(setfsuid), N(setfsgid), N(capget),
	N(capset), N(prctl), N(seccomp), N(getpriority), N(setpriority), N(getrlimit), N(setrlimit),
	N(prlimit64), N(getrusage), N(times), N(sched_yield), N(sched_setparam), N(sched_getparam),
	N(sched_setscheduler), N(sched_getscheduler), N(sched_get_priority_max), N(sched_get_priority_min),
	N(sched_rr_get_interval), N(sched_setaffinity), N(sched_getaffinity), N(sched_setattr),
	N(sched_getattr), N(ioprio_set), N(ioprio_get), N(getcpu), N(set_tid_address), N(ptrace),
	N(process_vm_readv), N(process_vm_writev), N(landlock_create_ruleset), N(landlock_add_rule),
	N(landlock_restrict_self),
	/* time and system */
	N(gettimeofday), N(clock_gettime), N(clock_getres), N(clock_settime), N(clock_adjtime), N(adjtimex),
	N(getitimer), N(setitimer), N(timer_create), N(timer_settime), N(timer_gettime),
	N(timer_getoverrun), N(timer_delete), N(uname), N(sysinfo), N(getrandom),
	/* System V and POSIX objects */
	N(shmget), N(shmat), N(shmctl), N(shmdt), N(semget), N(semop), N(semctl), N(semtimedop), N(msgget),
	N(msgsnd), N(msgrcv), N(msgctl), N(mq_open), N(mq_unlink), N(mq_timedsend), N(mq_timedreceive),
	N(mq_notify), N(mq_getsetattr),
	/* sockets */
	N(socketpair), N(bind), N(listen), N(accept), N(accept4), N(connect), N(getsockname),
	N(getpeername), N(sendto), N(recvfrom), N(setsockopt), N(getsockopt), N(shutdown), N(sendmsg),
	N(recvmsg), N(sendmmsg), N(recvmmsg),
#ifdef __x86_64__
	N(open), N(creat), N(stat), N(lstat), N(access), N(pipe), N(dup2), N(select), N(poll), N(pause),
	N(alarm), N(fork), N(vfork), N(getdents), N(rename), N(mkdir), N(rmdir), N(link), N(unlink),
	N(symlink), N(readlink), N(chmod), N(chown), N(lchown), N(getpgrp), N(utime), N(utimes),
	N(futimesat), N(mknod), N(time), N(epoll_create), N(epoll_wait), N(epoll_ctl_old),
	N(epoll_wait_old), N(eventfd), N(signalfd), N(inotify_init), N(arch_prctl), N(modify_ldt),
	N(get_thread_area), N(set_thread_area),
#endif
};
static const uint16_t withheld[] = {
	N(execve), N(ptrace), N(process_vm_readv), N(process_vm_writev), N(process_mrelease), N(pidfd_open),
	N(pidfd_send_signal), N(chroot), N(memfd_secret), N(name_to_handle_at), N(fanotify_mark),
	N(inotify_init1), N(inotify_add_watch), N(setuid), N(setgid), N(setreuid), N(setregid), N(setgroups),
	N(setresuid), N(setresgid), N(setfsuid), N(setfsgid), N(capset), N(setpgid), N(setsid), N(personality),
	N(setpriority), N(sched_setparam), N(sched_setscheduler), N(sched_setattr), N(ioprio_set),
	N(clock_settime), N(clock_adjtime), N(adjtimex), N(shmget), N(shmat), N(shmctl), N(shmdt), N(semget),
	N(semop), N(semctl), N(semtimedop), N(msgget), N(msgsnd), N(msgrcv), N(msgctl), N(mq_open),
	N(mq_unlink), N(mq_timedsend), N(mq_timedreceive), N(mq_notify), N(mq_getsetattr),
	N(landlock_create_ruleset), N(landlock_add_rule), N(landlock_restrict_self), N(remap_file_pages),
#ifdef __x86_64__
	N(fork), N(vfork), N(inotify_init), N(modify_ldt),
#endif
};
#undef N

/* ---- the program ------------------------------------------------------------------------------- */

struct program {
	struct sock_filter code[PROGRAM_MAX];
	size_t length;
};

static void emit(struct program *program, uint16_t code, uint32_t k, size_t yes, size_t no)
{
	if (program->length < PROGRAM_MAX)
		program->code[program->length] = (struct sock_filter){ code, (uint8_t)yes, (uint8_t)no, k };
	program->length++;
}

static void emit_return(struct program *program, uint32_t value)
{
	emit(program, BPF_RET | BPF_K, value, 0, 0);
}

static void emit_load(struct program *program, size_t offset)
{
	emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* Loads the low half of the first argument (both architectures are little-endian). */
static void emit_argument(struct program *program)
{
	emit_load(program, offsetof(struct seccomp_data, args[0]));
}

/* Returns `found` when the loaded word is one of `values`, else `other`. */
static void emit_choice(struct program *program, const uint32_t *values, size_t count, uint32_t found,
			uint32_t other)
{
	emit_argument(program);
	for (size_t i = 0; i < count; i++)
		emit(program, BPF_JMP | BPF_JEQ | BPF_K, values[i], count - i, 0);
	emit_return(program, other);
	emit_return(program, found);
}

static void emit_action(struct program *program, enum action action)
{
	static const uint32_t families[] = { AF_ALG, AF_VSOCK };
	static const uint32_t local[] = { AF_UNIX };
	static const uint32_t personalities[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
	uint32_t once;
	switch (action) {
	case ALLOWED: emit_return(program, SECCOMP_RET_ALLOW); break;
	case ABSENT: emit_return(program, MISSING); break;
	case DENIED: emit_return(program, DENY); break;
	case SOCKET: emit_choice(program, families, 2, DENY, SECCOMP_RET_ALLOW); break;
	case PERSONALITY: emit_choice(program, personalities, 5, SECCOMP_RET_ALLOW, DENY); break;
	case UNIX: emit_choice(program, local, 1, SECCOMP_RET_ALLOW, DENY); break;
	case ONCE:
		once = (uint32_t)exec_once();
		emit_choice(program, &once, 1, SECCOMP_RET_ALLOW, DENY);
		break;
	case THREAD:
		emit_argument(program);
		emit(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 1, 0);
		emit(program, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
		emit_return(program, DENY);
		emit_return(program, SECCOMP_RET_ALLOW);
		break;
	case CLONE:
		emit_argument(program);
		emit(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 0, 1);
		emit_return(program, DENY);
		emit_return(program, SECCOMP_RET_ALLOW);
	}
}

struct range {
	uint32_t first;         /* the last one reaches to the end of all numbers */
	enum action action;
};

/* Binary search over ranges: a comparison, the lower half, the upper half.  False when a jump is too
 * long for its eight bits. */
static bool emit_search(struct program *program, const struct range *ranges, size_t count)
{
	if (count == 1) {
		emit_action(program, ranges[0].action);
		return true;
	}
	size_t half = count / 2, comparison = program->length;
	emit(program, BPF_JMP | BPF_JGE | BPF_K, ranges[half].first, 0, 0);
	if (!emit_search(program, ranges, half) || program->length > PROGRAM_MAX)
		return false;
	size_t distance = program->length - comparison - 1;
	program->code[comparison].jt = (uint8_t)distance;
	return distance <= UINT8_MAX && emit_search(program, ranges + half, count - half);
}

static size_t find_ranges(struct range ranges[KNOWN + 1], bool machine)
{
	uint8_t actions[KNOWN + 1] = { 0 };
	for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
		actions[allowed[i]] = ALLOWED;
	actions[__NR_clone] = CLONE;
	actions[__NR_clone3] = ABSENT;  /* its flags are in memory, out of a filter's reach */
	actions[__NR_socket] = SOCKET;
	actions[__NR_personality] = PERSONALITY;
	actions[KNOWN] = ABSENT;
	for (size_t i = 0; machine && i < sizeof withheld / sizeof withheld[0]; i++)
		actions[withheld[i]] = DENIED;
	if (machine) {
		actions[__NR_clone] = THREAD;
		actions[__NR_socket] = UNIX;
		actions[__NR_execveat] = ONCE;
	}
	size_t count = 0;
	for (uint32_t number = 0; number <= KNOWN; number++)
		if (number == 0 || actions[number] != actions[number - 1])
			ranges[count++] = (struct range){ number, actions[number] };
	return count;
}

static bool build(struct program *program, bool machine)
{
	struct range ranges[KNOWN + 1];
	size_t count = find_ranges(ranges, machine);
	emit_load(program, offsetof(struct seccomp_data, arch));
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0);
	emit_return(program, MISSING);  /* i386 and the like; x32 numbers are beyond all ranges */
	emit_load(program, offsetof(struct seccomp_data, nr));
	return emit_search(program, ranges, count) && program->length <= PROGRAM_MAX;
}

VERB(seccomp)
{
	(void)argc;
	static struct program program;
	if (strcmp(argv[0], "unconfined") == 0)
		return 0;
	context->once = strcmp(argv[0], "machine") == 0;
	if (!context->once && strcmp(argv[0], "default") != 0)
		return verb_fail(context, argv[0], EINVAL);
	program.length = 0;
	if (!build(&program, context->once))
		return verb_fail(context, argv[0], EOVERFLOW);
	struct sock_fprog loaded = { .len = (unsigned short)program.length, .filter = program.code };
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &loaded, 0, 0);
}
