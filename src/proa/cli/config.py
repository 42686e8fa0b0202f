"""Options of `run` and `create` made into the API's create request (Docker's shape)."""

from __future__ import annotations

import os

from proa.cli import health, limits
from proa.cli.options import Option, Values, byte_size
from proa.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = (
    Option("--isolation", "text", "container|vm|auto", "what isolates it; auto: as advised"),
    Option("--vm", "flag", "", "short for --isolation vm"),
    Option("--name", "text", "NAME", "name of the instance"),
    Option("-i, --interactive", "flag", "", "keep standard input open"),
    Option("-t, --tty", "flag", "", "give the process a terminal"),
    Option("--rm", "flag", "", "remove the instance when it ends"),
    Option("-e, --env", "list", "KEY[=VALUE]", "set an environment variable"),
    Option("--env-file", "list", "FILE", "read environment variables from a file"),
    Option("-w, --workdir", "text", "PATH", "working directory inside"),
    Option("-u, --user", "text", "USER[:GROUP]", "user inside"),
    Option("--group-add", "list", "GROUP", "additional group inside"),
    Option("-v, --volume", "list", "SOURCE:TARGET[:ro]", "mount a directory or a volume"),
    Option("--mount", "list", "KEY=VALUE,...", "mount, in long form"),
    Option("--tmpfs", "list", "TARGET[:OPTIONS]", "mount a tmpfs"),
    Option("-p, --publish", "list", "[[ADDRESS:]PORT:]PORT", "publish a port on the host"),
    Option("-P, --publish-all", "flag", "", "publish every exposed port on a free one"),
    Option("--expose", "list", "PORT", "expose a port"),
    Option("--entrypoint", "text", "COMMAND", "replace the image's entrypoint"),
    *limits.OPTIONS,
    Option("--net, --network", "list", "NAME", "network: bridge, none, or one made; repeatable"),
    Option("--network-alias", "list", "NAME", "a further name of it in its first network"),
    Option("--ip", "text", "ADDRESS", "its address in its first network"),
    Option("-h, --hostname", "text", "NAME", "host name inside"),
    Option("-l, --label", "list", "KEY[=VALUE]", "label"),
    Option("--read-only", "flag", "", "make the root file system read-only"),
    Option("--cap-add", "list", "CAPABILITY", "add a capability"),
    Option("--cap-drop", "list", "CAPABILITY", "drop a capability"),
    Option("--security-opt", "list", "OPTION", "security option"),
    Option("--stop-signal", "text", "SIGNAL", "signal that stops the instance"),
    Option("--stop-timeout", "integer", "SECONDS", "grace between stop and kill"),
    *health.OPTIONS,
    Option("--add-host", "list", "NAME:ADDRESS", "line for /etc/hosts"),
    Option("--dns", "list", "ADDRESS", "name server"),
    Option("--dns-search", "list", "DOMAIN", "search domain"),
    Option("--ulimit", "list", "NAME=SOFT[:HARD]", "process limit"),
    Option("--sysctl", "list", "NAME=VALUE", "kernel parameter inside"),
    Option("--shm-size", "bytes", "BYTES", "size of /dev/shm"),
    Option("--cidfile", "text", "FILE", "write the id to a file"),
    Option("--pull", "text", "missing|always|never", "when to pull the image"),
    Option("--platform", "text", "OS/ARCH", "the platform of the image"),
    Option("--pause-idle", "integer", "SECONDS", "stop it when idle so long, until it is called"),
    Option("--cdrom", "list", "FILE", "a CD in the machine's drive"),
    Option("--disk-size", "bytes", "BYTES", "size of the machine's disk, like 20g"),
    Option("--disk-format", "text", "FORMAT", "the disk's format, when it shall not be guessed"),
    Option("--boot", "text", "disk|cdrom", "what the machine boots first"),
    Option("--machine", "text", "auto|pc|q35|virt", "the kind of machine"),
    Option("--accel", "text", "auto|kvm|tcg", "the vm's accelerator, within the engine's policy"),
    Option("--start", "text", "auto|boot|template", "how the vm may be started"),
    Option("--kernel", "text", "FILE", "the vm's kernel: a vmlinuz with its modules beside it"),
    Option("--cpu-model", "text", "NAME", "the vm's processor: a model QEMU knows"),
    Option("--firmware", "text", "auto|bios|uefi|secureboot", "the machine's firmware"),
    Option("--tpm", "flag", "", "a TPM 2.0 in the machine"),
    Option("--disk-bus", "text", "virtio|ide|sata|nvme|scsi", "how the machine sees its disk"),
    Option("--disk-cache", "text", "MODE", "writeback, none, writethrough or unsafe (for vms)"),
    Option("--nic", "text", "virtio|e1000|rtl8139", "the machine's network card"),
    Option("--display", "text", "none|std|virtio", "the machine's graphics card"),
    Option("--shares", "text", "auto|9p|virtiofs", "how a vm gets what -v shares"),
    Option("--cloud-init", "text", "FILE|none", "user data for the machine's cloud-init"),
    Option("--cloud-init-network", "text", "FILE", "network configuration for it"),
    Option("--privileged", "flag", "", "not supported: see --cap-add, or --vm"),
)  # fmt: skip

