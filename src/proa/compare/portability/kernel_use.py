"""What of the kernel a program was seen to use, in words: tables, and how to read a run by them."""

from __future__ import annotations

from collections.abc import Iterator

from proa.compare.portability.watching import Seen

FEATURES: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (name, frozenset(calls.split()))
    for name, calls in (
        ("io_uring", "io_uring_setup io_uring_enter io_uring_register"),
        ("bpf", "bpf"),
        ("performance counters", "perf_event_open"),
        ("user page faults", "userfaultfd"),
        ("keyrings", "add_key keyctl request_key"),
        ("mounts", "mount umount2 pivot_root fsopen fsmount move_mount open_tree mount_setattr"),
        ("file events", "inotify_add_watch"),
        ("fanotify", "fanotify_init fanotify_mark"),
        ("asynchronous i/o", "io_setup io_submit"),
        ("System V ipc", "shmget semget msgget"),
        ("POSIX message queues", "mq_open"),
        ("tracing", "ptrace process_vm_readv process_vm_writev"),
        ("seccomp filters", "seccomp"),
        ("Landlock", "landlock_create_ruleset landlock_restrict_self"),
        ("kernel modules", "init_module finit_module delete_module"),
        ("another kernel (kexec)", "kexec_load kexec_file_load"),
        ("swap", "swapon swapoff"),
        ("quotas", "quotactl quotactl_fd"),
        ("memory policy", "mbind set_mempolicy migrate_pages move_pages"),
        ("real-time scheduling", "sched_setscheduler sched_setattr"),
        ("protection keys", "pkey_alloc pkey_mprotect"),
        ("anonymous files", "memfd_create memfd_secret"),
        ("process descriptors", "pidfd_open pidfd_send_signal pidfd_getfd"),
        ("setting the clock", "settimeofday clock_settime adjtimex clock_adjtime"),
        ("raw ports", "iopl ioperm"),
    )
)

NAMESPACES = {
    0x00000080: "time",
    0x00020000: "mount",
    0x02000000: "cgroup",
    0x04000000: "uts",
    0x08000000: "ipc",
    0x10000000: "user",
    0x20000000: "pid",
    0x40000000: "network",
}
FAMILIES = {
    16: "netlink sockets",
    17: "packet sockets",
    31: "bluetooth",
    38: "kernel cryptography",
    40: "vm sockets",
    44: "XDP",
}
ORDINARY_DEVICES = frozenset(
    f"/dev/{name}"
    for name in "null zero full random urandom tty console ptmx stdin stdout stderr".split()
)

# The Linux that first had a call, for those newer than 3.2, glibc's own limit (syscalls(2)).
SINCE: dict[str, tuple[int, int]] = {
    name: version
    for version, names in (
        ((3, 5), "kcmp"),
        ((3, 8), "finit_module"),
        ((3, 14), "sched_setattr sched_getattr"),
        ((3, 15), "renameat2"),
        ((3, 17), "seccomp getrandom memfd_create kexec_file_load"),
        ((3, 18), "bpf"),
        ((3, 19), "execveat"),
        ((4, 3), "userfaultfd membarrier"),
        ((4, 4), "mlock2"),
        ((4, 5), "copy_file_range"),
        ((4, 6), "preadv2 pwritev2"),
        ((4, 9), "pkey_mprotect pkey_alloc pkey_free"),
        ((4, 11), "statx"),
        ((4, 18), "io_pgetevents rseq"),
        ((5, 1), "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register"),
        ((5, 2), "open_tree move_mount fsopen fsconfig fsmount fspick"),
        ((5, 3), "pidfd_open clone3"),
        ((5, 6), "openat2 pidfd_getfd"),
        ((5, 8), "faccessat2"),
        ((5, 9), "close_range"),
        ((5, 10), "process_madvise"),
        ((5, 11), "epoll_pwait2"),
        ((5, 12), "mount_setattr"),
        ((5, 13), "landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
        ((5, 14), "quotactl_fd memfd_secret"),
        ((5, 15), "process_mrelease"),
        ((5, 16), "futex_waitv"),
        ((5, 17), "set_mempolicy_home_node"),
        ((6, 5), "cachestat"),
        ((6, 6), "fchmodat2 map_shadow_stack"),
        ((6, 7), "futex_wake futex_wait futex_requeue"),
        ((6, 8), "statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules"),
        ((6, 10), "mseal"),
    )
    for name in names.split()
}
# The same calls by number, for a probe older than its kernel: unified since 424 (Linux 5.1).
NUMBERED = {
    "451": "cachestat",
    "452": "fchmodat2",
    "453": "map_shadow_stack",
    "454": "futex_wake",
    "455": "futex_wait",
    "456": "futex_requeue",
    "457": "statmount",
    "458": "listmount",
    "459": "lsm_get_self_attr",
    "460": "lsm_set_self_attr",
    "461": "lsm_list_modules",
    "462": "mseal",
}


def named(call: str) -> str:
    """A call's name; the number of one nobody here knows."""
    return NUMBERED.get(call, call)


def features(seen: Seen) -> list[str]:
    """What it used of the kernel beyond files, memory, processes and the usual sockets."""
    return list(_features(seen))


def _features(seen: Seen) -> Iterator[str]:
    made = {named(call) for call in seen.calls}
    for name, calls in FEATURES:
        if made & calls:
            yield name
    spaces = [name for flag, name in NAMESPACES.items() if seen.namespaces & flag]
    if spaces:
        yield f"new namespaces ({', '.join(spaces)})"
    yield from (FAMILIES[family] for family in sorted(seen.families) if family in FAMILIES)
    if seen.file_systems:
        yield f"file systems ({', '.join(sorted(seen.file_systems))})"
    if any(path.startswith("/sys/fs/cgroup") for path in seen.paths):
        yield "cgroups"
    if any(path.startswith("/proc/sys/") for path in seen.paths):
        yield "kernel settings"
    devices = sorted(
        path
        for path in seen.paths
        if path.startswith("/dev/")
        and path not in ORDINARY_DEVICES
        and not path.startswith(("/dev/pts/", "/dev/shm/", "/dev/fd/"))
    )
    if devices:
        yield f"devices ({', '.join(devices)})"
    if seen.foreign:
        yield "system calls of another processor (32 bit)"


def newest(seen: Seen) -> tuple[str, tuple[int, int]] | None:
    """The youngest call that was made, and the Linux that first had it; None: all are old."""
    made = {named(call) for call in seen.calls} & SINCE.keys()
    name = max(made, key=lambda call: (SINCE[call], call), default=None)
    return (name, SINCE[name]) if name else None
