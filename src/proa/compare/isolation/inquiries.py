"""What is asked of every form: the words, the source, the weight, and who judges the answer.

`native/probe/isolation*.c` has the same keys; `kernel.process`, `sight.reach`, `sight.cache`,
`escapes.cards` and all of `exhaustion` are put together on this side.
"""

from __future__ import annotations

from dataclasses import dataclass

AXIS_OF = {
    "kernel": "host kernel",
    "devices": "devices",
    "privileges": "privileges",
    "sight": "sight",
    "exhaustion": "exhaustion",
    "escapes": "escapes",
}


@dataclass(frozen=True)
class Inquiry:
    """One row; `weight` counts against the others of its axis, `judge` is a name of `judging`."""

    key: str
    title: str
    how: str
    weight: float = 1.0
    judge: str = "behind"

    @property
    def axis(self) -> str:
        """Its axis, one of `record.AXES`."""
        return AXIS_OF[self.key.partition(".")[0]]


KERNEL = (
    Inquiry("kernel.identity", "the kernel that answers",
            "boot id inside, compared with the host's", 4, "identity"),
    Inquiry("kernel.calls", "system calls that reach the host's kernel",
            "each issued under a filter of our own that answers instead of the kernel "
            "(seccomp_unotify); none is made", 4, "calls"),
    Inquiry("kernel.compat", "32-bit system calls that reach it",
            "int 0x80 with getpid (CVE-2010-3301 was in this entry)", 1, "calls"),
    Inquiry("kernel.process", "the process which that kernel runs",
            "/proc/PID/status on the host: user, new privileges, filter", 3, "process"),
)  # fmt: skip

DEVICES = (
    Inquiry("devices.nodes", "device nodes beyond the harmless six",
            "every node below /dev, opened for reading where that does nothing", 2),
    Inquiry("devices.mknod", "making a node of a disk",
            "mknod, open for reading, remove", 2),
    Inquiry("devices.settings", "kernel settings that can be changed",
            "every file of /proc/sys that no namespace owns, opened for writing, not written"),
    Inquiry("devices.switches", "switches of /sys/kernel",
            "every file that has a writer, opened for writing, not written"),
    Inquiry("devices.power", "power states", "files of /sys/power, opened for writing"),
    Inquiry("devices.memory", "the kernel's memory and where it is",
            "kcore, kpageflags, kpagecount; addresses in kallsyms and iomem other than zero", 2),
    Inquiry("devices.tracing", "debugging and tracing",
            "directories of debugfs, tracefs, bpf, pstore"),
    Inquiry("devices.tables", "tables of the kernel",
            "the first bytes of keys, timers, slabs, modules, interrupts, disk statistics ..."),
    Inquiry("devices.firmware", "the firmware's tables", "ACPI, DMI, EFI variables"),
    Inquiry("devices.machine", "emulated devices that a program of the host answers for",
            "devices on the PCI and virtio buses", 2, "machine"),
)  # fmt: skip

PRIVILEGES = (
    Inquiry("privileges.effective", "capabilities", "CapEff of /proc/self/status", 2),
    Inquiry("privileges.bounding", "capabilities that can be had", "CapBnd of /proc/self/status"),
    Inquiry("privileges.root", "what its user 0 is to the kernel", "/proc/self/uid_map", 3),
    Inquiry("privileges.no-new", "set-user-id programs give nothing", "NoNewPrivs", 1),
    Inquiry("privileges.filter", "system calls are filtered", "Seccomp of /proc/self/status", 2),
    Inquiry("privileges.label", "a security module confines it", "/proc/self/attr/current", 0.5),
    Inquiry("privileges.userns", "user namespaces of its own making",
            "unshare(CLONE_NEWUSER) in a process that ends", 2),
    Inquiry("privileges.namespaces", "namespaces it has for itself",
            "their numbers compared with the host's", 2, "namespaces"),
    Inquiry("privileges.mount", "mounting", "a remount where nothing is mounted", 2),
    Inquiry("privileges.clock", "setting the clock", "adjtimex with a tick no clock has"),
    Inquiry("privileges.ptrace", "tracing processes",
            "PTRACE_SEIZE of its own child (CVE-2019-13272)"),
    Inquiry("privileges.ports", "I/O ports", "iopl in a process that ends"),
    Inquiry("privileges.shares", "files from outside",
            "directories mounted beside the root, and whether they can be written", 2, "mounts"),
    Inquiry("privileges.cgroups", "its own limits", "cgroup.procs opened for writing, not written"),
)  # fmt: skip

