"""From the order to clone until a command's first output, without engine, client and network.

Thus an upper bound of what passes after QEMU's exec: taking a place is in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Budget, Contestant, Row
from proa.agent import Dispatcher
from proa.isolation.base import Running
from proa.isolation.places import Places, Site
from proa.isolation.vm import Vms
from tests.support.engine import KERNELS
from tests.support.images import BUSYBOX
from tests.support.paths import NATIVE
from tests.system.test_vm_templates import Host, Rootfs, speaking

KEYS = {"first-output"}
IMAGE_TEMPLATE, POOL = "clone of the image's template", "clone of the warm pool"
BOOT = "full boot"
LIMITS = {IMAGE_TEMPLATE: 140.0, POOL: 60.0}
RAM_MIB = 256
TRIES = 200
REST_SECONDS = 3.0  # in which the pool makes its next machine


def rows(root: Path) -> Iterator[Row]:
    """One row of the ways to start."""
    host = make_host(root)
    cold = host.vms(spares=0, memory_mib=RAM_MIB)
    pool = host.vms(spares=1, warm=True, memory_mib=RAM_MIB)
    boot = host.vms(template=False, memory_mib=RAM_MIB)
    cold_one, pool_one, boot_one = One(host, cold), One(host, pool), One(host, boot)
    try:
        for vms, wanted in ((cold, "image template"), (pool, "spare")):
            _until(host, vms, wanted)
        yield Row(
            "first-output",
            "order of a vm of 256 MiB to its command's first output",
            [
                Contestant(IMAGE_TEMPLATE, cold_one.once, prepare=cold_one.end),
                Contestant(POOL, pool_one.once, REST_SECONDS, pool_one.end),
                Contestant(BOOT, boot_one.once, prepare=boot_one.end),
            ],
            [Budget(IMAGE_TEMPLATE, (BOOT,), 0.1)],
        )
    finally:
        for one in (cold_one, pool_one, boot_one):
            one.end()
            one.vms.close()
        host.places.close()
        host.places.destroy()


def make_host(root: Path) -> Host:
    """Places and an image of one static program, without an engine."""
    tree, disk = root / "tree", root / "image.erofs"
    for name in ("bin", "etc", "proc", "sys", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    subprocess.run(["mkfs.erofs", "--quiet", disk, tree], check=True)
    (root / "run").mkdir()
    if (kept := KERNELS["kernels"]).is_dir():
        shutil.copytree(kept, root / "vm" / "kernels")
    root.chmod(0o755)
    dispatcher = Dispatcher()
    site = Site(root / "places", root / "run", f"proa-bench-{os.getpid()}", NATIVE)
    places = Places(site, dispatcher, 0)
    return Host(root, places, Rootfs(disk), dispatcher)


def _until(host: Host, vms: Vms, wanted: str) -> None:
    """Start until one is started by what shall be measured."""
    for _ in range(TRIES):
        running = vms.start(host.launch())
        running.kill()
        if running.facts["started_by"] == wanted:
            return
        time.sleep(0.1)
    raise RuntimeError(f"no vm was started by '{wanted}'")


@dataclass
class One:
    """A vm, ended before the next is measured."""

    host: Host
    vms: Vms
    running: Running | None = None

    def once(self) -> None:
        """Start and hear it."""
        self.running = self.vms.start(self.host.launch())
        with speaking(self.running, "echo hi") as output:
            if output.recv(100) != b"hi\n":
                raise RuntimeError("the command said something else")

    def end(self) -> None:
        """Unmeasured."""
        if self.running is not None:
            self.running.kill()
            self.running = None
