"""Snapshots of an instance: its disks, and its memory when that is asked for, kept beside it.

`instances/<id>/snapshots/<name>/` holds `snapshot.json`; of a vm `disk` and `disks/` as in the
instance's directory (hard links to frozen files, so that a snapshot takes no time and little room)
and `memory/` (isolation/vm/saved.py); of a container `upper/`, a copy.  A snapshot is made aside
and renamed, so there is all of it or nothing.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proa.engine import duplicate, lifecycle
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import PINNED, Instance
from proa.errors import Conflict, Corrupt, HostError, Invalid, NoSpace, NotFound, Unsupported
from proa.host import files
from proa.isolation.vm import chain, layers, saved
from proa.isolation.vm.machine import Machine

DIRECTORY, FACTS, MEMORY, UPPER = "snapshots", "snapshot.json", "memory", "upper"
SUSPENDED = "suspended"  # in the instance's directory, of the same shape
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
SNAPSHOTS_MAXIMUM = 256


@dataclass(frozen=True)
class Snapshot:
    """`state` is what the files are: of a stopped instance, written out by a running one, of a
    running machine with its memory, or as after a loss of power."""

    name: str
    created_ns: int
    memory: bool
    state: str
    image_id: str
    address: str = ""
    paused_ns: int = 0


STOPPED, WRITTEN, RUNNING, CRASH = "stopped", "written out", "running", "as after a crash"


@dataclass(frozen=True)
class Order:
    """What is asked for; without `go_on` a vm whose memory is taken stays stopped."""

    name: str
    memory: bool = False
    go_on: bool = True


# -- making ---------------------------------------------------------------------------------------


def create(core: Core, instance: Instance, name: str, *, memory: bool = False) -> Snapshot:
    """A named snapshot.  Raises Conflict for a name in use, Unsupported for a container."""
    if not NAME.fullmatch(name):
        raise Invalid(f"invalid snapshot name '{name}'", hint="letters, digits, '_', '.', '-'")
    with instance.lock:
        home = _home(core, instance)
        if (home / name).exists():
            raise Conflict(f"instance '{instance.name}' has a snapshot '{name}' already")
        if len(_names(home)) >= SNAPSHOTS_MAXIMUM:
            raise Conflict(f"instance '{instance.name}' has {SNAPSHOTS_MAXIMUM} snapshots")
        home.mkdir(mode=0o700, exist_ok=True)
        with _aside(home, name) as work:
            made = take(core, instance, work, Order(name, memory))
    core.emit(instance, "snapshot", snapshot=name)
    return made


def take(core: Core, instance: Instance, work: Path, order: Order) -> Snapshot:
    """Write a snapshot into a directory; the caller holds the lock."""
    if instance.state not in (states.RUNNING, states.EXITED, states.CREATED):
        raise Conflict(
            f"instance '{instance.name}' is {instance.state}", hint="unpause or resume it"
        )
    isolation = core.isolation(instance.isolation)
    if isolation.features.shares_kernel:
        if order.memory:
            raise Unsupported(
                f"instance '{instance.name}' is a container, whose memory is part of the host's",
                hint="leave out --memory, or run it with --vm",
            )
        state, paused = _copy_upper(core, instance, work), 0
    elif order.memory:
        state, paused = RUNNING, _with_memory(core, instance, work, go_on=order.go_on)
    else:
        state, paused = _disks(core, instance, work), 0
    made = Snapshot(
        order.name, time.time_ns(), order.memory, state, instance.image_id,
        _address(core, instance), paused,
    )  # fmt: skip
    files.atomic_write(work / FACTS, json.dumps(asdict(made)).encode(), durable=True)
    return made


def _with_memory(core: Core, instance: Instance, work: Path, *, go_on: bool) -> int:
    duplicate.check(instance, "snapshot of its memory")
    found, chains = duplicate.freeze(core, instance, go_on=go_on)
    try:
        layers.share(chains, work)
        duplicate.pin_image(duplicate.image_disk(core, instance), work)
        found = found.whole()
        saved.save(found, work / MEMORY)
    except BaseException:
        if not go_on:
            duplicate.thaw(core, instance)
        raise
    finally:
        found.close()
    return found.paused_ns


def _disks(core: Core, instance: Instance, work: Path) -> str:
    directory, running = core.directory(instance.id), instance.running
    if not isinstance(running, Machine):
        before = layers.load(directory)
        layers.grow(directory)  # first: what is shared must not be a top
        layers.share(before, work)
        return STOPPED
    written = False
    prepared = chain.prepare(running.qmp, directory)
    try:
        with duplicate.written_out(running) as written:
            chain.commit(prepared)
    except BaseException:
        chain.cancel(prepared)
        raise
    layers.share(prepared.before, work)
    return WRITTEN if written else CRASH


def _copy_upper(core: Core, instance: Instance, work: Path) -> str:
    running = instance.running
    source = core.directory(instance.id) / UPPER
    if running is None:
        if source.exists():  # else it was never started
            _copy_tree(source, work / UPPER)
        return STOPPED
    running.hold()
    try:
        _copy_tree(source, work / UPPER)
    finally:
        running.let_go()
    return WRITTEN


def _copy_tree(source: Path, target: Path) -> None:
    """All of it: owners, attributes, devices, links among files, holes; shared blocks if it can."""
    command = ["cp", "-a", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        kind = NoSpace if "No space left" in said[0] else HostError
        raise kind(f"cannot copy '{source}': {said[0]}")


def _address(core: Core, instance: Instance) -> str:
    link = core.networks.link_of(instance.id)
    return link.address if link is not None else ""


# -- telling --------------------------------------------------------------------------------------


def snapshots(core: Core, instance: Instance) -> list[Snapshot]:
    """All of an instance, oldest first; damaged ones are left out."""
    home = _home(core, instance)
    found: list[Snapshot] = []
    for name in _names(home):
        try:
            found.append(read(home / name))
        except Corrupt:
            continue
    return sorted(found, key=lambda item: item.created_ns)


def inspect(core: Core, instance: Instance, name: str) -> dict[str, Any]:
    """Everything known of one."""
    path = path_of(core, instance, name)
    found = read(path)
    chains = layers.load(path)
    facts: dict[str, Any] = {
        **asdict(found),
        "disks": {disk: len(item.layers) for disk, item in chains.items()},
    }
    if found.memory:
        machine = saved.read(path / MEMORY)
        facts["machine"] = {key: machine[key] for key in ("shape", "qemu", "processor", "tsc_khz")}
        facts["memory_bytes"] = saved.stored_bytes(path / MEMORY)
    return facts


def read(path: Path) -> Snapshot:
    """What is said of a snapshot.  Raises Corrupt."""
    try:
        return Snapshot(**json.loads((path / FACTS).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt(f"the snapshot '{path.name}' is damaged") from error


def path_of(core: Core, instance: Instance, name: str) -> Path:
    """Where a snapshot is.  Raises NotFound."""
    path = _home(core, instance) / name
    if not NAME.fullmatch(name) or not path.is_dir():
        raise NotFound(
            f"instance '{instance.name}' has no snapshot '{name}'", hint="see `proa snapshot ls`"
        )
    return path


def _home(core: Core, instance: Instance) -> Path:
    return core.directory(instance.id) / DIRECTORY


def _names(home: Path) -> list[str]:
    if not home.is_dir():
        return []
    return [path.name for path in home.iterdir() if NAME.fullmatch(path.name)]


# -- removing -------------------------------------------------------------------------------------


def remove(core: Core, instance: Instance, name: str) -> None:
    """Remove a snapshot; bytes nobody else has are freed."""
    with instance.lock:
        discard(path_of(core, instance, name))
    core.emit(instance, "snapshot-remove", snapshot=name)


def discard(path: Path) -> None:
    """Remove a snapshot's directory at once, as far as anybody sees."""
    trash = path.with_name(f".old-{secrets.token_hex(4)}")
    path.rename(trash)
    files.remove_tree(trash)


