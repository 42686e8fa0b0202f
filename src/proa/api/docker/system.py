"""What this engine is and what it holds: `/_ping`, `/version`, `/info`, `/system/df`."""

from __future__ import annotations

import collections
import hashlib
import os
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import proa
from proa.api.answer import API_VERSION, API_VERSION_MINIMUM, Answer, Reply, json_reply
from proa.api.docker import volumes
from proa.api.docker.times import rfc3339
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine

NO_CACHE = (
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
)
PING = Reply(200, b"OK", "text/plain; charset=utf-8", NO_CACHE)
PLUGINS = {"Volume": ["local"], "Network": ["bridge", "null"], "Authorization": None, "Log": []}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def ping(engine: Engine, request: Request) -> Answer:
    """GET and HEAD /_ping."""
    return PING


def version(engine: Engine, request: Request) -> Answer:
    """GET /version."""
    kernel = os.uname()
    facts = {
        "Version": proa.__version__,
        "ApiVersion": _dotted(API_VERSION),
        "MinAPIVersion": _dotted(API_VERSION_MINIMUM),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": ARCHITECTURES.get(kernel.machine, kernel.machine),
        "KernelVersion": kernel.release,
        "BuildTime": "",
    }
    component = {"Name": "Engine", "Version": proa.__version__, "Details": _details(facts)}
    return json_reply({"Platform": {"Name": "Proa"}, "Components": [component]} | facts)


def _details(facts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in facts.items() if name != "Version"}


def _dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def info(engine: Engine, request: Request) -> Answer:
    """GET /info."""
    facts, kernel = engine.info(), os.uname()
    return json_reply(
        {
            "ID": hashlib.sha256(str(engine.root).encode()).hexdigest()[:32],
            "Name": kernel.nodename,
            "ServerVersion": proa.__version__,
            "Containers": facts["containers"],
            "ContainersRunning": facts["running"],
            "ContainersPaused": facts["paused"],
            "ContainersStopped": facts["stopped"],
            "Images": facts["images"],
            "Driver": "overlay",
            "DriverStatus": [],
            "Plugins": PLUGINS,
            "NCPU": facts["cpus"],
            "MemTotal": facts["memory_bytes"],
            "DockerRootDir": facts["root"],
            "KernelVersion": facts["kernel"],
            "OperatingSystem": _operating_system(),
            "OSType": "linux",
            "Architecture": kernel.machine,
            "SystemTime": rfc3339(time.time_ns()),
            "LoggingDriver": "json-file",  # clients read the logs only of drivers they know
            "Isolation": "",
            "DefaultRuntime": "proa",
            "Runtimes": {"proa": {"path": "proa-native"}},
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
            "Swarm": {"LocalNodeState": "inactive", "NodeID": "", "ControlAvailable": False},
            "MemoryLimit": True,
            "PidsLimit": True,
            "CPUShares": True,
            "CpuCfsQuota": True,
            "CpuCfsPeriod": True,
            "SwapLimit": True,
            "CPUSet": True,
            "OomKillDisable": False,
            "IPv4Forwarding": True,
            "Labels": [],
            "ExperimentalBuild": False,
            "LiveRestoreEnabled": True,
            "Warnings": [],
        }
    )


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def disk_usage(engine: Engine, request: Request) -> Answer:
    """GET /system/df; `type` narrows it."""
    answer: dict[str, Any] = {"LayersSize": 0, "BuildCache": []}
    for kind in request.query.get("type") or DISK_USAGE:
        if kind not in DISK_USAGE:
            raise Invalid(f"unknown object type '{kind}'")
        answer |= DISK_USAGE[kind](engine)
    return json_reply(answer)


def _images(engine: Engine) -> dict[str, Any]:
    users = collections.Counter(item.image_id for item in engine.list(True, {}))
    images = [image | {"Containers": users[image["Id"]]} for image in engine.images.list()]
    return {"Images": images, "LayersSize": sum(image["Size"] for image in images)}


def _containers(engine: Engine) -> dict[str, Any]:
    return {"Containers": [engine.summary(item) for item in engine.list(True, {})]}


def _volumes(engine: Engine) -> dict[str, Any]:
    unknown = {"UsageData": {"Size": -1, "RefCount": -1}}
    return {"Volumes": [volumes.shape(volume) | unknown for volume in engine.volumes.list()]}


DISK_USAGE: dict[str, Callable[[Engine], dict[str, Any]]] = {
    "image": _images,
    "container": _containers,
    "volume": _volumes,
    "build-cache": lambda engine: {},
}


def build_prune(engine: Engine, request: Request) -> Answer:
    """POST /build/prune: nothing is built, so nothing is cached."""
    return json_reply({"CachesDeleted": None, "SpaceReclaimed": 0})


def plugins(engine: Engine, request: Request) -> Answer:
    """GET /plugins: there are none."""
    return json_reply([])
