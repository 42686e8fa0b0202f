"""Volumes, folders and disks added to an instance and taken from it, also while it runs.

What is added is in the record, so it is there again after a restart.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import ExtraDisk, Instance
from proa.errors import Conflict, HostError, Invalid, NotFound, Unsupported
from proa.isolation.base import Running
from proa.resources import Disk, Share
from proa.spec import Mount

DISK_MAXIMUM_BYTES = 16 << 40
DISK_MINIMUM_BYTES = 1 << 20
DISKS_MAXIMUM = 16
LETTERS = "cdefghijklmnopqrstuvwxyz"  # vda and vdb are a vm's own


# -- volumes and folders --------------------------------------------------------------------------


def attach(core: Core, instance: Instance, mount: Mount) -> None:
    """Let a volume or a host's directory appear at its target.  Raises Conflict, Invalid."""
    with instance.lock:
        if any(other.target == mount.target for other in instance.spec.mounts):
            raise Conflict(f"instance '{instance.name}' has something at '{mount.target}' already")
        running = _able(instance)
        share = Share(_source(core, mount), mount.target, mount.readonly)
        if running is not None:
            running.plug(share)
        _set_mounts(core, instance, (*instance.spec.mounts, mount))
    core.emit(instance, "mount", destination=mount.target)


def _source(core: Core, mount: Mount) -> Path:
    if mount.kind == "volume":
        return core.volumes.path(mount.source)
    source = Path(mount.source)
    if not source.exists():
        raise Invalid(f"bind source path does not exist: {mount.source}")
    return source


def detach(core: Core, instance: Instance, what: str) -> None:
    """Take a volume by name, or whatever is at a target.  Raises NotFound, Conflict."""
    with instance.lock:
        volumes = [mount for mount in instance.spec.mounts if mount.kind == "volume"]
        anonymous = [mount for mount in volumes if not mount.source]
        names = dict(zip(instance.record.volumes, anonymous, strict=False))
        found = [
            mount
            for mount in instance.spec.mounts
            if what == mount.target or (mount.kind == "volume" and what == mount.source)
        ] or [mount for name, mount in names.items() if name == what]
        if not found:
            raise NotFound(f"instance '{instance.name}' has nothing of '{what}'")
        if len(found) > 1:
            targets = ", ".join(mount.target for mount in found)
            raise Conflict(f"'{what}' is at {targets}", hint="name the target")
        mount = found[0]
        running = _able(instance)
        if running is not None:
            running.unplug(Share(Path("/"), mount.target, mount.readonly))
        instance.record.volumes = [
            name for name in instance.record.volumes if names.get(name) is not mount
        ]
        rest = tuple(other for other in instance.spec.mounts if other is not mount)
        _set_mounts(core, instance, rest)
    core.emit(instance, "unmount", destination=mount.target)


def _set_mounts(core: Core, instance: Instance, mounts: tuple[Mount, ...]) -> None:
    instance.record.spec = replace(instance.spec, mounts=mounts)
    if instance.running is not None:
        instance.record.saved = instance.running.saved
    core.save(instance)


def _able(instance: Instance) -> Running | None:
    if instance.state == states.PAUSED:
        raise Conflict(f"Container {instance.name} is paused, unpause it first")
    return instance.running


# -- disks ----------------------------------------------------------------------------------------


def attach_disk(core: Core, instance: Instance, wanted: ExtraDisk, size_bytes: int = 0) -> str:
    """Plug a disk into a vm: a file of the host's, or an empty one of a size; its name inside."""
    if not core.isolation(instance.isolation).features.disks:
        raise Unsupported(
            f"disks cannot be added to '{instance.name}'",
            hint="attach a volume, or run an image with --vm",
        )
    with instance.lock:
        taken = {disk.name for disk in instance.record.disks}
        free = [f"vd{letter}" for letter in LETTERS if f"vd{letter}" not in taken]
        if len(taken) >= DISKS_MAXIMUM or not free:
            raise Conflict(f"instance '{instance.name}' has {len(taken)} disks more already")
        disk = replace(wanted, name=free[0])
        if not disk.path:
            disk = replace(disk, path=_empty(core, instance, free[0], size_bytes), own=True)
        running = _able(instance)
        try:
            _check_file(disk.path)
            if running is not None:
                running.plug(plain(disk))
        except BaseException:
            if disk.own:
                Path(disk.path).unlink(missing_ok=True)
            raise
        instance.record.disks = [*instance.record.disks, disk]
        core.save(instance)
    core.emit(instance, "attach-disk", name=disk.name)
    return disk.name


def _empty(core: Core, instance: Instance, name: str, size_bytes: int) -> str:
    if not DISK_MINIMUM_BYTES <= size_bytes <= DISK_MAXIMUM_BYTES:
        raise Invalid(f"a disk cannot have {size_bytes} bytes", hint="from 1 MiB to 16 TiB")
    path = core.directory(instance.id) / f"added-{name}.raw"
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            file.truncate(size_bytes - size_bytes % 512)
    except OSError as error:
        raise HostError(f"cannot make the disk '{path}': {error.strerror}") from error
    return str(path)


def _check_file(path: str) -> None:
    if not os.path.isabs(path) or not (os.path.isfile(path) or Path(path).is_block_device()):
        raise Invalid(f"no disk '{path}'", hint="the absolute path of a file or a block device")


def detach_disk(core: Core, instance: Instance, name: str) -> None:
    """Unplug a disk; an empty one that was made for it is gone.  Raises NotFound, Timeout."""
    with instance.lock:
        known = [disk for disk in instance.record.disks if name in (disk.name, disk.path)]
        if not known:
            raise NotFound(f"instance '{instance.name}' has no added disk '{name}'")
        running = _able(instance)
        if running is not None:
            running.unplug(plain(known[0]))
        instance.record.disks = [disk for disk in instance.record.disks if disk != known[0]]
        core.save(instance)
        if known[0].own:
            Path(known[0].path).unlink(missing_ok=True)
    core.emit(instance, "detach-disk", name=known[0].name)


def plug_all(instance: Instance, running: Running) -> None:
    """At a start: the disks that were added before."""
    for disk in instance.record.disks:
        _check_file(disk.path)
        running.plug(plain(disk))


def plain(disk: ExtraDisk) -> Disk:
    """As the isolation wants it."""
    return Disk(disk.name, Path(disk.path), disk.readonly, disk.format)
