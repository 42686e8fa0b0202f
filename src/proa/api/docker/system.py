"""What this engine is and what it holds: `/_ping`, `/version`, `/info`, `/system/df`."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from typing import TYPE_CHECKING

import proa
from proa.api.answer import API_VERSION, API_VERSION_MINIMUM, Answer, Reply, json_reply
from proa.api.docker.times import rfc3339
from proa.api.request import Request

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
            "Proa": {"Admission": facts["admission"], "Landlock": facts["landlock"]},
        }
    )


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


def plugins(engine: Engine, request: Request) -> Answer:
    """GET /plugins: there are none."""
    return json_reply([])
