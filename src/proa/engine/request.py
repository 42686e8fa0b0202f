"""From Docker's create body and an image's configuration to a `Spec`.  Pure.

What the engine cannot do yet is refused by name here; nothing asked for is dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proa import capabilities
from proa.engine import hardware, health, limits
from proa.engine.fields import Fields
from proa.engine.instance import ExtraDisk
from proa.errors import Invalid, Unsupported
from proa.spec import Endpoint, Hardware, Limits, Mount, Port, Process, Security, Spec

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
AUTO = "auto"
HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,62})")

MACHINE_GRACE_SECONDS = 60  # a whole system ends slower than a process

# What is said to a process, and a machine that boots a disk does not hear.
OF_A_PROCESS = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")
OF_A_PROCESS_ON_HOST = (
    "CapAdd", "CapDrop", "GroupAdd", "SecurityOpt", "Sysctls", "Ulimits", "Tmpfs", "ReadonlyRootfs",
    "ShmSize", "PidsLimit",
)  # fmt: skip

# Values of HostConfig that mean "the default"; anything else is not supported yet.
DEFAULTS_ONLY: dict[str, tuple[Any, ...]] = {
    "Privileged": (False,),
    "PidMode": ("", "private"),
    "IpcMode": ("", "private", "shareable"),
    "UTSMode": ("",),
    "UsernsMode": ("", "private"),
    "CgroupnsMode": ("", "private"),
    "CgroupParent": ("",),
    "Devices": ([],),
    "DeviceRequests": ([],),
    "DeviceCgroupRules": ([],),
    "VolumesFrom": ([],),
    "Links": ([],),
    "Init": (False,),
    "OomKillDisable": (False,),
    "Runtime": ("", "proa"),
    "VolumeDriver": ("",),
}


def merge(
    body: Any, image: Mapping[str, Any], instance_id: str, machine: Hardware | None = None
) -> Spec:
    """The Spec of a create request.  Raises Invalid or Unsupported, naming the field.

    `machine` is the request's, when its disk has been found.
    """
    config = Fields(body)
    host = config.fields("HostConfig")
    _refuse_unsupported(body)
    defaults = Fields(image, "image")
    machine = machine or hardware.parse(body)
    grace = MACHINE_GRACE_SECONDS if machine.disk else Spec.stop_timeout_seconds
    spec = Spec(
        image=config.text("Image"),
        isolation=isolation_name(host.text("Isolation")),
        process=_boot(config, machine) if machine.disk else _process(config, defaults),
        hostname=_hostname(config.text("Hostname") or instance_id[:12]),
        network=_network(config, host),
        endpoints=_endpoints(config, _network(config, host)),
        mounts=_mounts(config, host, defaults),
        ports=_ports(config, host, defaults),
        limits=limits.limits(host),
        security=_security(host),
        labels={**defaults.texts("Labels"), **config.texts("Labels")},
        sysctls=_sysctls(host),
        rlimits=tuple(_rlimit(item) for item in host.objects("Ulimits")),
        extra_hosts=tuple(extra_host(item) for item in host.strings("ExtraHosts")),
        nameservers=host.strings("Dns"),
        shm_bytes=host.integer("ShmSize") or Spec.shm_bytes,
        stop_signal=config.text("StopSignal") or defaults.text("StopSignal") or "SIGTERM",
        stop_timeout_seconds=config.integer("StopTimeout") if config.has("StopTimeout") else grace,
        remove=host.boolean("AutoRemove"),
        hardware=machine,
        health=health.merge(config, defaults),
    )
    return spec


def _refuse_unsupported(body: Any) -> None:
    host = Fields(body).fields("HostConfig")
    raw = (body or {}).get("HostConfig") or {}
    for name, allowed in DEFAULTS_ONLY.items():
        if host.has(name) and raw[name] not in allowed:
            raise Unsupported(
                f"'{name}' {raw[name]!r} is not supported", hint="leave it out to use the default"
            )
    policy = host.fields("RestartPolicy").text("Name")
    if policy not in ("", "no"):
        raise Unsupported(f"restart policy '{policy}' is not supported yet")


def leaves_the_form(body: Any) -> bool:
    """Whether a create request leaves it to advice how the instance is isolated."""
    return Fields(body).fields("HostConfig").text("Isolation") == AUTO


def isolation_name(name: str) -> str:
    """The isolation meant by a name; Docker's default is ours too."""
    return {"": "container", "default": "container"}.get(name, name)


