"""What a guest's init is asked to do: plans for a template, for a clone, for the mounts.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from proa import capabilities, plan
from proa.agent import Launch as Flag
from proa.isolation.surroundings import LINKS, READONLY, SHARES, SYSCTLS
from proa.plan import Step
from proa.resources import Link, Share, Sources
from proa.spec import Limits

INTERFACE = "eth0"
CGROUPS = "/sys/fs/cgroup"
PLACE_CGROUP = f"{CGROUPS}/place"
DEVICES, IMAGE, DISK, ROOT = "/mnt/devices", "/mnt/image", "/mnt/disk", "/mnt/root"
SHARE_OPTIONS = "trans=virtio,version=9p2000.L,msize=1048576,cache=mmap,access=client"
NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
)
ENTROPY_BYTES = 64
# As on the host: every change is wholly in the upper directory, whatever the kernel's defaults.
OVERLAY_OPTIONS = "index=off,metacopy=off,redirect_dir=nofollow"
WARMED = (
    "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6", "lib/ld-musl-x86_64.so.1",
    "etc/ld.so.cache", "etc/passwd", "etc/group", "etc/hosts", "etc/nsswitch.conf", "bin/sh",
)  # fmt: skip

COVERED = (
    ("/etc/hostname", "0644"), ("/etc/hosts", "0644"), ("/etc/resolv.conf", "0644"),
    ("/etc/machine-id", "0444"),
)  # fmt: skip


def template_setup() -> tuple[Step, ...]:
    """SETUP of a machine that has just booted: the cgroup its place will live in."""
    return (
        plan.Write(f"{CGROUPS}/cgroup.subtree_control", "0644", "+memory +pids +cpu"),
        plan.Directory(PLACE_CGROUP),
    )


def place(*, network: bool, sysctls: tuple[tuple[str, str], ...] = ()) -> tuple[Step, ...]:
    """PLACE: everything of the instance's surroundings but its files.

    Without a network the place gets a network namespace of its own, so it sees only `lo`.
    """
    quiet = "nosuid,noexec,nodev"
    kinds = ("pid", "mount", "ipc", "uts", "cgroup") + (() if network else ("net",))
    steps: list[Step] = [
        plan.Namespaces(kinds),
        plan.Cgroup(f"{PLACE_CGROUP}/cgroup.procs"),
        plan.Directory(DEVICES),
        plan.MountFs("devtmpfs", "devtmpfs", DEVICES, "nosuid,noexec"),
        plan.MountFs("proc", "proc", "/proc", quiet),
        plan.MountFs("sysfs", "sysfs", "/sys", f"{quiet},ro"),
        plan.MountFs("cgroup2", "cgroup", CGROUPS, f"{quiet},ro"),
        plan.MountFs("tmpfs", "tmpfs", "/dev", "nosuid,noexec", "mode=0755,size=65536k"),
    ]
    steps += [plan.Node(f"/dev/{name}", "0666", major, minor) for name, major, minor in NODES]
    steps += [plan.Directory(f"/dev/{name}") for name in ("pts", "shm", "mqueue")]
    steps += [
        plan.MountFs(
            "devpts",
            "devpts",
            "/dev/pts",
            "nosuid,noexec",
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        plan.MountFs("tmpfs", "shm", "/dev/shm", quiet, "mode=1777,size=65536k"),
        plan.MountFs("mqueue", "mqueue", "/dev/mqueue", quiet),
    ]
    steps += [plan.Symlink(target, f"/dev/{name}") for target, name in LINKS]
    steps.append(plan.Interface("lo", "lo", "", "", 0))
    if network:  # up without an address, and so silent; IPv6 would make one of the template's MAC
        steps.append(plan.Sysctl(f"net/ipv6/conf/{INTERFACE}/disable_ipv6", "1"))
        steps.append(plan.Interface(INTERFACE, INTERFACE, "", "", 0))
    steps += [plan.Sysctl(name, value) for name, value in (*SYSCTLS, *sysctls)]
    steps += [plan.Mask(path) for path in MASKED]
    steps += [plan.ReadOnly(path) for path in READONLY]
    return tuple(steps)


def clone_setup(entropy: bytes, limits: Limits, pinned_pid: int = 0) -> tuple[Step, ...]:
    """SETUP of every clone, before anything is spawned in it: what must not be the template's."""
    pins = (plan.Pin(pinned_pid),) if pinned_pid else ()
    return (plan.Entropy(entropy.hex()), *pins, *limit_steps(limits))


@dataclass(frozen=True)
class Names:
    """What tells a copy of a machine from the one it was copied of, beside its random numbers.

    `link` is None when the machine has its address already.
    """

    hostname: str
    machine_id: str
    covers: tuple[tuple[str, str], ...]  # path and content
    link: Link | None = None


