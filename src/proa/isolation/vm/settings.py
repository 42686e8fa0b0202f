"""The `[vm]` table of the configuration, and the shape of the machine that limits ask for."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

from proa.errors import Invalid
from proa.host.cpus import numbers
from proa.isolation.vm import blocks
from proa.spec import Limits

MIB = 1 << 20
RAM_CLASSES_MIB = (256, 512, 1024, 2048, 4096)
RAM_STEP_MIB = 1024
VCPUS_LATER = 8  # each possible processor takes a little of a guest's memory
QEMU_ROOM_BYTES = 1 << 30
QEMU_THREADS = 512
KERNEL_SHARE_MIB = 96  # of a machine's RAM that no limit of an instance may count on


@dataclass(frozen=True)
class Settings:
    """What an owner may set.

    `foreign_kernel` is for guests of another processor.
    `template` allows cloning at all, `image_templates` one more per image in use, made after its
    first start.  `spares` clones of the image used last wait paused; with `warm` they have
    rehearsed a start before, which makes theirs faster still and takes about 60 MB more each.
    Instances idle for `pause_idle_seconds` are stopped until they are called; 0: never.
    `disk_cache` is what an instance gets that does not say (`blocks.CACHES`).
    """

    kernel: str = ""
    foreign_kernel: str = ""
    accelerator: str = "auto"
    memory_mib: int = 1024
    disk_gib: int = 16
    template: bool = True
    image_templates: bool = True
    spares: int = 1
    warm: bool = False
    pause_idle_seconds: int = 0
    disk_cache: str = "writeback"

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Settings:
        """Raises Invalid for an unknown key or a value of another type."""
        known = cls()
        for key, value in table.items():
            if type(value) is not type(getattr(known, key, None)):
                raise Invalid(f"'{key} = {value}' in the configuration's [vm] is not understood")
        settings = replace(known, **table)
        if settings.accelerator not in ("auto", "kvm", "tcg"):
            raise Invalid(
                f"unknown accelerator '{settings.accelerator}'", hint="use auto, kvm or tcg"
            )
        blocks.cache(settings.disk_cache)
        return settings


def cache_mode(settings: Settings, wanted: str, *, thrown_away: bool) -> str:
    """How the host caches a vm's disk: as asked, else as set; `unsafe` unasked only for what is
    thrown away."""
    if wanted:
        return wanted
    unsafe = settings.disk_cache == "unsafe" and not thrown_away
    return blocks.DEFAULT_CACHE if unsafe else settings.disk_cache


def shape(limits: Limits, settings: Settings) -> tuple[int, int]:
    """RAM in MiB and processors for these limits; the guest's kernel enforces the exact ones."""
    wanted = settings.memory_mib
    if limits.memory_bytes:
        wanted = math.ceil(limits.memory_bytes / MIB) + KERNEL_SHARE_MIB
    ram = next((size for size in RAM_CLASSES_MIB if size >= wanted), 0)
    ram = ram or math.ceil(wanted / RAM_STEP_MIB) * RAM_STEP_MIB
    return ram, max(1, min(wanted_vcpus(limits), os.cpu_count() or 1))


def wanted_vcpus(limits: Limits) -> int:
    """Processors for these limits: as many as their time is, else as it may run on; 0 unlimited."""
    return math.ceil(limits.cpus) or len(numbers(limits.cpuset))


def reach(ram_mib: int, vcpus: int) -> tuple[int, int]:
    """How far a machine may grow while it runs: MiB of RAM (by all the host has) and processors."""
    host_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    room = math.ceil(host_mib / RAM_STEP_MIB) * RAM_STEP_MIB
    return ram_mib + room, max(vcpus, min(os.cpu_count() or 1, VCPUS_LATER))


def host_limits(limits: Limits, ram_bytes: int = 0) -> Limits:
    """What the host's cgroup limits of a vm.

    Memory and processes are the guest's to limit; here only a QEMU in a stranger's hands meets a
    bound: its RAM with room for itself and what the host caches of its disks.  RAM 0: none.
    """
    bound = replace(limits, memory_bytes=0, reservation_bytes=0, swap_bytes=0, pids=0)
    if not ram_bytes:
        return bound
    return replace(bound, memory_bytes=ram_bytes + QEMU_ROOM_BYTES, pids=QEMU_THREADS)