def _process(config: Fields, image: Fields) -> Process:
    entrypoint, command = config.strings("Entrypoint"), config.strings("Cmd")
    if not entrypoint:
        command = command or image.strings("Cmd")
        if not config.has("Entrypoint"):
            entrypoint = image.strings("Entrypoint")
    if entrypoint == ("",):  # Docker's way to reset the image's
        entrypoint = ()
    arguments = entrypoint + command
    if not arguments:
        raise Invalid("no command specified", hint="give a command or an entrypoint")
    return Process(
        arguments=arguments,
        environment=merge_environment(image.strings("Env"), config.strings("Env")),
        directory=_directory(config.text("WorkingDir") or image.text("WorkingDir") or "/"),
        user=config.text("User") or image.text("User"),
        groups=config.fields("HostConfig").strings("GroupAdd"),
        terminal=config.boolean("Tty"),
        stdin=config.boolean("OpenStdin"),
    )


def _boot(config: Fields, machine: Hardware) -> Process:
    """A whole machine runs its own system; its standard streams are its first serial port."""
    host = config.fields("HostConfig")
    for fields, names in ((config, OF_A_PROCESS), (host, OF_A_PROCESS_ON_HOST)):
        for name in names:
            if fields.has(name) and fields.raw(name) not in ("", "/", False, 0, [], {}):
                raise Invalid(
                    f"'{fields.path(name)}' is not for a machine that boots a disk",
                    hint="its own system decides that; see exec and --cloud-init",
                )
    return Process(("boot", machine.disk), terminal=config.boolean("Tty"), stdin=True)


def merge_environment(*lists: tuple[str, ...]) -> tuple[str, ...]:
    """Later settings win; `KEY` without `=` removes it, as Docker does."""
    settings: dict[str, str] = {}
    for item in (item for items in lists for item in items):
        key, equals, _ = item.partition("=")
        if not key:
            raise Invalid(f"environment setting '{item}' has no name")
        settings.pop(key, None)
        if equals:
            settings[key] = item
    return tuple(settings.values())


def _directory(path: str) -> str:
    if not path.startswith("/"):
        path = "/" + path
    return path


def _hostname(name: str) -> str:
    if not HOSTNAME.fullmatch(name):
        raise Invalid(f"invalid hostname '{name}'", hint="letters, digits, '-' and '.', at most 63")
    return name


def _network(config: Fields, host: Fields) -> str:
    mode = host.text("NetworkMode")
    if config.boolean("NetworkDisabled"):
        mode = "none"
    mode = {"": "bridge", "default": "bridge"}.get(mode, mode)
    if mode == "host" or mode.startswith(("container:", "ns:")):
        raise Unsupported(
            f"network '{mode}' is not supported", hint="use 'bridge', 'none' or a network's name"
        )
    return mode


def _endpoints(config: Fields, network: str) -> tuple[Endpoint, ...]:
    """The networks to be in, the one of the mode first; none for just that one."""
    given = config.fields("NetworkingConfig").fields("EndpointsConfig")
    found = {name: endpoint(name, given.fields(name)) for name in given.names()}
    found = {"bridge" if name == "default" else name: item for name, item in found.items()}
    if network == "none" or not found:
        return ()
    first = found.pop(network, Endpoint(network))
    return (first, *found.values())


