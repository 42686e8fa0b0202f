"""What this host can do, each answer with its reason when it is a no."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proa.errors import ProaError
from proa.host import cgroup, kernel

MINIMUM_KERNEL = (5, 19)  # overlayfs over id-mapped layers


@dataclass(frozen=True)
class Feature:
    """One thing asked of the host; `reason` says why not, and is empty for a yes."""

    name: str
    ok: bool
    reason: str = ""


@cache
def check() -> tuple[Feature, ...]:
    """Every feature, asked once per process."""
    return tuple(Feature(name, not reason, reason) for name, reason in _answers())


def _answers() -> list[tuple[str, str]]:
    return [(name, probe()) for name, probe in _PROBES]


def _kernel() -> str:
    found = kernel.version()
    if found >= MINIMUM_KERNEL:
        return ""
    wanted = ".".join(map(str, MINIMUM_KERNEL))
    return f"the kernel is '{os.uname().release}', older than {wanted}"


def _root() -> str:
    return "" if os.geteuid() == 0 else f"the engine runs as user {os.geteuid()}, not as root"


def _user_namespaces() -> str:
    if not Path("/proc/self/ns/user").exists():
        return "the kernel has no user namespaces"
    limit = Path("/proc/sys/user/max_user_namespaces")
    if limit.exists() and limit.read_text(encoding="ascii").strip() == "0":
        return f"user namespaces are switched off: '{limit}' is 0"
    return ""


def file_system(name: str) -> str:
    """Why the kernel cannot mount a kind of file system; empty when it can."""
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if (
        name in known
        or Path(f"/lib/modules/{os.uname().release}/kernel/fs/{_module(name)}").exists()
    ):
        return ""
    return f"the kernel has no file system '{name}'"


def _module(name: str) -> str:
    return {"overlay": "overlayfs"}.get(name, name)


def _overlay() -> str:
    return file_system("overlay")


def _cgroups() -> str:
    try:
        cgroup.detect()
    except ProaError as error:
        return error.message
    return ""


def _program(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"the program '{name}' is not installed"


def _tun() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"cannot open '/dev/net/tun': {error.strerror}"
    return ""


def _bridge() -> str:
    if Path("/sys/module/bridge").exists() or Path("/proc/sys/net/bridge").exists():
        return ""
    found = list(Path(f"/lib/modules/{os.uname().release}/kernel/net/bridge").glob("bridge.ko*"))
    return "" if found else "the kernel has no bridges"


_PROBES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("kernel", _kernel),
    ("root", _root),
    ("user-namespaces", _user_namespaces),
    ("overlay", _overlay),
    ("cgroups", _cgroups),
    ("bridge", _bridge),
    ("nft", _program("nft")),
    ("tun", _tun),
    ("qemu", _program("qemu-system-" + {"aarch64": "aarch64"}.get(os.uname().machine, "x86_64"))),
)
