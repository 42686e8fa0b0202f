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
class Port:
    """A published port: `host_port` 0 asks for a free one."""

    port: int
    protocol: str = "tcp"
    host_address: str = ""
    host_port: int = 0


@dataclass(frozen=True)
class Limits:
    """Resource limits; 0 means none."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 0
    cpu_shares: int = 0


@dataclass(frozen=True)
class Security:
    """Deviations from the safe defaults."""

    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = "default"  # or "unconfined"
    new_privileges: bool = False
    readonly_root: bool = False


@dataclass(frozen=True)
class Spec:
    """All an instance is asked to be."""

    image: str
    isolation: str
    process: Process
    hostname: str
    network: str = "bridge"  # or "none"
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
