"""Copies of a running vm: memory and disks are shared until somebody writes, the rest is its own.

The source stands still for some milliseconds; what comes of it is an instance like any other.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proa.engine import admission, lifecycle, links, machines, names
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import PINNED, Instance, Record
from proa.errors import Conflict, Invalid, ProaError, Unsupported
from proa.image.rootfs import ImageRootfs
from proa.isolation.vm import chain, checkpoint, layers, revival
from proa.isolation.vm.checkpoint import Checkpoint
from proa.isolation.vm.machine import Machine
from proa.isolation.vm.plans import Names
from proa.isolation.vm.whole.running import WholeMachine
from proa.resources import Launch, Link
from proa.spec import Port, Spec

COPIES_MAXIMUM = 256
AT_ONCE = 2
FORK, SNAPSHOT, MIGRATION = "fork", "snapshot", "migration"  # how it was started
COPIED = (FORK, SNAPSHOT, MIGRATION)
STOPPED = "stopped"  # a file in the instance's directory while the engine keeps its vm stopped


@dataclass(frozen=True)
class Fork:
    """What came of a fork, and for how long its source stood still."""

    instances: tuple[Instance, ...]
    paused_ns: int
    copied_bytes: int


def fork(core: Core, source: Instance, count: int = 1, prefix: str = "") -> Fork:
    """`count` copies of a running vm.  All or none.

    Raises Conflict when it does not run, Unsupported for what cannot be copied.
    """
    if not 1 <= count <= COPIES_MAXIMUM:
        raise Invalid(f"'{count}' copies cannot be made", hint=f"1 to {COPIES_MAXIMUM}")
    with ExitStack() as undo:
        with source.lock:
            check(source, "fork")
            copies = [create(core, source, name) for name in _names(source, count, prefix)]
            for copy in copies:
                undo.callback(lifecycle.remove, core, copy, force=True, volumes=True)
            found, chains = freeze(core, source)
        with ExitStack() as opened:
            if count * found.copied_bytes > source_bytes(found):
                found = found.whole()
            opened.callback(found.close)
            for copy in copies:
                layers.share(chains, core.directory(copy.id), writable=True)
                pin_image(image_disk(core, source), core.directory(copy.id))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda copy: bring_up(core, copy, found, FORK), copies))
        undo.pop_all()
    core.emit(source, "fork", copies=str(count))
    return Fork(tuple(copies), found.paused_ns, found.copied_bytes)


def check(source: Instance, what: str) -> None:
    """Raises Conflict unless it is a vm that runs, Unsupported for a container."""
    machine = machines.machine(source, what)
    if isinstance(machine, WholeMachine):
        raise Unsupported(
            f"instance '{source.name}' is a whole machine, for which there is no {what}",
            hint="proa snapshot copies its disks",
        )
    if source.state != states.RUNNING:
        raise Conflict(
            f"instance '{source.name}' is {source.state}", hint="unpause it: proa unpause"
        )


def freeze(core: Core, source: Instance, *, go_on: bool = True) -> tuple[Checkpoint, layers.Chains]:
    """A checkpoint of a running vm, and its disks at the very moment; the caller holds its lock."""
    machine = machines.machine(source, "a checkpoint")
    directory = core.directory(source.id)
    checkpoint.check(machine)
    disks = chain.prepare(machine.qmp, directory)
    mark = directory / STOPPED
    mark.touch()
    try:
        found = checkpoint.take(machine, lambda: chain.commit(disks), go_on=go_on)
    except BaseException:
        mark.unlink()
        chain.cancel(disks)
        raise
    if go_on:
        mark.unlink()
    return found, disks.before


@contextmanager
def written_out(machine: Machine) -> Iterator[bool]:
    """Nothing runs inside, and all that was written is on the disks; false: nobody could be asked.

    Blocks are consistent in any case, as after a loss of power.
    """
    if isinstance(machine, WholeMachine):
        guest, count = machine.guest_agent(), 0
        with ExitStack() as thaw:
            if guest is not None:
                with suppress(ProaError):  # a system that cannot: the snapshot says so
                    count = thaw.enter_context(guest.frozen())
            yield count > 0
        return
    agent = machine.place.agent
    checkpoint.quiesce(machine, sync=True)
    try:
        yield True
    finally:
        agent.resume()


def thaw(core: Core, instance: Instance) -> None:
    """Let a vm go on that `freeze` left stopped."""
    machine = machines.machine(instance, "a checkpoint")
    checkpoint.let_go(machine)
    unmark(core, instance)


def unmark(core: Core, instance: Instance) -> None:
    """Nobody waits for it to go on any more."""
    (core.directory(instance.id) / STOPPED).unlink(missing_ok=True)


def recovered(core: Core, instance: Instance) -> None:
    """Let a vm go on that an engine had stopped for a moment, and then ended itself."""
    mark = core.directory(instance.id) / STOPPED
    if mark.exists() and instance.state == states.RUNNING:
        machines.machine(instance, "a checkpoint").qmp.execute("cont")
        mark.unlink()


def source_bytes(found: Checkpoint) -> int:
    """What a file with all of the RAM would take, so that many copies can share it."""
    base = 512 * os.fstat(found.base).st_blocks if found.base >= 0 else 0
    return base + found.copied_bytes


# -- the image's disk ----------------------------------------------------------------------------


def image_disk(core: Core, instance: Instance) -> Path:
    """The image's disk as a running vm has it: its guest has parts of it in memory, so another
    one, though of the same image, would not do."""
    pinned = core.directory(instance.id) / PINNED
    if pinned.exists():
        return pinned
    image = core.images.get(instance.image_id)
    return core.images.writable(image, core.directory(instance.id)).disk()


def pin_image(source: Path, directory: Path) -> None:
    """Let a directory keep a disk of an image, whatever becomes of it in the store."""
    target = directory / PINNED
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def pinned(launch: Launch) -> Launch:
    """The same with the disk that the instance's directory keeps, if it does."""
    path, rootfs = launch.directory / PINNED, launch.rootfs
    if not path.exists() or not isinstance(rootfs, ImageRootfs):
        return launch
    return replace(launch, rootfs=replace(rootfs, make_disk=lambda: path))


