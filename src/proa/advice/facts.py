"""Facts that speak for a container or for a vm, each with where it was found.  Pure.

Readers of images, disks, app files and comparisons make `Fact`s; rules read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = bool | int | float | str | tuple[str, ...]

# Key → meaning.  A reader that knows nothing of a key makes no fact of it: absent is not `False`.
KEYS: dict[str, str] = {
    # what is in it
    "os.name": "ID of /etc/os-release",
    "os.version": "VERSION_ID of /etc/os-release",
    "os.kind": "linux, or another system (windows, freebsd, unix ...)",
    "os.architecture": "the processor it is made for, in OCI's word",
    "os.foreign": "its architecture is not the host's",
    "os.init": "an init system that would be process 1 (systemd, openrc, sysvinit ...)",
    "os.kernel": "a kernel of its own is in it, by version",
    "os.modules": "kernel modules it carries or loads, by name",
    "os.modules_loaded": "kernel modules it has loaded at its start, by name",
    "os.bootloader": "a boot loader is in it",
    "os.disk": "it is, or holds, a machine's disk that boots by itself",
    "os.distroless": "neither a shell nor a package manager",
    "services": "services that are enabled or installed to run, by name",
    "services.kernel": "services of it that are bound to the kernel they run on, by name",
    "services.started": "services its command or supervisor starts, by name",
    "supervisor": "a process supervisor that is its main program",
    "libc": "glibc, musl, none (static) ...",
    "kernel.minimum": "the oldest Linux kernel its programs say they need",
    "programs.setuid": "set-user-id programs, by path",
    "programs.interesting": "programs that need the kernel's favour (mount, iptables, qemu ...)",
    "packages.count": "packages installed",
    "desktop": "a graphical desktop or display server",
    "database": "database servers, by name",
    # how large it is
    "size.bytes": "unpacked",
    "size.layers": "layers",
    # how it is to run
    "run.command": "its main program",
    "run.interesting": "its main program is one that needs the kernel's favour",
    "run.user": "the user it runs as (empty: root)",
    "run.ports": "ports it serves, like 80/tcp",
    "run.volumes": "where it keeps data",
    "run.stop_signal": "its stop signal, when it is not SIGTERM",
    "run.healthcheck": "it has a health check",
    "run.one_shot": "it ends by itself",
    "run.replicas": "how many of it run",
    "run.privileged": "asked to be privileged",
    "run.capabilities": "capabilities asked for",
    "run.devices": "host devices asked for",
    "run.host_namespaces": "namespaces of the host asked for (network, pid, ipc ...)",
    "run.host_paths": "directories of the host asked for",
    "run.engine_socket": "asked for an engine's socket",
    "run.sysctls": "kernel settings asked for that a container cannot have",
    "run.security_off": "confinement asked to be off (seccomp, apparmor ...)",
    "run.machine": "parts of a machine asked for, which only a vm has",
    "run.isolation": "the isolation asked for by name",
    "run.memory_bytes": "memory limit asked for",
    "run.cpus": "processors asked for",
    "app.services": "how many services its app has",
    # what its owner says (options, labels, policy)
    "stated.trust": "own, known or untrusted",
    "stated.tenants": "others with whom it shares the host do not trust it",
    "stated.start_budget_ms": "how fast it must start",
    "stated.memory_budget_bytes": "what one may cost in memory",
    "stated.lifetime": "seconds, hours or years",
    "stated.state": "stateless, or where its state is",
    "stated.change": "how often it is changed (daily, never ...)",
    "stated.compliance": "a rule demands a kernel of its own",
    # what was seen of it, by a run or a comparison
    "seen.syscalls": "system calls it made that a container is denied",
    "seen.failed": "forms in which it did not work",
    "measured.start_ms.container": "median time to its first output, as a container",
    "measured.start_ms.vm": "the same as a vm",
    "measured.memory_bytes.container": "host memory of one, as a container",
    "measured.memory_bytes.vm": "the same as a vm",
    "measured.work_ratio": "the vm's speed of work as a share of the container's (the worst)",
    "measured.isolation.container": "isolation score, 0 to 100",
    "measured.isolation.vm": "isolation score, 0 to 100",
    # the host
    "host.accelerator": "kvm or tcg",
    "host.kernel": "the kernel's version",
    "host.vm": "vms can run here",
    "host.container": "containers can run here",
}


@dataclass(frozen=True)
class Fact:
    """One finding; `source` says where, so that its reader can look: a path, an option, a run."""

    key: str
    value: Value
    source: str


@dataclass(frozen=True)
class Facts:
    """All that is known of one subject; `kind` is `image`, `disk` or `service`."""

    kind: str
    name: str
    all: tuple[Fact, ...] = ()

    def get(self, key: str) -> Fact | None:
        """The first fact with a key."""
        return next((fact for fact in self.all if fact.key == key), None)
