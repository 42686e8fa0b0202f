"""The cgroup v2 code, run where v2 is the only hierarchy: inside a Proa vm.

The guest gets this host's /usr and our source as read-only shares, so nothing is downloaded.
"""

from __future__ import annotations

import subprocess

from tests.support.images import Layer, archive
from tests.support.instances import Place
from tests.support.paths import SOURCE

PROGRAM = """
import os, subprocess, sys, time
subprocess.run(["mount", "-o", "remount,rw", "/sys/fs/cgroup"], check=True)
from proa.errors import Unsupported
from proa.host import cgroup
from proa.spec import Limits
hierarchy = cgroup.detect()
print("kind", hierarchy.kind)
group = cgroup.create("proa-test")
group.apply(Limits(memory_bytes=64 << 20, cpus=0.5, pids=20, cpu_shares=512))
base = next(path for path, _, names in os.walk("/sys/fs/cgroup")
            if path.endswith("proa-test") and "cgroup.procs" in names)
read = lambda name: open(f"{base}/{name}").read().split()
print("memory", *read("memory.max"))
print("cpu", *read("cpu.max"))
print("pids", *read("pids.max"))
group.apply(Limits(memory_bytes=64 << 20, reservation_bytes=32 << 20, cpus=0.5, pids=20))
print("low", *read("memory.low"))
try:
    group.apply(Limits(memory_bytes=64 << 20, cpus=0.5, pids=20, cpuset="0"))
except Unsupported as error:
    print(error.message)
child = subprocess.Popen(["sleep", "1000"])
for descriptor in group.procs_descriptors():
    os.write(descriptor, str(child.pid).encode())
usage = group.usage()
print("usage", usage.pids == 1, usage.memory_limit == 64 << 20, usage.memory_bytes > 0)
group.freeze()
print("frozen", "1" in open(f"{base}/cgroup.events").read().split("frozen")[1])
group.thaw()
eat = "import os; os.read(0, 1); x = b'x' * (200 << 20)"
hungry = subprocess.Popen([sys.executable, "-c", eat], stdin=subprocess.PIPE)
for descriptor in group.procs_descriptors():
    os.write(descriptor, str(hungry.pid).encode())
hungry.communicate(b"go")
print("oom", hungry.returncode, group.usage().oom_kills > 0)
group.kill()
print("killed", child.wait())
group.remove()
group.remove()
print("gone", not os.path.exists(base))
"""


def debian_image() -> bytes:
    """An empty merged-/usr tree whose /usr comes as a share."""
    layer = Layer()
    for path in ("usr", "etc", "proc", "sys", "dev", "tmp", "source"):
        layer.directory(path)
    for name in ("bin", "sbin", "lib", "lib64"):
        layer.symlink(name, f"usr/{name}")
    return archive("host-usr", layer.bytes(), Env=["PATH=/usr/sbin:/usr/bin"])


def test_cgroup_v2(vm: Place) -> None:
    vm.api.load(debian_image())
    subprocess.run(["/usr/bin/python3", "-c", "import sys; assert sys.version_info >= (3, 11)"],
                   check=True)  # fmt: skip
    result = vm.run(
        "host-usr", "/usr/bin/python3", "-c", PROGRAM,
        Env=["PYTHONPATH=/source", "PYTHONDONTWRITEBYTECODE=1"],
        host={"Binds": ["/usr:/usr:ro", f"{SOURCE}:/source:ro"], "CapAdd": ["ALL"],
              "SecurityOpt": ["seccomp=unconfined"], "Memory": 512 << 20},
    )  # fmt: skip
    assert result.stdout.splitlines() == [
        "kind v2",
        f"memory {64 << 20}",
        "cpu 50000 100000",
        "pids 20",
        f"low {32 << 20}",
        "this host's kernel has no 'cpuset.cpus'",
        "usage True True True",
        "frozen True",
        "oom -9 True",
        "killed -9",
        "gone True",
    ], result.stderr
