"""How fast a machine's disks may be, by QEMU: what it writes goes to the host's cache first, where
no cgroup of v1 counts it, so a host's throttle alone would not slow a guest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proa.host.cgroup_io import holds
from proa.spec import Throttle

if TYPE_CHECKING:
    from proa.isolation.vm.qmp import Qmp

GROUP = "proa"  # the disks share what there is
_NAMES = {
    "read_bps": "bps_rd", "write_bps": "bps_wr", "read_iops": "iops_rd", "write_iops": "iops_wr",
}  # fmt: skip


def apply(control: Qmp, throttles: tuple[Throttle, ...], directory: Path) -> None:
    """Let these bind the machine's disks, as far as they are of the device `directory` is on."""
    rates = dict.fromkeys(("bps", "iops", *_NAMES.values()), 0)
    for item in throttles:
        if holds(item.device, directory):
            rates[_NAMES[item.kind]] = item.rate
    for disk in control.execute("query-block"):
        if disk.get("qdev"):
            known = {"id": disk["qdev"], "group": GROUP}
            control.execute("block_set_io_throttle", known | rates)
