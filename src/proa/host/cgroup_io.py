"""What of a host's block devices a cgroup may use: weights and throttles, v1 and v2, as tables."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Invalid
from proa.host import pseudo
from proa.spec import Limits, Throttle

_V1 = {
    "read_bps": "blkio.throttle.read_bps_device",
    "write_bps": "blkio.throttle.write_bps_device",
    "read_iops": "blkio.throttle.read_iops_device",
    "write_iops": "blkio.throttle.write_iops_device",
}
_V2 = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


@dataclass(frozen=True)
class Setting:
    """One file to write; an optional one may be missing (what is wanted is the default then)."""

    controller: str
    file: str
    value: str
    optional: bool


def device_number(path: str) -> str:
    """`major:minor` of a block device.  Raises Invalid when it is none."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise Invalid(f"no block device '{path}': {error.strerror}") from error
    if not stat.S_ISBLK(facts.st_mode):
        raise Invalid(f"'{path}' is not a block device", hint="like /dev/sda")
    return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"


def holds(device: str, directory: Path) -> bool:
    """Whether a directory's file system is on this block device, or on a part of it."""
    facts = os.stat(directory)
    number = f"{os.major(facts.st_dev)}:{os.minor(facts.st_dev)}"
    wanted = device_number(device)
    if number == wanted:
        return True
    part = Path("/sys/dev/block", number)
    return (part / "partition").exists() and pseudo.read(part / "../dev").strip() == wanted


def settings_v1(limits: Limits) -> tuple[Setting, ...]:
    """What to write on v1; only the scheduler bfq has weights there."""
    rows = [_throttle_v1(item) for item in limits.throttles]
    if limits.io_weight:
        rows.append(Setting("blkio", "blkio.bfq.weight", str(limits.io_weight), False))
    return tuple(rows)


def _throttle_v1(item: Throttle) -> Setting:
    return Setting("blkio", _V1[item.kind], f"{device_number(item.device)} {item.rate}", False)


def settings_v2(limits: Limits) -> tuple[Setting, ...]:
    """What to write on v2."""
    rows = [_throttle_v2(item) for item in limits.throttles]
    if limits.io_weight:
        weight = 1 + (limits.io_weight - 10) * 9999 // 990  # 10..1000 on v1 is 1..10000 on v2
        rows.append(Setting("io", "io.weight", str(weight), False))
    return tuple(rows)


def _throttle_v2(item: Throttle) -> Setting:
    rate = str(item.rate) if item.rate else "max"
    return Setting("io", "io.max", f"{device_number(item.device)} {_V2[item.kind]}={rate}", False)
