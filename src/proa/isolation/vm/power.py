"""Starting QEMU in a hull: by a template, or by the long way through a kernel's boot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from proa.agent import HULL, Kind, Waiter
from proa.isolation.vm import blocks, child, hull, pages, plans, qemu
from proa.isolation.vm.checkpoint import Checkpoint
from proa.isolation.vm.layers import Opened
from proa.isolation.vm.template import IGNORE_SHARED, Template
from proa.plan import encode
from proa.resources import Share
from proa.spec import Limits

BOOT_SECONDS = 60.0


@dataclass(frozen=True)
class Parts:
    """What a machine gets of its own; `disk` and `tap` make descriptors, which are closed here.

    `format` and `writable` are for a stranger's disk in the image's stead (`qemu.Files`), `folders`
    for a server of the shares in place of QEMU itself, `below` for what an image that is an
    overlay of ours lies over.
    """

    image: Path
    disk: Callable[[], Opened]
    tap: Callable[[], int] | None = None
    shares: tuple[Share, ...] = ()
    format: str = "raw"
    writable: bool = False
    folders: Callable[[], int] | None = None
    cache: blocks.Cache = blocks.WRITEBACK
    below: Callable[[], Opened] = Opened.none


def clone(
    berth: hull.Hull, machine: qemu.Machine, template: Template, parts: Parts, start: qemu.Clone
) -> Waiter:
    """Let QEMU load a template; the waiter is answered when QEMU's program runs.

    QMP is written before QEMU reads it.  Unless paused, the guest goes on by itself once loaded.
    """
    with ExitStack() as passed:
        passed.callback(berth.close_ends)
        state = _keep(passed, template.open_state())
        cargo = replace(_cargo(berth, parts, passed), memory=template.memory, state=state)
        seen = cargo.numbered()
        argv = qemu.arguments(machine, replace(seen.files(), cache=parts.cache), start)
        started = hull.begin(berth, argv, cargo, parts.shares, machine.accelerator == "kvm")
    uri = {"uri": f"fd:{seen.state}"}
    berth.qmp.pipeline(("qmp_capabilities", {}), IGNORE_SHARED, ("migrate-incoming", uri))
    return started


def revive(berth: hull.Hull, found: Checkpoint, parts: Parts) -> None:
    """Let QEMU load a checkpoint.  The guest goes on by itself, and its init still stands still."""
    with ExitStack() as passed:
        passed.callback(berth.close_ends)
        memory = found.pages if found.base < 0 else found.base
        cargo = replace(_cargo(berth, parts, passed), memory=memory)
        seen = replace(cargo.numbered().files(), cache=parts.cache)
        argv = qemu.arguments(found.shape, seen, qemu.Clone(bare=True))
        started = hull.begin(berth, argv, cargo, parts.shares, found.shape.accelerator == "kvm")
    berth.qmp.pipeline(("qmp_capabilities", {}))
    berth.place.agent.finish(started)
    if found.base >= 0:
        ram = pages.find(berth.place.pid, berth.qmp, found.shape)
        with closing(ram):
            pages.pour(found.pages, ram)
    state = found.open_state()
    try:
        berth.qmp.execute("getfd", {"fdname": "state"}, descriptor=state)
    finally:
        os.close(state)
    berth.qmp.pipeline(("migrate-incoming", {"uri": "fd:state"}))


def boot(berth: hull.Hull, machine: qemu.Machine, firmware: child.Firmware, parts: Parts) -> None:
    """Boot a kernel and do what a template has done; returns when a place waits inside."""
    agent = berth.place.agent
    with ExitStack() as passed:
        passed.callback(berth.close_ends)
        files = (firmware.kernel.image, firmware.initramfs)
        kernel, first = (_keep(passed, os.open(p, os.O_RDONLY | os.O_CLOEXEC)) for p in files)
        cargo = replace(_cargo(berth, parts, passed), kernel=kernel, initramfs=first)
        seen = cargo.numbered()
        start = qemu.Boot(f"/proc/self/fd/{seen.kernel}", f"/proc/self/fd/{seen.initramfs}")
        seen_files = replace(
            seen.files(), format=parts.format, writable=parts.writable, cache=parts.cache
        )
        argv = qemu.arguments(machine, seen_files, start)
        started = hull.begin(berth, argv, cargo, parts.shares, machine.accelerator == "kvm")
    berth.qmp.pipeline(("qmp_capabilities", {}))
    agent.finish(started)
    agent.wait_hello(BOOT_SECONDS)
    agent.setup(plans.template_setup())
    agent.place(plans.place(network=machine.network))


def individualise(berth: hull.Hull, limits: Limits, pinned_pid: int = 0) -> Waiter:
    """Make a clone a machine of its own, before anything is spawned in it."""
    steps = plans.clone_setup(secrets.token_bytes(plans.ENTROPY_BYTES), limits, pinned_pid)
    return berth.place.agent.begin(Kind.SETUP, HULL, encode(steps))


def _cargo(berth: hull.Hull, parts: Parts, passed: ExitStack) -> hull.Cargo:
    mode = os.O_RDWR if parts.writable else os.O_RDONLY
    image = _keep(passed, os.open(parts.image, mode | os.O_CLOEXEC))
    disk = parts.disk()
    passed.callback(disk.close)
    tap = _keep(passed, parts.tap()) if parts.tap else -1
    if tap >= 0:
        berth.place.agent.keep(tap)
    folders = _keep(passed, parts.folders()) if parts.folders else -1
    below = parts.below()
    passed.callback(below.close)
    return replace(berth.cargo(image, disk, tap), folders=folders, below=below)


def _keep(passed: ExitStack, descriptor: int) -> int:
    passed.callback(os.close, descriptor)
    return descriptor
