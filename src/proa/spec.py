"""What to run, without a word about what isolates it.  Frozen, pure, no input or output.

A `Spec` is made once, by `merge`, from an image's configuration (OCI image-spec `config`) and a
create request, and is stored with the instance.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Process:
    """One command: the main one or an exec.

    `user` is Docker's `USER` syntax (`name`, `uid`, `name:group`, `uid:gid`, empty for root) and
    is resolved inside the instance.  `environment` holds `KEY=value` strings.
    """

    arguments: tuple[str, ...]
    environment: tuple[str, ...] = ()
    directory: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    terminal: bool = False
    stdin: bool = False
    privileged: bool = False


@dataclass(frozen=True)
class Mount:
    """Something of the host's, a named volume, or a tmpfs, seen at `target` inside.

    `make` has a missing bind source made, as a directory (what `-v` does and `--mount` does not).
    """

    kind: str  # "bind", "volume" or "tmpfs"
    source: str
    target: str
    readonly: bool = False
    options: str = ""
    make: bool = False


@dataclass(frozen=True)
class Endpoint:
    """A place in a network, by its name: what others may call it there, its address if given."""

    network: str
    aliases: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True)
class Port:
    """A published port: `host_port` 0 asks for a free one."""

    port: int
    protocol: str = "tcp"
    host_address: str = ""
    host_port: int = 0


@dataclass(frozen=True)
class Throttle:
    """A bound on what goes to and from a block device of the host, by its path.

    `kind` is one of read_bps, write_bps, read_iops, write_iops; a `rate` of 0 lifts it.
    """

    kind: str
    device: str
    rate: int


@dataclass(frozen=True)
class Limits:
    """Resource limits; 0 or empty means none.

    `swap_bytes` bounds memory and swap together, -1 not at all; 0 allows no swap beside a memory
    limit.  `reservation_bytes` is what an instance keeps when memory is short.  `cpuset` and
    `memory_nodes` are lists like `0-2,5`.  `io_weight` is from 10 to 1000.
    """

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpuset: str = ""
    memory_nodes: str = ""
    reservation_bytes: int = 0
    swap_bytes: int = 0
    io_weight: int = 0
    throttles: tuple[Throttle, ...] = ()


@dataclass(frozen=True)
class Security:
    """Deviations from the safe defaults."""

    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = "default"  # or "unconfined"
    new_privileges: bool = False
    readonly_root: bool = False


@dataclass(frozen=True)
class Hardware:
    """The machine a vm is to be; an empty text leaves the choice to the engine.

    `disk` is empty for a vm of an ordinary image.  Else the vm is a *whole machine*, which boots a
    system of its own: from the disk with this absolute path, from the one in the image with this
    id (`sha256:...`), or from `EMPTY`, a new disk to install on.  `disk_bytes` is how large the
    instance's disk shall be, 0: as it is.  `cloud_init` is user data as text, or "none" for no seed
    at all; `cloud_init_network` is network configuration.
    """

    disk: str = ""
    format: str = ""
    disk_bytes: int = 0
    cdroms: tuple[str, ...] = ()
    boot: str = ""  # "disk" or "cdrom"
    machine: str = ""  # "auto", "pc", "q35", "microvm" or "virt"
    firmware: str = ""  # "auto", "bios", "uefi" or "secureboot"
    tpm: bool = False
    disk_bus: str = ""  # "virtio", "ide", "sata", "nvme" or "scsi"
    nic: str = ""  # "virtio", "e1000" or "rtl8139"
    display: str = ""  # "none", "std" or "virtio"
    accelerator: str = ""  # "auto", "kvm" or "tcg"
    cache: str = ""  # "writeback", "none", "writethrough" or "unsafe"
    cloud_init: str = ""
    cloud_init_network: str = ""
    shares: str = ""  # "auto", "9p" or "virtiofs"
    pause_idle_seconds: int = -1  # 0: never; -1: as the engine is configured
    platform: str = ""  # like "linux/arm64"; empty: the host's
    start: str = ""  # "auto", "boot" or "template": how a vm of an image may be started
    kernel: str = ""  # of a vm of an image: the absolute path of a vmlinuz, modules beside it
    cpu: str = ""  # of a vm of an image: QEMU's name of a processor model; empty: the best there is


EMPTY = "empty"


@dataclass(frozen=True)
class Health:
    """A command that tells whether an instance does its work; 0 means Docker's default.

    `test` is empty, or begins with `NONE`, `CMD` or `CMD-SHELL` (its command then follows `shell`).
    """

    test: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Spec:
    """All an instance is asked to be."""

    image: str
    isolation: str
    process: Process
    hostname: str
    network: str = "bridge"  # or "none", or a user's
    endpoints: tuple[Endpoint, ...] = ()  # empty: just that one
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    limits: Limits = Limits()
    security: Security = Security()
    labels: dict[str, str] = field(default_factory=dict)
    sysctls: tuple[tuple[str, str], ...] = ()
    rlimits: tuple[tuple[str, int, int], ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    shm_bytes: int = 64 << 20
    stop_signal: str = "SIGTERM"
    stop_timeout_seconds: int = 10
    remove: bool = False
    hardware: Hardware = Hardware()
    health: Health = Health()