def endpoint(network: str, settings: Fields) -> Endpoint:
    """Docker's EndpointSettings.  Raises Invalid for a name that could be none."""
    aliases = settings.strings("Aliases")
    for alias in aliases:
        if not HOSTNAME.fullmatch(alias):
            raise Invalid(f"invalid network alias '{alias}'")
    address = settings.fields("IPAMConfig").text("IPv4Address")
    return Endpoint("bridge" if network == "default" else network, aliases, address)


# -- mounts -----------------------------------------------------------------------------------


def _mounts(config: Fields, host: Fields, image: Fields) -> tuple[Mount, ...]:
    mounts = [_bind(item) for item in host.strings("Binds")]
    mounts += [_mount(item) for item in host.objects("Mounts")]
    mounts += [
        Mount("tmpfs", "", _target(path), options=options)
        for path, options in host.texts("Tmpfs").items()
    ]
    taken = {mount.target for mount in mounts}
    if len(taken) < len(mounts):
        raise Invalid("two mounts have the same target")
    volumes = (*image.fields("Volumes").names(), *config.fields("Volumes").names())
    for path in dict.fromkeys(volumes):
        target = _target(path)
        if target not in taken:
            mounts.append(Mount("volume", "", target))
            taken.add(target)
    return tuple(mounts)


def _bind(text: str) -> Mount:
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or "" in parts:
        raise Invalid(f"invalid volume specification '{text}'", hint="use SOURCE:TARGET[:ro]")
    if len(parts) == 1:
        return Mount("volume", "", _target(parts[0]))
    options = parts[2].split(",") if len(parts) == 3 else []
    unknown = set(options) - {"ro", "rw", "z", "Z", "rprivate", "private", "nocopy"}
    if unknown:
        raise Invalid(f"unknown mount option '{min(unknown)}' in '{text}'")
    kind = "bind" if parts[0].startswith("/") else "volume"
    if kind == "volume" and not VOLUME_NAME.fullmatch(parts[0]):
        raise Invalid(f"invalid volume name '{parts[0]}'", hint="a host path must be absolute")
    return Mount(kind, parts[0], _target(parts[1]), "ro" in options, make=kind == "bind")


def _mount(item: Fields) -> Mount:
    kind = item.text("Type")
    source, target = item.text("Source"), _target(item.text("Target"))
    if kind not in ("bind", "volume", "tmpfs"):
        raise Invalid(f"unknown mount type '{kind}'")
    if kind == "bind" and not source.startswith("/"):
        raise Invalid(f"invalid mount source '{source}': it must be an absolute path")
    if kind == "volume" and source and not VOLUME_NAME.fullmatch(source):
        raise Invalid(f"invalid volume name '{source}'")
    options = ""
    if kind == "tmpfs":
        inner = item.fields("TmpfsOptions")
        sizes = [f"size={inner.integer('SizeBytes')}"] if inner.integer("SizeBytes") else []
        modes = [f"mode={inner.integer('Mode'):o}"] if inner.integer("Mode") else []
        options = ",".join(sizes + modes)
    return Mount(kind, source, target, item.boolean("ReadOnly"), options)


def addition(body: Any) -> Mount:
    """A volume or bind mount to be added.  Raises Invalid."""
    mount = _mount(Fields(body))
    if mount.kind == "tmpfs" or not mount.source:
        raise Invalid("only a named volume or a host's directory can be added")
    return mount


def disk(body: Any) -> tuple[ExtraDisk, int]:
    """A disk to be added: `Path`, or `Size` in bytes; `Format`, `ReadOnly`.  Raises Invalid."""
    given = Fields(body)
    path, size, kind = given.text("Path"), given.integer("Size"), given.text("Format")
    if bool(path) == bool(size):
        raise Invalid("give either the path of a disk or the size of an empty one")
    kind = kind or ("qcow2" if path.endswith(".qcow2") else "raw")
    if kind not in ("raw", "qcow2"):
        raise Invalid(f"disks of format '{kind}' cannot be added", hint="raw or qcow2")
    return ExtraDisk(path, kind, given.boolean("ReadOnly")), size


