"""What made-up reports say was found: ledgers, memory, starts, isolation, portability."""

from __future__ import annotations

from proa.compare.record import Answer
from proa.costs import Part

MB = 1_000_000

LEDGERS: dict[str, tuple[Part, ...]] = {
    "container": (
        Part("libc6", 13 * MB, note="package"), Part("perl-base", 8 * MB, note="package"),
        Part("coreutils", 18 * MB, note="package"), Part("nginx-core", 2 * MB, note="package"),
        Part("libssl3", 6 * MB, note="package"), Part("tzdata", 5 * MB, note="package"),
        Part("dpkg", 7 * MB, True, "package; in a layer of other images, too"),
        Part("bash", 7 * MB, True, "package; in a layer of other images, too"),
        Part("/var/lib", 21 * MB, note="files of no package"),
        Part("/usr/share", 16 * MB, note="files of no package"),
        Part("62 more", 18 * MB, note="packages and directories, each smaller"),
    ),
    "vm": (
        Part("image's disk (EROFS)", 96 * MB, note="made of the layers, once"),
        Part("template's memory", 71 * MB, True, "one file for all vms of this shape"),
        Part("template's state", 2 * MB, True, "device state of the saved machine"),
        Part("guest kernel", 8 * MB, True, "the distribution's cloud kernel"),
        Part("initramfs", 3 * MB, True, "init and the modules it loads"),
        Part("writable disk", MB // 4, note="empty; grows with what is written"),
    ),
}  # fmt: skip

MEMORY: dict[str, tuple[Part, ...]] = {
    "container": (
        Part("the image's processes", 3_900_000, note="nginx, two processes"),
        Part("their libraries", 610_000, True, "pages other programs map, too"),
        Part("monitor", 210_000, note="one process"),
        Part("page tables and kernel", 180_000, note="memory.stat of its cgroup"),
    ),
    "vm": (
        Part("guest's memory, its own", 12_400_000, note="pages copied on write"),
        Part("guest's memory, the template's", 2_100_000, True, "its share of 71 MB"),
        Part("translated code", 15_100_000, note="of the emulation; none with KVM"),
        Part("qemu", 4_300_000, note="heap and stacks"),
        Part("qemu's code", 800_000, True, "pages other vms map, too"),
        Part("monitor", 210_000, note="one process"),
        Part("page tables and kernel", 490_000, note="memory.stat of its cgroup"),
    ),
}  # fmt: skip

_STEPS = ("place", "init", "exec", "first output", "port open", "first good reply")
TIMELINES: dict[str, tuple[tuple[str, float], ...]] = {
    form: tuple(zip(_STEPS, times, strict=True))
    for form, times in {
        "container": (6.2, 8.9, 21.0, 24.1, 55.0, 61.2),
        "vm": (11.5, 104.0, 131.0, 197.0, 318.0, 344.0),
        "vm-boot": (12.1, 1390.0, 1490.0, 1640.0, 1850.0, 1905.0),
    }.items()
}


def _answers(
    container: tuple[str, str, float], vm: tuple[str, str, float]
) -> tuple[Answer, Answer]:
    return Answer(*container), Answer(*vm)


# Key, axis, title, how, weight, then an answer for each form.
LINES: list[tuple[str, str, str, str, float, Answer, Answer]] = [
    ("syscalls", "host kernel", "System calls that reach the host's kernel",
     "each of 362 numbers called with bad arguments; what the filter refuses told apart", 3.0,
     *_answers(("open", "301 of 362 are answered by the host's kernel", 0.17),
               ("closed", "all are answered by the guest's kernel 6.1.0-44-cloud-amd64", 1.0))),
    ("keyring", "host kernel", "The kernel's keyrings answer",
     "add_key and keyctl called", 1.0,
     *_answers(("closed", "refused: EPERM", 1.0), ("partly", "answers, of its own kernel", 0.9))),
    ("userns", "host kernel", "A user namespace can be made", "unshare(CLONE_NEWUSER)", 2.0,
     *_answers(("closed", "refused: EPERM", 1.0), ("partly", "allowed, of its own kernel", 0.8))),
    ("dev", "devices", "Device nodes that open", "every node below /dev opened for reading", 2.0,
     *_answers(("closed", "8 open: null, zero, full, random, urandom, tty, ptmx, console", 0.95),
               ("closed", "8 open, of its own kernel", 1.0))),
    ("sysfs", "devices", "Kernel files that can be written",
     "every file of /proc/sys and /sys opened for writing", 2.0,
     *_answers(("closed", "none of 1,204", 1.0), ("closed", "none of 812", 1.0))),
    ("kmsg", "devices", "The kernel's log can be read", "/dev/kmsg and syslog(2)", 1.0,
     *_answers(("closed", "refused: EPERM", 1.0), ("closed", "refused: EPERM", 1.0))),
    ("caps", "privileges", "Capabilities", "CapBnd of /proc/self/status", 2.0,
     *_answers(("partly", "14 of 41, none over the host's user namespace", 0.7),
               ("partly", "14 of 41, of its own kernel", 0.9))),
    ("root", "privileges", "Its root is the host's root", "/proc/self/uid_map", 2.0,
     *_answers(("closed", "mapped to 1,214,000,000", 1.0), ("closed", "another kernel's", 1.0))),
    ("cpuinfo", "sight", "The host's processors", "/proc/cpuinfo against the host's", 1.0,
     *_answers(("open", "the host's model and flags", 0.0),
               ("partly", "a model of the emulator's", 0.6))),
    ("uptime", "sight", "How long the host has been up", "/proc/uptime against the host's", 1.0,
     *_answers(("open", "the host's, within a second", 0.0), ("closed", "its own", 1.0))),
    ("load", "sight", "A neighbour's load can be seen",
     "/proc/loadavg and /proc/stat while a neighbour works", 1.0,
     *_answers(("open", "both follow the neighbour", 0.0), ("closed", "neither follows", 1.0))),
    ("neighbours", "sight", "Neighbours' processes", "/proc of every number to 4,194,304", 2.0,
     *_answers(("closed", "none", 1.0), ("closed", "none", 1.0))),
    ("pids", "exhaustion", "Processes until none can be made",
     "forks up to the limit while a neighbour forks, too", 1.0,
     *_answers(("closed", "stopped at 4,096; the neighbour felt nothing", 1.0),
               ("closed", "stopped in its own kernel; the neighbour felt nothing", 1.0))),
    ("cache", "exhaustion", "The page cache is the neighbour's, too",
     "a file read twice by a neighbour, in between 256 MiB are read here", 1.0,
     *_answers(("partly", "the second reading took 4.1 times as long", 0.4),
               ("partly", "the second reading took 1.6 times as long", 0.7))),
    ("mount", "escapes", "A file system can be mounted", "first step of several; mount(2)", 1.0,
     *_answers(("closed", "refused: EPERM", 1.0), ("closed", "refused: EPERM", 1.0))),
    ("release", "escapes", "A cgroup's release agent", "first step of CVE-2022-0492", 1.0,
     *_answers(("closed", "no cgroup v1 can be mounted", 1.0),
               ("closed", "no cgroup v1 can be mounted", 1.0))),
    ("descriptor", "escapes", "runc's file descriptor", "first step of CVE-2024-21626", 1.0,
     *_answers(("closed", "no descriptor leads out", 1.0), ("not tried", "there is none", 1.0))),
]  # fmt: skip

SHARED = [
    ("Kernel", "uname and the boot id inside, against the host's",
     ("yes", "the same boot id"), ("no", "another boot id")),
    ("Page cache", "a file cached by a neighbour, looked for by mincore",
     ("yes", "its pages were resident"), ("partly", "those of the disk, on the host's side")),
    ("Layers", "inodes of the same file in two instances",
     ("yes", "one inode"), ("partly", "one disk, read by two kernels")),
    ("Network stack", "sockets seen in /proc/net of the host",
     ("partly", "own namespace, the host's code"), ("no", "the host sees packets alone")),
    ("Processors", "a neighbour's work, felt", ("yes", "shares"), ("yes", "shares")),
]  # fmt: skip

NEEDS = [
    ("Architecture", "the image's platform", "amd64, or qemu-user", "any, by emulation"),
    ("Kernel", "the oldest that has what was used", "Linux 5.12 (mount_setattr)",
     "Linux 4.5 (cgroup v2)"),
    ("Processor's flags", "flags of the instructions that were run", "sse4.2", "none"),
    ("Programs", "what was run", "none", "qemu-system-x86_64 7.2 or newer"),
]  # fmt: skip

TRIALS = [
    ("6.1.0-44-cloud-amd64", "vm", True, "answered on port 80 after 344 ms"),
    ("6.12.9-amd64", "vm", True, "answered on port 80 after 371 ms"),
    ("5.10.0-32-amd64", "vm", True, "answered on port 80 after 402 ms"),
    ("4.19.0-27-amd64", "vm", False, "init: erofs is not in this kernel"),
]