SIGHT = (
    Inquiry("sight.processor", "the host's processor model", "/proc/cpuinfo, compared", 1, "equal"),
    Inquiry("sight.memory", "the host's memory", "MemTotal, compared", 1, "equal"),
    Inquiry("sight.uptime", "how long the host runs", "/proc/uptime, compared", 1, "uptime"),
    Inquiry("sight.activity", "what happens on the host",
            "processes started since boot (/proc/stat), compared", 2, "activity"),
    Inquiry("sight.disks", "the host's disks", "/proc/partitions, compared", 1, "equal"),
    Inquiry("sight.hardware", "make and model of the host", "DMI's modalias, compared", 1, "equal"),
    Inquiry("sight.command-line", "how the host was booted", "/proc/cmdline, compared", 1, "equal"),
    Inquiry("sight.log", "the host's kernel log", "syslog(2), /dev/kmsg, read without taking", 2,
            "own"),
    Inquiry("sight.mounts", "paths of the host", "sources in mountinfo that exist on the host", 1,
            "paths"),
    Inquiry("sight.processes", "processes of the host",
            "/proc, and whether the process namespace is the host's", 3, "processes"),
    Inquiry("sight.names", "the host's name", "uname, compared", 1, "equal"),
    Inquiry("sight.neighbours", "who else is on the network", "/proc/net/arp", 1, "said"),
    Inquiry("sight.reach", "a neighbour answers on the network",
            "a connection to a port nobody listens on: refused by one who is there", 1, "said"),
    Inquiry("sight.cache", "what a neighbour has read",
            "a page of a file of the image: dropped, read by one, looked for by the other "
            "(mincore, else time)", 2, "said"),
    Inquiry("sight.clock", "a clock fine enough for timing channels",
            "the least step of CLOCK_MONOTONIC", 0.5, "said"),
)  # fmt: skip

_FELT = "rate at which a neighbour computes, maps, opens and forks, before and meanwhile"
EXHAUSTION = (
    Inquiry("exhaustion.cpu", "taking all processors", f"two loops each; {_FELT}", 2, "said"),
    Inquiry("exhaustion.memory", "taking memory", f"up to 128 MiB; {_FELT}", 2, "said"),
    Inquiry("exhaustion.processes", "a bounded fork bomb",
            f"up to 512 processes; {_FELT}", 2, "said"),
    Inquiry("exhaustion.files", "taking descriptors", f"up to 20,000; {_FELT}", 1, "said"),
    Inquiry("exhaustion.disk", "filling the disk",
            f"24 MiB in a file; whose free space falls; {_FELT}", 2, "said"),
)  # fmt: skip

ESCAPES = (
    Inquiry("escapes.programs", "overwriting the engine's program",
            "/proc/PID/exe of programs from outside, opened for writing (CVE-2019-5736)", 2),
    Inquiry("escapes.descriptors", "descriptors left open",
            "/proc/self/fd, and a directory of work outside of the root (CVE-2024-21626)", 2),
    Inquiry("escapes.roots", "another root", "/proc/PID/root of every process seen", 2),
    Inquiry("escapes.release-agent", "a cgroup's release_agent",
            "a writable one, or a namespace to mount one in (CVE-2022-0492)", 2),
    Inquiry("escapes.fsconfig", "file system contexts",
            "fsopen in a new user namespace, closed again (CVE-2022-0185)"),
    Inquiry("escapes.overlay", "overlays in a user namespace",
            "fsopen of overlay, closed again (CVE-2021-3493, CVE-2023-0386)"),
    Inquiry("escapes.netfilter", "nf_tables",
            "the generation asked for in a new network namespace (CVE-2022-34918, CVE-2024-1086)"),
    Inquiry("escapes.packets", "raw packet sockets", "AF_PACKET, closed again (CVE-2020-14386)"),
    Inquiry("escapes.core-pattern", "a program for core dumps",
            "kernel.core_pattern opened for writing (CVE-2022-0811)", 2),
    Inquiry("escapes.modprobe", "a program for modules", "kernel.modprobe opened for writing"),
    Inquiry("escapes.sysrq", "the host's emergency keys", "/proc/sysrq-trigger opened for writing"),
    Inquiry("escapes.uevent-helper", "a program for devices",
            "/sys/kernel/uevent_helper opened for writing"),
    Inquiry("escapes.binfmt", "an interpreter for programs",
            "binfmt_misc/register opened for writing"),
    Inquiry("escapes.engine-socket", "an engine's socket",
            "the usual places looked at, none spoken to (CIS Docker Benchmark, section 5)", 3),
    Inquiry("escapes.abstract-sockets", "abstract sockets of the host",
            "/proc/net/unix (CVE-2020-15257)"),
    Inquiry("escapes.handles", "files by guessed handles",
            "open_by_handle_at with the handle of its own root (shocker, 2014)", 2),
    Inquiry("escapes.modules", "loading modules", "finit_module without a file", 2),
    Inquiry("escapes.kexec", "booting another kernel", "kexec_load with flags there are none of"),
    Inquiry("escapes.keys", "the kernel's keyrings", "keyctl (CVE-2016-0728)"),
    Inquiry("escapes.userfault", "userfaultfd",
            "made and closed; exploits stop the kernel by it (CVE-2019-18683)"),
    Inquiry("escapes.bpf", "programs for the kernel",
            "bpf loads the shortest program (CVE-2020-8835, CVE-2021-3490)"),
    Inquiry("escapes.perf", "performance counters", "perf_event_open (CVE-2013-2094)"),
    Inquiry("escapes.uring", "io_uring", "made and closed (CVE-2022-29582, CVE-2023-2598)"),
    Inquiry("escapes.dirty-pipe", "Dirty Pipe",
            "done to a file of its own in memory (CVE-2022-0847)", 2),
    Inquiry("escapes.cards", "emulated devices guests have escaped by",
            "PCI ids: CVE-2015-5165, CVE-2015-7504, CVE-2017-2615, CVE-2020-14364, CVE-2022-0216",
            2, "cards"),
)  # fmt: skip

ALL = KERNEL + DEVICES + PRIVILEGES + SIGHT + EXHAUSTION + ESCAPES