# -- records --------------------------------------------------------------------------------------


def _names(source: Instance, count: int, prefix: str) -> list[str]:
    if not prefix:
        return ["" for _ in range(count)]
    names.check(prefix)
    return [prefix] if count == 1 else [f"{prefix}-{number}" for number in range(1, count + 1)]


def create(core: Core, source: Instance, name: str) -> Instance:
    """The record of a copy; until it runs it is one that recovery removes."""
    ports = tuple(Port(p.port, p.protocol, p.host_address, 0) for p in source.spec.ports)
    joined = tuple(replace(item, address="") for item in source.spec.endpoints)
    spec = replace(source.spec, ports=ports, endpoints=joined)
    return make(core, source.image_id, spec, dict(source.record.body), name)


def make(core: Core, image_id: str, spec: Spec, body: dict[str, Any], name: str) -> Instance:
    """A new instance with a hostname of its own, as `create` says."""
    id = secrets.token_hex(32)
    record = Record(
        id, names.check(name) if name else names.generate(), image_id,
        replace(spec, hostname=id[:12]), body, time.time_ns(), removing=True,
    )  # fmt: skip
    core.directory(id).mkdir(mode=0o700)
    try:
        _add(core, record, named=bool(name))
    except BaseException:
        core.directory(id).rmdir()
        raise
    return core.get(id)


def _add(core: Core, record: Record, *, named: bool) -> None:
    for _ in range(100):
        try:
            core.add(Instance(record))
            return
        except Conflict:
            if named:
                raise
            record.name = f"{names.generate()}{secrets.randbelow(1000)}"
    raise Conflict("no free name was found", hint="give one with --name")


# -- coming up ------------------------------------------------------------------------------------


def bring_up(
    core: Core, instance: Instance, found: Checkpoint, started_by: str, address: str = ""
) -> None:
    """Let an instance go on from a checkpoint, on the disks in its directory.

    `address` is what the machine in the checkpoint had; its connections live on if it has it again.
    """
    record, before = instance.record, instance.state
    with instance.lock, ExitStack() as undo:
        record.trace, record.state = [], states.STARTING
        undo.callback(_not_started, core, instance, before)
        instance.mark("request")
        core.save(instance)
        admission.admit(core, instance, instance.spec)
        undo.callback(setattr, instance, "admitted", False)
        launch = lifecycle.acquire(core, instance, undo)
        try:
            machine = core.vms.revive(pinned(launch), found, started_by)
        finally:
            for descriptor in launch.hold:
                os.close(descriptor)
        undo.callback(machine.kill)
        lifecycle.tie(core, instance, machine)
        core.save(instance)
        lifecycle.link_log(core, instance)
        names = _identity(core, instance, launch.links)
        link = launch.links[0] if launch.links else None
        same = link is not None and link.address == address
        revival.take_over(machine, replace(names, link=None) if same else names, link)
        instance.next_process = 1 + max(status.id for status in machine.agent().state())
        record.state, record.started_ns, record.removing = states.RUNNING, time.time_ns(), False
        record.facts = machine.facts
        instance.mark("exec")
        core.save(instance)
        instance.admitted = False
        undo.pop_all()
    links.changed(core, tuple(record.interfaces))
    core.emit(instance, "start")
    instance.notify()


def _not_started(core: Core, instance: Instance, before: str) -> None:
    instance.running = None
    instance.record.state, instance.record.place, instance.record.saved = before, "", {}
    core.save(instance)


def _identity(core: Core, instance: Instance, connections: tuple[Link, ...]) -> Names:
    files = lifecycle.core_files(core, instance.spec, connections)
    files = links.with_names(core, instance, files)
    covers = (
        ("/etc/hostname", files.hostname),
        ("/etc/hosts", files.hosts),
        ("/etc/resolv.conf", files.resolv),
    )
    link = connections[0] if connections else None
    return Names(instance.spec.hostname, instance.id[:32], covers, link)
