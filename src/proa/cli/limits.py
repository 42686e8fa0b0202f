"""Options that limit an instance, of `run`, `create` and `update`, made into Docker's Resources."""

from __future__ import annotations

from proa.cli.options import Option, Values, byte_size
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = (
    Option("-m, --memory", "bytes", "BYTES", "memory limit, like 512m"),
    Option("--memory-reservation", "bytes", "BYTES", "what it keeps when memory is short"),
    Option("--memory-swap", "bytes", "BYTES", "limit of memory and swap together, -1 for none"),
    Option("--cpus", "number", "NUMBER", "processor limit, like 1.5"),
    Option("-c, --cpu-shares", "integer", "NUMBER", "relative processor weight"),
    Option("--cpu-quota", "integer", "MICROSECONDS", "processor time in each period"),
    Option("--cpu-period", "integer", "MICROSECONDS", "length of a period"),
    Option("--cpuset-cpus", "text", "LIST", "processors it may run on, like 0-2,5"),
    Option("--cpuset-mems", "text", "LIST", "memory nodes it may use"),
    Option("--pids-limit", "integer", "NUMBER", "limit of processes"),
    Option("--blkio-weight", "integer", "NUMBER", "relative weight of disk traffic, 10 to 1000"),
    Option("--device-read-bps", "list", "DEVICE:BYTES", "limit of reading, like /dev/sda:10mb"),
    Option("--device-write-bps", "list", "DEVICE:BYTES", "limit of writing"),
    Option("--device-read-iops", "list", "DEVICE:NUMBER", "limit of reads a second"),
    Option("--device-write-iops", "list", "DEVICE:NUMBER", "limit of writes a second"),
)

_PLAIN = (
    ("Memory", "memory"), ("MemoryReservation", "memory_reservation"),
    ("MemorySwap", "memory_swap"), ("CpuShares", "cpu_shares"), ("CpuQuota", "cpu_quota"),
    ("CpuPeriod", "cpu_period"), ("CpusetCpus", "cpuset_cpus"), ("CpusetMems", "cpuset_mems"),
    ("PidsLimit", "pids_limit"), ("BlkioWeight", "blkio_weight"),
)  # fmt: skip
_THROTTLES = (
    ("BlkioDeviceReadBps", "device_read_bps"), ("BlkioDeviceWriteBps", "device_write_bps"),
    ("BlkioDeviceReadIOps", "device_read_iops"), ("BlkioDeviceWriteIOps", "device_write_iops"),
)  # fmt: skip


def resources(values: Values) -> dict[str, Any]:
    """The limits given.  Raises Invalid."""
    host = {field: getattr(values, key) for field, key in _PLAIN if key in values.given}
    if values.cpus:
        host["NanoCpus"] = round(values.cpus * 1e9)
    for field, key in _THROTTLES:
        if key in values.given:
            host[field] = [_throttle(text) for text in getattr(values, key)]
    return host


def _throttle(text: str) -> dict[str, object]:
    device, _, rate = text.rpartition(":")
    try:
        return {"Path": device, "Rate": byte_size(rate)}
    except ValueError:
        raise Invalid(f"'{text}' is no limit of a device", hint="like /dev/sda:10mb") from None
