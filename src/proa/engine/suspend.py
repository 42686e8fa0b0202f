"""Suspended instances: a vm's memory on disk, QEMU gone, to go on later as if nothing had been.

It is a snapshot with memory that is used up by going on: until the vm runs again, disks and memory
of the same moment are there, so a try that fails can be made again.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from proa.engine import duplicate, snapshots
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import Conflict
from proa.host import files


def suspend(core: Core, instance: Instance) -> None:
    """Save a running vm and end it.  Raises Conflict, Unsupported; it runs on then."""
    with instance.lock:
        duplicate.check(instance, "suspending")
        directory = core.directory(instance.id)
        work = directory / f".suspended-{secrets.token_hex(4)}"
        work.mkdir(mode=0o700)
        try:
            order = snapshots.Order(snapshots.SUSPENDED, memory=True, go_on=False)
            snapshots.take(core, instance, work, order)
            files.sync_all(work)
            work.rename(directory / snapshots.SUSPENDED)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        _leave(core, instance)
    core.emit(instance, "suspend")
    instance.notify()


def _leave(core: Core, instance: Instance) -> None:
    """From the record's change on it is suspended, whatever happens to us; its address stays."""
    running, record = instance.running, instance.record
    record.state, record.place, record.saved = states.SUSPENDED, "", {}
    core.save(instance)
    instance.running = None
    if running is not None:
        running.kill()
    core.networks.unpublish(record.id)
    duplicate.unmark(core, instance)


def resume(core: Core, instance: Instance) -> None:
    """Let a suspended vm go on.  Raises Conflict unless it is suspended; it stays so on failure."""
    with instance.lock:
        if instance.state != states.SUSPENDED:
            raise Conflict(f"instance '{instance.name}' is {instance.state}, not suspended")
        path = _path(core, instance)
        snapshots.put_back(core, instance, path, snapshots.read(path))
        snapshots.discard(path)
    core.emit(instance, "resume")


def recovered(core: Core, instance: Instance) -> None:
    """After the engine was away: what was being resumed is still suspended, unless it runs."""
    path = _path(core, instance)
    for old in path.parent.glob(".suspended-*"):
        files.remove_tree(old)
    if not path.exists():
        return
    if instance.state in (states.RUNNING, states.PAUSED, states.EXITED):
        snapshots.discard(path)
    elif instance.state == states.CREATED:
        instance.record.state, instance.record.error = states.SUSPENDED, ""
        core.save(instance)


def suspended(core: Core, instance: Instance) -> bool:
    """Whether there is something to go on from."""
    return _path(core, instance).exists()


def _path(core: Core, instance: Instance) -> Path:
    return core.directory(instance.id) / snapshots.SUSPENDED