# The API's field for an option, when the value goes there as it is and only if given.
_PLAIN = (
    ("Hostname", "hostname"), ("User", "user"), ("WorkingDir", "workdir"),
    ("StopSignal", "stop_signal"), ("StopTimeout", "stop_timeout"),
)  # fmt: skip
_PLAIN_HOST = (
    ("CapAdd", "cap_add"), ("CapDrop", "cap_drop"), ("SecurityOpt", "security_opt"),
    ("ExtraHosts", "add_host"), ("Dns", "dns"), ("DnsSearch", "dns_search"),
    ("ShmSize", "shm_size"), ("ReadonlyRootfs", "read_only"),
    ("AutoRemove", "rm"), ("PublishAllPorts", "publish_all"), ("GroupAdd", "group_add"),
)  # fmt: skip


def body(values: Values, arguments: list[str]) -> dict[str, Any]:
    """The create request for `IMAGE [COMMAND...]`.  Raises Invalid and Unsupported."""
    _refuse(values)
    hardware = _hardware(values)
    image, *command = arguments or [""]
    if (values.vm or values.isolation == "auto") and is_disk(image):
        hardware["Disk"], image = os.path.abspath(image), ""
    if values.platform and not image:
        hardware["Platform"] = values.platform
    if not image and not hardware:
        raise Invalid("no image was named", hint="an image, or with --vm a disk's file or --cdrom")
    config: dict[str, Any] = {"Image": image}
    if hardware:
        config["Proa"] = hardware
    if command:
        config["Cmd"] = command
    if "entrypoint" in values.given:
        config["Entrypoint"] = [values.entrypoint]
    for field, key in _PLAIN:
        if key in values.given:
            config[field] = getattr(values, key)
    if variables := environment(values):
        config["Env"] = variables
    if values.label:
        config["Labels"] = pairs(values.label)
    if check := health.check(values):
        config["Healthcheck"] = check
    config.update(Tty=values.tty, OpenStdin=values.interactive, StdinOnce=values.interactive)
    host = _host_config(values)
    anonymous = _volumes(values, host)
    if anonymous:
        config["Volumes"] = anonymous
    exposed = _ports(values, host)
    if exposed:
        config["ExposedPorts"] = exposed
    if values.network:
        _networks(values, config, host)
    config["HostConfig"] = host
    return config


def _networks(values: Values, config: dict[str, Any], host: dict[str, Any]) -> None:
    """The first network is the mode; what is said of it, and of others, is in endpoints."""
    host["NetworkMode"] = values.network[0]
    endpoints: dict[str, dict[str, Any]] = {name: {} for name in values.network}
    if values.network_alias:
        endpoints[values.network[0]]["Aliases"] = values.network_alias
    if values.ip:
        endpoints[values.network[0]]["IPAMConfig"] = {"IPv4Address": values.ip}
    if len(endpoints) > 1 or any(endpoints.values()):
        config["NetworkingConfig"] = {"EndpointsConfig": endpoints}