def copy_setup(entropy: bytes, now_ns: int, names: Names) -> tuple[Step, ...]:
    """SETUP of a copy of a running machine, while its place is frozen."""
    steps: list[Step] = [plan.Entropy(entropy.hex()), plan.Clock(now_ns)]
    if names.link is not None:
        steps += _plug(names.link)
    return tuple(steps)


def copy_names(names: Names) -> tuple[Step, ...]:
    """In the place of a copy, beside its frozen processes: its name, and the files that tell it."""
    covers = (*names.covers, ("/etc/machine-id", names.machine_id + "\n"))
    modes = dict(COVERED)
    return (
        plan.Hostname(names.hostname),
        *(plan.Cover(path, modes[path], content) for path, content in covers if content),
        plan.Builtin(("stat", "/")),
    )


def _plug(link: Link) -> tuple[Step, ...]:
    up = plan.Interface(INTERFACE, link.name, link.mac, link.address, link.mtu)
    return (up, plan.Route(link.gateway)) if link.gateway else (up,)


def limit_steps(limits: Limits, *, lift: bool = False) -> tuple[Step, ...]:
    """Limits the guest's own kernel enforces; `lift` also writes the absent ones."""
    wanted = (("memory.max", limits.memory_bytes), ("pids.max", limits.pids))
    return tuple(
        plan.Write(f"{PLACE_CGROUP}/{name}", "0644", str(value) if value else "max")
        for name, value in wanted
        if value or lift
    )


def mounts() -> tuple[Step, ...]:
    """The image's disk with the writable one over it, at ROOT."""
    return (
        plan.MountFs("erofs", f"{DEVICES}/vda", IMAGE, "ro"),
        plan.MountFs("ext4", f"{DEVICES}/vdb", DISK, "", "noinit_itable,discard"),
        plan.MountFs(
            "overlay",
            "overlay",
            ROOT,
            "",
            f"lowerdir={IMAGE},upperdir={DISK}/upper,workdir={DISK}/work,{OVERLAY_OPTIONS}",
        ),
    )


def rehearsal() -> tuple[Step, ...]:
    """In an image's template: its root for all of the place, and what every program reads.

    The covers are empty: every launch fills them.
    """
    paths = (f"/{path}" for path in WARMED)
    return (*mounts(), plan.Root(ROOT), *_covers(), plan.Builtin(("read", *paths)))


def _covers() -> tuple[Step, ...]:
    return tuple(plan.Cover(path, mode, "") for path, mode in COVERED)


def warm_up(now_ns: int, *, network: bool) -> tuple[tuple[int, tuple[Step, ...]], ...]:
    """In a spare: what a start does, done once for nothing; flags and plans of EXEC requests.

    Under TCG a first time costs far more than a second, since all code is translated then.  Every
    launch replaces what is set here; the address is TEST-NET-1's and the tap still on no bridge.
    """
    link = (
        plan.Interface(INTERFACE, INTERFACE, "02:00:00:00:00:01", "192.0.2.1/24", 1500),
        plan.Route("192.0.2.254"),
    )
    identity = (
        plan.Hostname("spare"),
        plan.Clock(now_ns),
        *(link if network else ()),
        plan.Root("/"),
        *_covers(),
        plan.Environment("PATH=/usr/bin:/bin"),
        plan.Umask(),
        plan.WorkDirectory("/"),
        plan.Capabilities(f"{capabilities.mask():x}"),
        plan.NoNewPrivileges(),
        plan.User(""),
        plan.Seccomp("default"),
        plan.Exec(("true",)),
    )
    return ((Flag.JOIN, identity), (0, (plan.Exec(("/init", "verbs")),)))


def sources(
    links: tuple[Link, ...],
    shares: tuple[Share, ...],
    machine_id: str,
    *,
    mounted: bool = False,
    virtiofs: bool = False,
) -> Sources:
    """Where a clone's disks, shares and link are, and how to plug them, in the launch plan."""
    before: list[Step] = [] if mounted else [*mounts()]
    after: list[Step] = []
    if shares:
        kind, options = ("virtiofs", "") if virtiofs else ("9p", SHARE_OPTIONS)
        before += [
            plan.Directory(SHARES),
            plan.MountFs(kind, "shares", SHARES, "nosuid,nodev", options),
        ]
        after.append(plan.Mask(SHARES))
    for link in links:
        before += _plug(link)
    after.append(plan.Cover("/etc/machine-id", "0444", machine_id + "\n"))
    paths = tuple(
        f"{SHARES}/{number}" + (f"/{share.inner}" if share.inner else "")
        for number, share in enumerate(shares)
    )
    return Sources(
        root="/" if mounted else ROOT, shares=paths, before=tuple(before), after=tuple(after)
    )
