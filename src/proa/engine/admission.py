"""Who may start: what instances are promised must fit the host, times what its owner over-commits.

A promise is what was asked for: the memory reservation, else the memory limit; a machine that boots
its own disk always has its RAM.  An instance without a limit, container or clone of a template, is
promised nothing, and so never refused.  Decision 020.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proa.engine import instance as states
from proa.engine.instance import Instance
from proa.errors import Invalid, NoSpace
from proa.host import cpus
from proa.spec import Limits, Spec

if TYPE_CHECKING:
    from proa.engine.core import Core

MIB = 1 << 20
DEFAULT_MACHINE_MIB = 1024
_lock = threading.Lock()


@dataclass(frozen=True)
class Policy:
    """The table `[admission]`: how many times the host's memory and processors may be promised.

    0: any number of times.
    """

    memory_overcommit: float = 1.0
    cpu_overcommit: float = 0.0

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Policy:
        """Raises Invalid for an unknown key or a value that is no such number."""
        for key, value in table.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if key not in cls.__dataclass_fields__ or not number or not 0 <= value < 1e6:
                raise Invalid(
                    f"'{key} = {value}' in the configuration's [admission] is not understood"
                )
        return cls(**{key: float(value) for key, value in table.items()})


@dataclass(frozen=True)
class Promise:
    """Memory and processor time an instance may count on."""

    memory_bytes: int = 0
    cpus: float = 0.0


def promise(spec: Spec, machine_mib: int = DEFAULT_MACHINE_MIB) -> Promise:
    """What a spec asks to be promised."""
    limits = spec.limits
    memory = limits.reservation_bytes or limits.memory_bytes
    if spec.hardware.disk:
        memory = limits.memory_bytes or machine_mib * MIB
    return Promise(memory, limits.cpus)


def check(limits: Limits) -> None:
    """Raises Invalid for processors this host does not have, in Docker's words."""
    there, count = cpus.online(), os.cpu_count() or 1
    if cpus.numbers(limits.cpuset, "cpuset") - cpus.numbers(there):
        raise Invalid(
            f"Requested CPUs are not available - requested {limits.cpuset}, available: {there}"
        )
    if limits.cpus > count:
        raise Invalid(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )


def admit(core: Core, instance: Instance, spec: Spec) -> None:
    """Count an instance in.  Raises NoSpace, with the sums, when the host cannot hold it."""
    policy = Policy.parse(core.config.admission)
    asked = promise(spec, _machine_mib(core))
    with _lock:
        if asked.memory_bytes and policy.memory_overcommit:
            _fit(core, instance, asked.memory_bytes, _memory(policy))
        if asked.cpus and policy.cpu_overcommit:
            _fit(core, instance, asked.cpus, _processors(policy))
        instance.admitted = True


@dataclass(frozen=True)
class _Resource:
    """One thing that is promised: how much there is, and in which words."""

    has: float
    of: Callable[[Promise], float]
    text: Callable[[float], str]
    unit: str
    setting: str


def _memory(policy: Policy) -> _Resource:
    return _Resource(
        host_memory() * policy.memory_overcommit,
        lambda found: found.memory_bytes,
        lambda value: str(round(value / MIB)),
        "MiB",
        "memory_overcommit",
    )


def _processors(policy: Policy) -> _Resource:
    return _Resource(
        (os.cpu_count() or 1) * policy.cpu_overcommit,
        lambda found: found.cpus,
        lambda value: f"{value:g}",
        "cpus",
        "cpu_overcommit",
    )


def _fit(core: Core, instance: Instance, asked: float, resource: _Resource) -> None:
    mib = _machine_mib(core)
    others = [resource.of(promise(item.spec, mib)) for item in _holders(core, instance)]
    promised = [value for value in others if value]
    if sum(promised) + asked <= resource.has:
        return
    text, unit = resource.text, resource.unit
    count = f"{len(promised)} instance{' is' if len(promised) == 1 else 's are'}"
    raise NoSpace(
        f"the host cannot hold '{instance.name}': asked {text(asked)} {unit}; {count} promised "
        f"{text(sum(promised))} of {text(resource.has)} {unit}",
        hint=f"end some, ask for less, or set {resource.setting} in [admission] of proa.toml",
    )


def _holders(core: Core, instance: Instance) -> list[Instance]:
    """Those that have been counted in: one that is starting only once it was admitted."""
    return [
        item
        for item in core.all()
        if item is not instance and (item.admitted or item.state in (states.RUNNING, states.PAUSED))
    ]


def _machine_mib(core: Core) -> int:
    return int(core.config.vm.get("memory_mib", DEFAULT_MACHINE_MIB))


def host_memory() -> int:
    """Bytes of this host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def told(core: Core) -> dict[str, Any]:
    """For `proa info`: policy, what is promised, and of how much."""
    policy, mib = Policy.parse(core.config.admission), _machine_mib(core)
    promises = [promise(item.spec, mib) for item in core.all() if item.live]
    return {
        "MemoryOvercommit": policy.memory_overcommit,
        "MemoryPromisedMiB": sum(item.memory_bytes for item in promises) // MIB,
        "MemoryMiB": host_memory() // MIB,
        "CpuOvercommit": policy.cpu_overcommit,
        "CpusPromised": round(sum(item.cpus for item in promises), 2),
        "Cpus": os.cpu_count() or 1,
    }