_HARDWARE = (
    ("PauseIdleSeconds", "pause_idle"),
    ("DiskBytes", "disk_size"), ("Format", "disk_format"), ("Boot", "boot"),
    ("Machine", "machine"), ("Firmware", "firmware"), ("Tpm", "tpm"), ("DiskBus", "disk_bus"),
    ("Cache", "disk_cache"), ("Nic", "nic"), ("Display", "display"), ("Shares", "shares"),
    ("Accelerator", "accel"), ("Start", "start"), ("Cpu", "cpu_model"),
)  # fmt: skip
_DISK_ENDINGS = (".qcow2", ".raw", ".img", ".vmdk", ".vhdx", ".vdi")


def is_disk(name: str) -> bool:
    """Whether the name of what to run as a vm is that of a disk's file."""
    return name.endswith(_DISK_ENDINGS) or ("/" in name and os.path.isfile(name))


def _hardware(values: Values) -> dict[str, Any]:
    found = {field: getattr(values, key) for field, key in _HARDWARE if key in values.given}
    if values.cdrom:
        found["Cdroms"] = [os.path.abspath(path) for path in values.cdrom]
    if values.kernel:
        found["Kernel"] = os.path.abspath(values.kernel)
    if values.cloud_init:
        told = values.cloud_init
        found["CloudInit"] = told if told == "none" else _content(told)
    if values.cloud_init_network:
        found["CloudInitNetwork"] = _content(values.cloud_init_network)
    return found


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Invalid(f"cannot read '{path}': {reason}") from None


def _refuse(values: Values) -> None:
    if values.privileged:
        raise Unsupported(
            "'--privileged' is not supported",
            hint="add what is needed with --cap-add, or use --vm, which has a kernel of its own",
        )
    if values.pull not in (None, "missing", "always", "never"):
        raise Invalid(f"'{values.pull}' is not a value for '--pull': missing, always or never")
    if values.vm and values.isolation not in (None, "vm"):
        raise Invalid(f"'--vm' contradicts '--isolation {values.isolation}'")


def _host_config(values: Values) -> dict[str, Any]:
    host: dict[str, Any] = {}
    for field, key in _PLAIN_HOST:
        if key in values.given:
            host[field] = getattr(values, key)
    if values.vm or values.isolation:
        host["Isolation"] = "vm" if values.vm else values.isolation
    host |= limits.resources(values)
    if values.ulimit:
        host["Ulimits"] = [_ulimit(text) for text in values.ulimit]
    if values.sysctl:
        host["Sysctls"] = pairs(values.sysctl)
    if values.tmpfs:
        host["Tmpfs"] = {path: rest for path, _, rest in (t.partition(":") for t in values.tmpfs)}
    if values.mount:
        host["Mounts"] = [mount(text) for text in values.mount]
    return host


