"""From a `Spec` and an isolation's `Sources` to launch plans: pure, and the same for all."""

from __future__ import annotations

from dataclasses import dataclass

from proa import capabilities, plan
from proa.plan import Step
from proa.resources import Sources
from proa.spec import Process, Security, Spec

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Files:
    """Content of the three files Docker writes for an instance; empty ones are left alone."""

    hosts: str = ""
    hostname: str = ""
    resolv: str = ""


def main_plan(spec: Spec, sources: Sources, files: Files) -> tuple[Step, ...]:
    """The LAUNCH plan: root, mounts, identity, then the process."""
    steps: list[Step] = [plan.Hostname(spec.hostname), *sources.before, plan.Root(sources.root)]
    steps += _mounts(spec, sources)
    for path, content in (
        ("/etc/hostname", files.hostname),
        ("/etc/hosts", files.hosts),
        ("/etc/resolv.conf", files.resolv),
    ):
        if content and not any(mount.target == path for mount in spec.mounts):
            steps.append(plan.Cover(path, "0644", content))
    steps += sources.after
    steps += (plan.Rlimit(*limit) for limit in spec.rlimits)
    steps += _surroundings(spec.process, spec.hostname)
    if spec.security.readonly_root:
        steps.append(plan.ReadOnly("/"))
    return tuple(steps) + _process(spec.process, spec.security)


def exec_plan(spec: Spec, process: Process) -> tuple[Step, ...]:
    """The EXEC plan of a further process in the same place.

    In a system of its own there is nothing to keep it from: that system's users and rights hold.
    """
    if spec.hardware.disk:
        surroundings = _surroundings(process, "", make_directory="")
        terminal = (plan.Terminal(),) if process.terminal else ()
        identity = plan.User(process.user, process.groups)
        return (*surroundings, *terminal, identity, plan.Exec(process.arguments))
    steps: list[Step] = [plan.Rlimit(*limit) for limit in spec.rlimits]
    steps += _surroundings(process, spec.hostname, make_directory="")
    return tuple(steps) + _process(process, spec.security)


def builtin_plan(*argv: str) -> tuple[Step, ...]:
    """An EXEC plan for one of the native program's own commands, as the place's root user."""
    mask = capabilities.mask()
    return (plan.Capabilities(f"{mask:x}"), plan.NoNewPrivileges(), plan.Builtin(argv))


def idle_plan(spec: Spec, sources: Sources) -> tuple[Step, ...]:
    """A LAUNCH plan that only waits: for work on the files of a stopped instance."""
    steps: list[Step] = [*sources.before, plan.Root(sources.root), *_mounts(spec, sources)]
    return tuple(steps) + builtin_plan("pause")


def _mounts(spec: Spec, sources: Sources) -> list[Step]:
    """Shares and tmpfs mounts, parents before children whatever the order asked for."""
    placed = iter(sources.shares)
    steps: list[tuple[str, Step]] = []
    for mount in spec.mounts:
        target = mount.target
        if mount.kind == "tmpfs":
            flags = ",".join(["nosuid", "nodev", *(["ro"] if mount.readonly else [])])
            steps.append((target, plan.Directory(target)))
            steps.append((target, plan.MountFs("tmpfs", "tmpfs", target, flags, mount.options)))
        else:
            flags = "ro" if mount.readonly else ""
            steps.append((target, plan.Attach(next(placed), target, flags)))
    if spec.shm_bytes != Spec.shm_bytes:
        data = f"mode=1777,size={spec.shm_bytes}"
        steps.append(
            ("/dev/shm", plan.MountFs("tmpfs", "shm", "/dev/shm", "nosuid,nodev,noexec", data))
        )
    return [step for _, step in sorted(steps, key=lambda item: item[0].rstrip("/").count("/"))]


def _surroundings(process: Process, hostname: str, make_directory: str = "make") -> list[Step]:
    settings = {item.partition("=")[0]: item for item in process.environment}
    defaults = [DEFAULT_PATH, *([f"HOSTNAME={hostname}"] if hostname else [])]
    if process.terminal:
        defaults.append("TERM=xterm")
    for item in defaults:
        settings.setdefault(item.partition("=")[0], item)
    steps: list[Step] = [plan.Environment(item) for item in settings.values()]
    steps += [plan.Umask(), plan.WorkDirectory(process.directory or "/", make_directory)]
    return steps


def _process(process: Process, security: Security) -> tuple[Step, ...]:
    mask = capabilities.mask(security.add_capabilities, security.drop_capabilities)
    seccomp = plan.Seccomp(security.seccomp)
    steps: list[Step] = [plan.Terminal()] if process.terminal else []
    if security.new_privileges:  # seccomp(2) then takes CAP_SYS_ADMIN, which is about to go
        steps.append(seccomp)
    steps.append(plan.Capabilities(f"{mask:x}"))
    if not security.new_privileges:
        steps.append(plan.NoNewPrivileges())
    steps.append(plan.User(process.user, process.groups))
    if not security.new_privileges:
        steps.append(seccomp)
    steps.append(plan.Exec(process.arguments))
    return tuple(steps)
