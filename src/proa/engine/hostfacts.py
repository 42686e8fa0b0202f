"""What this engine runs on, as names and values: enough to tell two reports' machines apart."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import proa
from proa.engine import admission
from proa.engine.core import Core
from proa.host import cgroup, pseudo
from proa.isolation.vm.accel import is_nested

UNKNOWN = "unknown"
_CPUINFO = Path("/proc/cpuinfo")
_DMI = Path("/sys/class/dmi/id")


def gather(core: Core) -> dict[str, str]:
    """Every fact; what only a vm's preparation finds out is found out now."""
    cpu = _cpu()
    return {
        "cpu": cpu.get("model name") or cpu.get("CPU part") or UNKNOWN,
        "processors": str(os.cpu_count() or 1),
        "cpu_flags": cpu.get("flags") or cpu.get("Features", ""),
        "memory": str(admission.host_memory()),
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "distribution": _distribution(),
        "virtualisation": _virtualisation(),
        "cgroups": cgroup.detect().kind,
        "store_file_system": file_system(core.config.root),
        "proa": proa.__version__,
        "python": platform.python_version(),
        **core.vms.told(),
    }


def _cpu() -> dict[str, str]:
    """The first processor's lines."""
    found: dict[str, str] = {}
    for line in _CPUINFO.read_text(errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _distribution() -> str:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        for line in pseudo.read(path).splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip().strip('"')
    return UNKNOWN


def _virtualisation() -> str:
    """What the host is itself: a machine, or one inside another."""
    maker = f"{pseudo.read(_DMI / 'sys_vendor').strip()} {pseudo.read(_DMI / 'product_name')}"
    kind = "virtual machine" if is_nested() else "no hypervisor seen"
    return f"{kind}, {maker.strip()}" if maker.strip() else kind


def file_system(path: Path) -> str:
    """The kind of file system a directory is on (proc(5): mountinfo)."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2] == device:
            return right.split(" ")[0]
    return UNKNOWN