def pairs(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` words as a dict."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def environment(values: Values) -> list[str]:
    """`KEY=VALUE` words; a KEY alone takes our own value and is left out when we have none."""
    words = [line for path in values.env_file for line in _env_file(path)]
    result = []
    for word in words + values.env:
        key, equals, _ = word.partition("=")
        if not key:
            raise Invalid(f"'{word}' is not an environment variable", hint="KEY=VALUE, or KEY")
        if equals:
            result.append(word)
        elif key in os.environ:
            result.append(f"{key}={os.environ[key]}")
    return result


def _env_file(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip("\r\n").lstrip() for line in file]
    except UnicodeDecodeError:
        raise Invalid(f"the env file '{path}' is not UTF-8") from None
    return [line for line in lines if line and not line.startswith("#")]


def _ulimit(text: str) -> dict[str, object]:
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard if colon else soft)}
    except ValueError:
        raise Invalid(f"'{text}' is not a limit", hint="like nofile=1024:2048") from None


# -- volumes ------------------------------------------------------------------------------------


def _volumes(values: Values, host: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Put binds into `host`; anonymous volumes are the result."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for text in values.volume:
        source, colon, rest = text.partition(":")
        if not colon:
            anonymous[text] = {}
        else:
            binds.append(f"{_source(source)}:{rest}")
    if binds:
        host["Binds"] = binds
    return anonymous


def _source(text: str) -> str:
    """A host path made absolute; a name (of a volume) as it is."""
    if text == "~" or text.startswith("~/"):
        return os.path.expanduser(text)
    return os.path.abspath(text) if text.startswith(".") else text


_MOUNT_KEYS = {
    "type": "Type", "source": "Source", "src": "Source",
    "target": "Target", "destination": "Target", "dst": "Target",
}  # fmt: skip


def mount(text: str) -> dict[str, Any]:
    """`type=bind,source=/a,target=/b,readonly` as the API's mount.  Raises Invalid."""
    result: dict[str, Any] = {"Type": "volume"}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        key = key.strip().lower()
        if key in _MOUNT_KEYS:
            result[_MOUNT_KEYS[key]] = value
        elif key in ("readonly", "ro"):
            result["ReadOnly"] = value.lower() not in ("false", "0") if equals else True
        elif key == "tmpfs-size":
            result.setdefault("TmpfsOptions", {})["SizeBytes"] = _size(value, text)
        elif key == "tmpfs-mode":
            result.setdefault("TmpfsOptions", {})["Mode"] = _octal(value, text)
        else:
            raise Invalid(f"unknown key '{key}' in the mount '{text}'")
    if not result.get("Target"):
        raise Invalid(f"the mount '{text}' has no target", hint="add target=/path")
    if result["Type"] == "bind":
        result["Source"] = _source(result.get("Source", ""))
    return result


def _size(value: str, text: str) -> int:
    try:
        return byte_size(value)
    except ValueError:
        raise Invalid(f"'{value}' in the mount '{text}' is not a size") from None


def _octal(value: str, text: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise Invalid(f"'{value}' in the mount '{text}' is not a mode") from None


# -- ports --------------------------------------------------------------------------------------


def _ports(values: Values, host: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Put port bindings into `host`; the exposed ports are the result."""
    exposed: dict[str, dict[str, str]] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in values.publish:
        for port, address, host_port in published(text):
            exposed[port] = {}
            bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host_port})
    for text in values.expose:
        numbers, protocol = _protocol(text)
        for number in _range(numbers, text):
            exposed[f"{number}/{protocol}"] = {}
    if bindings:
        host["PortBindings"] = bindings
    return exposed


def published(text: str) -> list[tuple[str, str, str]]:
    """`[[ADDRESS:]PORT:]PORT[/PROTOCOL]` as (port/protocol, address, host port), one per port."""
    rest, protocol = _protocol(text)
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise _bad_port(text)
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    outer, colon, inner = rest.rpartition(":")
    if ":" in outer:
        raise _bad_port(text)
    ports = _range(inner, text)
    if not colon or not outer:
        return [(f"{port}/{protocol}", address, "") for port in ports]
    hosts = _range(outer, text)
    if len(hosts) != len(ports):
        raise Invalid(f"the port ranges of '{text}' differ in length")
    return [
        (f"{port}/{protocol}", address, str(outside))
        for port, outside in zip(ports, hosts, strict=True)
    ]


def _protocol(text: str) -> tuple[str, str]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise Invalid(f"unknown protocol '{protocol}' in '{text}'", hint="tcp or udp")
    return rest, protocol


def _range(numbers: str, text: str) -> range:
    first, _, last = numbers.partition("-")
    try:
        result = range(int(first), int(last or first) + 1)
    except ValueError:
        raise _bad_port(text) from None
    if not result or result[0] < 0 or result[-1] > 65535:
        raise _bad_port(text)
    return result


def _bad_port(text: str) -> Invalid:
    return Invalid(f"'{text}' is not a port", hint="like 8080:80 or 127.0.0.1:8080:80/tcp")