@contextmanager
def _aside(home: Path, name: str) -> Iterator[Path]:
    """A directory that gets its name when all is in it; what others left half-made is removed."""
    for old in home.glob(".*-*"):
        files.remove_tree(old)
    work = home / f".new-{secrets.token_hex(4)}"
    work.mkdir(mode=0o700)
    try:
        yield work
        files.sync_all(work)
        work.rename(home / name)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


# -- restoring ------------------------------------------------------------------------------------


def restore(core: Core, instance: Instance, name: str, as_name: str = "") -> Instance:
    """Put an instance back, or (`as_name`) make a new one of the snapshot.

    With a memory it runs then; else it is as stopped, or created.  Raises Conflict while it runs.
    """
    with instance.lock:
        path = path_of(core, instance, name)
        found = read(path)
        if not as_name:
            if instance.live:
                raise Conflict(
                    f"instance '{instance.name}' is {instance.state}",
                    hint="stop it first, or restore under another name with --as",
                )
            put_back(core, instance, path, found)
            return instance
        copy = duplicate.create(core, instance, as_name)
        try:
            put_back(core, copy, path, found)
        except BaseException:
            lifecycle.remove(core, copy, force=True, volumes=True)
            raise
        return copy


def put_back(core: Core, instance: Instance, path: Path, found: Snapshot) -> None:
    """Give an instance that does not run the files, and the memory if any, of a snapshot."""
    directory = core.directory(instance.id)
    machine = saved.load(path / MEMORY) if found.memory else None  # before anything is changed
    try:
        if core.isolation(instance.isolation).features.shares_kernel:
            _swap_upper(directory, path)
        else:
            layers.share(layers.load(path), directory, writable=True)
            layers.sweep(directory)
        if machine is not None:
            duplicate.pin_image(path / PINNED, directory)
            duplicate.bring_up(core, instance, machine, duplicate.SNAPSHOT, found.address)
            return
    finally:
        if machine is not None:
            machine.close()
    instance.record.removing = False
    core.save(instance)
    instance.notify()


def _swap_upper(directory: Path, path: Path) -> None:
    fresh, upper = directory / f".upper-{secrets.token_hex(4)}", directory / UPPER
    old = directory / f".upper-{secrets.token_hex(4)}"
    if (path / UPPER).exists():
        _copy_tree(path / UPPER, fresh)
    if upper.exists():
        upper.rename(old)
    if fresh.exists():
        fresh.rename(upper)
    files.remove_tree(old)
