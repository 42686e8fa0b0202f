"""What an image's configuration and a create request (Docker's) say, as facts.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proa.advice import stated
from proa.advice.facts import Fact
from proa.advice.files.programs import is_foreign
from proa.printable import clean

Document = Mapping[str, Any]

SOCKETS = frozenset({"docker.sock", "podman.sock", "containerd.sock", "crio.sock", "proa.sock"})
# Kernel settings that each container has of its own.
NAMESPACED = re.compile(r"net\..*|kernel\.(?:shm.*|msg.*|sem)|fs\.mqueue\..*")
_NAMESPACES = (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc"),
               ("UTSMode", "uts"), ("UsernsMode", "user"), ("CgroupnsMode", "cgroup"))  # fmt: skip
_OFF = re.compile(r"(?:seccomp|apparmor|systempaths)[:=]unconfined|label[:=]disable")
_LISTED = 40
_OF_BOTH = ("Platform", "PauseIdleSeconds")  # fields of the `Proa` object that are no machine's


def of_image(document: Document, host: str) -> Iterator[Fact]:
    """What an OCI configuration says of how the image is to run, on a `host`'s architecture.

    Its labels are a stranger's: they state nothing.
    """
    config = _object(document.get("config"))
    system, machine = document.get("os"), document.get("architecture")
    if system and system != "linux":
        yield Fact("os.kind", clean(str(system)), "os of its configuration")
    if machine:
        yield Fact("os.architecture", clean(str(machine)), "architecture of its configuration")
        foreign = is_foreign(str(machine), host)
        yield Fact("os.foreign", foreign, f"its configuration; this host: {host}")
    yield Fact("run.user", clean(str(config.get("User") or "")), "User of its configuration")
    for key, field in (("run.ports", "ExposedPorts"), ("run.volumes", "Volumes")):
        names = tuple(clean(str(name)) for name in list(_object(config.get(field)))[:_LISTED])
        yield Fact(key, names, f"{field} of its configuration")
    signal = str(config.get("StopSignal") or "")
    if signal and signal not in ("SIGTERM", "15", "TERM"):
        yield Fact("run.stop_signal", clean(signal), "StopSignal of its configuration")
    test = words(_object(config.get("Healthcheck")).get("Test"))
    yield Fact(
        "run.healthcheck", bool(test) and test[0] != "NONE", "Healthcheck of its configuration"
    )


def of_request(body: Document) -> Iterator[Fact]:
    """What a create request asks for."""
    host = _object(body.get("HostConfig"))
    yield from stated.of_labels(_object(body.get("Labels")), "label")
    if host.get("Privileged") is True:
        yield Fact("run.privileged", True, "HostConfig.Privileged")
    capabilities = tuple(name.upper().removeprefix("CAP_") for name in words(host.get("CapAdd")))
    rows: Sequence[tuple[str, tuple[str, ...], str]] = (
        ("run.capabilities", capabilities, "CapAdd"),
        ("run.devices", tuple(_devices(host)), "Devices"),
        ("run.host_namespaces",
         tuple(name for field, name in _NAMESPACES if host.get(field) == "host"), "NetworkMode"),
        ("run.sysctls",
         tuple(n for n in _object(host.get("Sysctls")) if not NAMESPACED.fullmatch(n)), "Sysctls"),
        ("run.security_off",
         tuple(one for one in words(host.get("SecurityOpt")) if _OFF.search(one)), "SecurityOpt"),
    )  # fmt: skip
    for key, names, field in rows:
        if names:
            yield Fact(key, tuple(map(clean, names[:_LISTED])), f"HostConfig.{field}")
    machine = _object(body.get("Proa"))
    parts = tuple(clean(str(key)) for key, value in machine.items() if value)
    if any(key not in _OF_BOTH for key in parts):
        yield Fact("run.machine", tuple(key for key in parts if key not in _OF_BOTH), "Proa")
    yield from _directories(host)
    if body.get("User"):
        yield Fact("run.user", clean(str(body["User"])), "User")
    if isinstance(host.get("Memory"), int) and host["Memory"] > 0:
        yield Fact("run.memory_bytes", host["Memory"], "HostConfig.Memory")


def _directories(host: Document) -> Iterator[Fact]:
    """Directories of the host, and engines' sockets among them."""
    sources = [text.partition(":")[0] for text in words(host.get("Binds")) if text.startswith("/")]
    mounts = host.get("Mounts")
    for item in mounts if isinstance(mounts, list) else ():
        if _object(item).get("Type") == "bind":
            sources.append(str(item.get("Source") or ""))
    sockets = [path for path in sources if posixpath.basename(path) in SOCKETS]
    if sockets:
        yield Fact("run.engine_socket", True, f"a mount of {clean(sockets[0])}")
    rest = tuple(clean(posixpath.normpath(path)) for path in sources if path not in sockets)
    if rest:
        yield Fact("run.host_paths", rest[:_LISTED], "mounts")


def _devices(host: Document) -> Iterator[str]:
    for field in ("Devices", "DeviceRequests"):
        items = host.get(field)
        for item in items if isinstance(items, list) else ():
            yield str(_object(item).get("PathOnHost") or _object(item).get("Driver") or "a device")


def _object(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}


def words(value: object) -> tuple[str, ...]:
    """A list of strings, or a lone string, as Docker reads commands."""
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()