def _target(path: str) -> str:
    """A mount target: absolute, `.` and `//` folded, never through `..` (CVE-2022-23648)."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts:
        raise Invalid(f"invalid mount target '{path}': it must be absolute, without '..'")
    if not parts:
        raise Invalid("invalid mount target '/': it cannot be the root")
    return "/" + "/".join(parts)


# -- ports ------------------------------------------------------------------------------------


def _ports(config: Fields, host: Fields, image: Fields) -> tuple[Port, ...]:
    ports: list[Port] = []
    bindings = host.fields("PortBindings")
    for name in bindings.names():
        number, protocol = parse_port(name)
        for item in bindings.objects(name) or (Fields({}),):
            wanted = item.text("HostPort")
            ports.append(Port(number, protocol, item.text("HostIp"), _host_port(wanted)))
    if host.boolean("PublishAllPorts"):
        known = {(port.port, port.protocol) for port in ports}
        exposed = (*image.fields("ExposedPorts").names(), *config.fields("ExposedPorts").names())
        for name in dict.fromkeys(exposed):
            number, protocol = parse_port(name)
            if (number, protocol) not in known:
                ports.append(Port(number, protocol))
    return tuple(ports)


def parse_port(name: str) -> tuple[int, str]:
    """`80/tcp` or `80` as number and protocol."""
    number, _, protocol = name.partition("/")
    protocol = protocol or "tcp"
    if (
        protocol not in ("tcp", "udp")
        or not number.isascii()
        or not number.isdigit()
        or not 0 < int(number) < 65536
    ):
        raise Invalid(f"invalid port '{name}'", hint="use NUMBER/tcp or NUMBER/udp")
    return int(number), protocol


def _host_port(text: str) -> int:
    if text and (not text.isascii() or not text.isdigit() or int(text) > 65535):
        raise Invalid(f"invalid host port '{text}'")
    return int(text or 0)


# -- limits and safety --------------------------------------------------------------------------


def limits_update(body: Any, present: Limits) -> Limits:
    """Limits after an update request: fields it does not name stay."""
    host = Fields(body, "HostConfig")
    policy = host.fields("RestartPolicy").text("Name")
    if policy not in ("", "no"):
        raise Unsupported(f"restart policy '{policy}' is not supported yet")
    return limits.updated(limits.limits(host), present)


def _security(host: Fields) -> Security:
    add, drop = host.strings("CapAdd"), host.strings("CapDrop")
    capabilities.mask(add, drop)  # raises for an unknown name, before anything is made
    seccomp, privileges = "default", False
    for option in host.strings("SecurityOpt"):
        key, _, value = option.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges":
            privileges = value == "false"
        elif key == "seccomp" and value in ("unconfined", "default", "builtin"):
            seccomp = "unconfined" if value == "unconfined" else "default"
        elif (key, value) not in (("apparmor", "unconfined"), ("label", "disable")):
            raise Unsupported(f"security option '{option}' is not supported")
    return Security(add, drop, seccomp, privileges, host.boolean("ReadonlyRootfs"))


def _sysctls(host: Fields) -> tuple[tuple[str, str], ...]:
    settings = host.texts("Sysctls")
    for name in settings:
        namespaced = name.startswith(
            ("net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm")
        )
        if not namespaced or "/" in name or ".." in name:
            raise Invalid(
                f"sysctl '{name}' is not namespaced", hint="net.*, kernel.shm*, fs.mqueue.*"
            )
    return tuple(settings.items())


def _rlimit(item: Fields) -> tuple[str, int, int]:
    return item.text("Name"), item.integer("Soft"), item.integer("Hard")


def extra_host(text: str) -> tuple[str, str]:
    """Name and address of an `--add-host`.  Raises Invalid."""
    name, _, address = text.partition(":")
    if not name or not address or any(c.isspace() for c in text):
        raise Invalid(f"invalid extra host '{text}'", hint="use NAME:ADDRESS")
    return name, address


def with_limits(spec: Spec, wanted: Limits) -> Spec:
    """The same spec with other limits."""
    return replace(spec, limits=limits.lifted(wanted))
