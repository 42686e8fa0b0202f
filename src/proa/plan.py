"""Launch plans: flat lists of small verbs that the native program executes.

One frozen dataclass per verb; field order is argument order.  `encode` makes the bytes that
`native/plan.c` reads, `describe` makes words.  A contract test compares this table with
`proa-native verbs`.

Encoding, for every step: the verb, a NUL, the number of arguments in decimal, a NUL, then each
argument and a NUL.  Nothing else: no lengths, no padding, so the C side keeps pointers into the
buffer and allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from proa.errors import Invalid

MAXIMUM_BYTES = 4 << 20  # of one encoded plan; native/proa.h PLAN_MAX
INHERIT_FIRST = 100  # native/proa.h INHERIT_FIRST


@dataclass(frozen=True)
class Step:
    """One verb with its arguments."""

    verb: ClassVar[str] = ""

    def arguments(self) -> tuple[str, ...]:
        """The arguments as strings; a tuple field contributes one argument per item."""
        result: list[str] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                result.extend(str(part) for part in value)
            else:
                result.append(str(value))
        return tuple(result)


# -- the place: first steps of a PLACE request ------------------------------------------------


@dataclass(frozen=True)
class Namespaces(Step):
    """New namespaces for the child, of: user pid mount net ipc uts cgroup.  Must come first."""

    verb: ClassVar[str] = "ns"
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class IdMap(Step):
    """Map `count` user and group ids from 0 inside to `base` outside (user_namespaces(7))."""

    verb: ClassVar[str] = "idmap"
    base: int
    count: int


@dataclass(frozen=True)
class Cgroup(Step):
    """Enter the cgroup whose `cgroup.procs` is `procs` (a path or `fd:N`)."""

    verb: ClassVar[str] = "cgroup"
    procs: str


# -- file systems -----------------------------------------------------------------------------


@dataclass(frozen=True)
class MountFs(Step):
    """mount(2); `flags` is a comma list of ro nosuid nodev noexec relatime noatime strictatime."""

    verb: ClassVar[str] = "mount"
    kind: str
    source: str
    target: str
    flags: str = ""
    data: str = ""


@dataclass(frozen=True)
class Attach(Step):
    """Attach a tree at `target`: a sent detached mount (`fd:N`) or a recursive bind of a path.

    The target is resolved inside the new root (never through a symlink out of it) and made when
    missing, as a directory or an empty file like the source.  `flags` adds mount attributes.
    """

    verb: ClassVar[str] = "attach"
    source: str
    target: str
    flags: str = ""


@dataclass(frozen=True)
class Root(Step):
    """Make `source` (`fd:N` or a mount's path) the root, and drop the old one with all its mounts.

    /proc, /sys and /dev of the place move into it, except those it has mounted itself; where it has
    a symbolic link or a file of such a name, the step fails (ENOTDIR).  Pivots, for every process
    of the mount namespace; `/` says that an earlier plan has done so.
    """

    verb: ClassVar[str] = "root"
    source: str
    flags: str = ""


@dataclass(frozen=True)
class Directory(Step):
    """Make a directory and its parents, inside the root; an existing one is left as it is."""

    verb: ClassVar[str] = "dir"
    path: str
    mode: str = "0755"


@dataclass(frozen=True)
class Write(Step):
    """Write a file (made when missing, else truncated)."""

    verb: ClassVar[str] = "write"
    path: str
    mode: str
    content: str


@dataclass(frozen=True)
class Cover(Step):
    """Bind a private tmpfs file with this content over `path`; the image's own stays.

    A cover that an earlier plan has bound there gets the new content.
    """

    verb: ClassVar[str] = "cover"
    path: str
    mode: str
    content: str


@dataclass(frozen=True)
class Symlink(Step):
    """symlink(2), existing path ignored."""

    verb: ClassVar[str] = "symlink"
    target: str
    path: str


@dataclass(frozen=True)
class Detach(Step):
    """umount2(2) with MNT_DETACH of the topmost mount at a path; none there is fine."""

    verb: ClassVar[str] = "detach"
    path: str


@dataclass(frozen=True)
class Node(Step):
    """mknod(2) of a device, `kind` c or b as there; only where the place may (a vm's guest)."""

    verb: ClassVar[str] = "node"
    path: str
    mode: str
    major: int
    minor: int
    kind: str = "c"


@dataclass(frozen=True)
class Mask(Step):
    """Hide a file behind /dev/null's twin or a directory behind an empty read-only tmpfs."""

    verb: ClassVar[str] = "mask"
    path: str


@dataclass(frozen=True)
class ReadOnly(Step):
    """Make a path read-only; a missing path is skipped.

    A mount is changed alone: what is mounted below stays as it is.  Else the path is bound first.
    With `undo` it can be written again.
    """

    verb: ClassVar[str] = "readonly"
    path: str
    undo: str = ""


# -- identity and network ---------------------------------------------------------------------


@dataclass(frozen=True)
class Hostname(Step):
    """sethostname(2)."""

    verb: ClassVar[str] = "hostname"
    name: str


@dataclass(frozen=True)
class Sysctl(Step):
    """Write a /proc/sys entry, named with dots; refused unless it really is procfs.

    Reaches past `mask` and `readonly` of the place.  Names with dots in a part: as in sysctl(8).
    """

    verb: ClassVar[str] = "sysctl"
    name: str
    value: str


@dataclass(frozen=True)
class Interface(Step):
    """Set an interface's name, address and MTU and bring it up; an empty mac or address is left.

    `device` is its present name, `name` what it shall be called.
    """

    verb: ClassVar[str] = "interface"
    device: str
    name: str
    mac: str
    address: str
    mtu: int


@dataclass(frozen=True)
class Route(Step):
    """A default IPv4 route through `gateway`."""

    verb: ClassVar[str] = "route"
    gateway: str


# -- the guest's own: only in SETUP requests to a vm's init ---------------------------------------


@dataclass(frozen=True)
class Entropy(Step):
    """Feed and reseed the kernel's generator with these host bytes (hex), see random(4)."""

    verb: ClassVar[str] = "entropy"
    bytes_hex: str


@dataclass(frozen=True)
class Clock(Step):
    """Set CLOCK_REALTIME, nanoseconds since the epoch."""

    verb: ClassVar[str] = "clock"
    nanoseconds: int


@dataclass(frozen=True)
class Module(Step):
    """finit_module(2) of a file; already loaded is fine."""

    verb: ClassVar[str] = "module"
    path: str


@dataclass(frozen=True)
class Pin(Step):
    """Keep a process's mount namespace for as long as init lives: its files are thrown away.

    Nothing is unmounted or synchronised, hence nothing written back, when the place ends.
    """

    verb: ClassVar[str] = "pin"
    pid: int


@dataclass(frozen=True)
class Swap(Step):
    """swapon(2) of a device."""

    verb: ClassVar[str] = "swap"
    device: str


# -- the process: last steps of a LAUNCH or EXEC request ----------------------------------------


@dataclass(frozen=True)
class Rlimit(Step):
    """setrlimit(2); `name` like nofile; -1 for infinity; capped at the present hard limit."""

    verb: ClassVar[str] = "rlimit"
    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class OomScore(Step):
    """Write /proc/self/oom_score_adj."""

    verb: ClassVar[str] = "oom"
    score: int


@dataclass(frozen=True)
class Environment(Step):
    """One `KEY=value` of the environment."""

    verb: ClassVar[str] = "env"
    setting: str


@dataclass(frozen=True)
class WorkDirectory(Step):
    """chdir(2) inside the root.

    With `make` a missing directory is made, root's, as Docker does for the main process only.
    """

    verb: ClassVar[str] = "cwd"
    path: str
    make: str = "make"


@dataclass(frozen=True)
class Umask(Step):
    """umask(2), octal."""

    verb: ClassVar[str] = "umask"
    mode: str = "0022"


@dataclass(frozen=True)
class Terminal(Step):
    """Take a new pseudo-terminal of the place's devpts as stdio and controlling terminal.

    The main process's becomes /dev/console too.  Comes before `caps` and `user`.
    """

    verb: ClassVar[str] = "tty"
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class Capabilities(Step):
    """Let the program have exactly this bounding set (hex mask), root all of it, others none.

    What `user` needs stays permitted until the program starts, so it may follow even `caps 0`.
    """

    verb: ClassVar[str] = "caps"
    mask_hex: str


@dataclass(frozen=True)
class NoNewPrivileges(Step):
    """prctl(PR_SET_NO_NEW_PRIVS)."""

    verb: ClassVar[str] = "nonewprivs"


@dataclass(frozen=True)
class User(Step):
    """Become a user, `name|uid[:group|gid]` of the place's /etc/passwd, plus extra groups.

    Without a group the user's own and supplementary ones; sets HOME when the environment has none.
    """

    verb: ClassVar[str] = "user"
    user: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inherit(Step):
    """Hand sent descriptors (`fd:N`) to the program, numbered from INHERIT_FIRST on.

    Without it a program has none but its stdio.
    """

    verb: ClassVar[str] = "inherit"
    descriptors: tuple[str, ...]


@dataclass(frozen=True)
class Landlock(Step):
    """Deny opening all but these, each `KIND:PATH`, of read exec device all, and what is inherited.

    Also TCP, and signals and abstract sockets to strangers, where the kernel's Landlock knows them.
    After `nonewprivs` and `inherit`.
    """

    verb: ClassVar[str] = "landlock"
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Seccomp(Step):
    """Load a compiled-in filter, `default` or `machine` (QEMU's), or nothing for `unconfined`.

    Under `machine` the plan's `exec`, which then takes a path, is the last of all.
    After `nonewprivs`; without that before `caps`, since it takes CAP_SYS_ADMIN then.
    """

    verb: ClassVar[str] = "seccomp"
    profile: str


@dataclass(frozen=True)
class Exec(Step):
    """execve(2), the command looked up in PATH of the environment given.  Ends the plan."""

    verb: ClassVar[str] = "exec"
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Builtin(Step):
    """Run one of the native program's own commands instead of a file of the image.  Ends the plan.

    `tree-out PATH`, `tree-in PATH`, `changes DEVICE [names]`, `stat PATH`, `procs`, `read PATH...`,
    `pause`: see docs/protocol.md.
    """

    verb: ClassVar[str] = "builtin"
    argv: tuple[str, ...]


def encode(steps: tuple[Step, ...]) -> bytes:
    """The bytes of a plan.  Raises Invalid for a NUL inside an argument or an oversized plan."""
    parts: list[str] = []
    for step in steps:
        arguments = step.arguments()
        for argument in arguments:
            if "\0" in argument:
                raise Invalid(f"a NUL byte in an argument of '{step.verb}'")
        parts.extend((step.verb, str(len(arguments)), *arguments))
    data = "\0".join(parts).encode("utf-8", "surrogateescape") + b"\0" if parts else b""
    if len(data) > MAXIMUM_BYTES:
        raise Invalid(f"the launch plan has {len(data)} bytes, more than {MAXIMUM_BYTES}")
    return data


def describe(steps: tuple[Step, ...]) -> str:
    """One line of words per step, for people."""
    lines = [
        f"{n:3} {step.verb} {' '.join(map(repr, step.arguments()))}".rstrip()
        for n, step in enumerate(steps)
    ]
    return "\n".join(lines)
