"""Limits asked for in Docker's words (`Resources` of a create or update body).  Pure."""

from __future__ import annotations

from proa.engine.fields import Fields
from proa.errors import Invalid
from proa.host.cpus import numbers
from proa.spec import Limits, Throttle

MINIMUM_MEMORY_BYTES = 6 << 20
PERIOD_US = (1_000, 1_000_000)
WEIGHT = (10, 1000)
THROTTLES = (
    ("BlkioDeviceReadBps", "read_bps"), ("BlkioDeviceWriteBps", "write_bps"),
    ("BlkioDeviceReadIOps", "read_iops"), ("BlkioDeviceWriteIOps", "write_iops"),
)  # fmt: skip


def limits(host: Fields) -> Limits:
    """The limits of a create request.  Raises Invalid."""
    memory, swap = _memory(host), host.integer("MemorySwap")
    if swap > 0 and not memory:
        raise Invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    _check_swap(memory, swap)
    reservation = host.integer("MemoryReservation")
    if reservation < 0 or 0 < memory < reservation:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit")
    for name in ("CpusetCpus", "CpusetMems"):
        numbers(host.text(name), name)
    return Limits(
        memory_bytes=memory,
        cpus=_cpus(host),
        pids=max(0, host.integer("PidsLimit")),
        cpu_shares=max(0, host.integer("CpuShares")),
        cpu_period_us=_between(host, "CpuPeriod", PERIOD_US),
        cpuset=host.text("CpusetCpus"),
        memory_nodes=host.text("CpusetMems"),
        reservation_bytes=reservation,
        swap_bytes=swap,
        io_weight=_between(host, "BlkioWeight", WEIGHT),
        throttles=_throttles(host),
    )


def updated(wanted: Limits, present: Limits) -> Limits:
    """Limits after an update: what it does not name stays.  Raises Invalid."""
    named = {
        name: value
        for name, value in vars(wanted).items()
        if value and name not in ("throttles", "cpu_period_us")
    }
    if wanted.cpus:  # a quota comes with its period
        named["cpu_period_us"] = wanted.cpu_period_us
    throttles = {(item.kind, item.device): item for item in present.throttles}
    throttles |= {(item.kind, item.device): item for item in wanted.throttles}
    result = Limits(**{**vars(present), **named, "throttles": tuple(throttles.values())})
    if result.swap_bytes and wanted.memory_bytes and not wanted.swap_bytes:
        _check_swap(result.memory_bytes, result.swap_bytes)
    return result


def lifted(limits: Limits) -> Limits:
    """The same without throttles that only lift one, once that is done."""
    kept = tuple(item for item in limits.throttles if item.rate)
    return Limits(**{**vars(limits), "throttles": kept})


def _memory(host: Fields) -> int:
    memory = host.integer("Memory")
    if memory < 0 or 0 < memory < MINIMUM_MEMORY_BYTES:
        raise Invalid("minimum memory limit allowed is 6MB")
    return memory


def _check_swap(memory: int, swap: int) -> None:
    if 0 < swap < memory:
        raise Invalid(
            f"Minimum memoryswap limit should be larger than memory limit: {swap} < {memory}",
            hint="it counts memory and swap together; update both at the same time",
        )


def _cpus(host: Fields) -> float:
    cpus = host.integer("NanoCpus") / 1e9
    if cpus < 0:
        raise Invalid("field 'HostConfig.NanoCpus' must not be negative")
    if cpus and (host.integer("CpuQuota") > 0 or host.integer("CpuPeriod")):
        raise Invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if host.integer("CpuQuota") > 0:
        return host.integer("CpuQuota") / (host.integer("CpuPeriod") or 100_000)
    return cpus


def _between(host: Fields, name: str, bounds: tuple[int, int]) -> int:
    value = host.integer(name)
    if value and not bounds[0] <= value <= bounds[1]:
        raise Invalid(
            f"field '{host.path(name)}' is {value}, outside of {bounds[0]} to {bounds[1]}"
        )
    return value


def _throttles(host: Fields) -> tuple[Throttle, ...]:
    found = []
    for name, kind in THROTTLES:
        for item in host.objects(name):
            device, rate = item.text("Path"), item.integer("Rate")
            if not device.startswith("/") or rate < 0:
                raise Invalid(f"invalid throttle '{device}:{rate}'", hint="like /dev/sda:1mb")
            found.append(Throttle(kind, device, rate))
    return tuple(found)
