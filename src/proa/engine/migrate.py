"""Live migration, the side that gives: a running vm goes on at another engine of this host.

Disks and memory are sent while the vm runs; then it stands still, and what it has written since,
its devices' state and the last of its disks follow.  The other side loads all of it, and waits.
From `go` on it is theirs; until then it is ours, and goes on here whatever happens.  The moment in
between is on disk on both sides: who comes back from a crash asks the other, and never two run.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from proa.engine import duplicate, machines, wire
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.links import present
from proa.errors import ProaError, Unsupported
from proa.host import files
from proa.isolation.vm import chain, checkpoint, layers, pages, saved
from proa.isolation.vm.checkpoint import Checkpoint
from proa.isolation.vm.machine import Machine
from proa.resources import Link

FORMAT = 1
LEAVING = "leaving.json"  # in the instance's directory between `go` and the end
SOCKET = "proa.sock"
AWAY = "away"  # below the root: addresses of ours that others' instances have
MEMORY, STATE, LOG, IMAGE, FIRST_FILE = range(5)  # targets
CELL, READ_BYTES = 1 << 16, 1 << 20
# Kernel, fs/erofs/erofs_fs.h: checksum at 4, build_time and build_time_nsec at 24 are left out.
SUPERBLOCK, UNTIMED = slice(1024, 1152), ((1024, 1028), (1032, 1048), (1060, 1152))
ID_CHARACTERS = 64
ASK_SECONDS, ASK_PAUSE = 20.0, 0.2


@dataclass(frozen=True)
class Migrated:
    """What it took: bytes sent in all and while it stood still, and for how long it did."""

    sent_bytes: int
    last_bytes: int
    paused_ns: int


def migrate(core: Core, instance: Instance, to: str) -> Migrated:
    """Move a running vm to the engine at `to`.  It runs on here when this fails."""
    with instance.lock:
        duplicate.check(instance, "migration")
        machine = machines.machine(instance, "a migration")
        checkpoint.check(machine)
        other = wire.connect(to, wire.PATH)
        try:
            done = _Move(core, instance, machine, other).run(to)
        finally:
            other.close()
    core.emit(instance, "migrate", to=to)
    instance.notify()
    return done


class _Move:
    """One migration."""

    def __init__(self, core: Core, instance: Instance, machine: Machine, other: wire.Wire) -> None:
        self._core, self._instance = core, instance
        self._machine, self._other = machine, other
        self._directory = core.directory(instance.id)
        self._sent = 0

    def run(self, to: str) -> Migrated:
        chains = layers.load(self._directory)
        for disk in chains.values():
            if any(layer.base for layer in disk.layers):
                raise Unsupported("a disk over somebody's file cannot move to another engine")
        frozen = chain.freeze(self._machine, self._directory)
        now = layers.load(self._directory)
        self._other.send("offer", **self._offer(now))
        if self._other.expect("ready").get("image"):
            with _opened(duplicate.image_disk(self._core, self._instance)) as file:
                self._sent += self._other.send_file(IMAGE, file.fileno())
        with ExitStack() as opened:
            first = self._precopy(frozen, opened)
            return self._switch(to, first, now, opened)

    def _offer(self, now: layers.Chains) -> dict[str, Any]:
        record = self._instance.record
        shape = checkpoint.shape_of(self._machine)
        link = _link(self._core, self._instance)
        return {
            "format": FORMAT, "id": record.id, "name": record.name, "image_id": record.image_id,
            "spec": asdict(record.spec), "body": record.body, "created_ns": record.created_ns,
            "image_disk": disk_digest(duplicate.image_disk(self._core, self._instance)),
            "link": asdict(link) if link is not None else None,
            "home": self._instance.record.foreign.get("home")
            or f"{wire.SCHEME}{self._core.config.run / SOCKET}",
            "ports": [
                [row.port, row.protocol, row.host_address, row.host_port]
                for row in self._core.networks.published(record.id)
            ],
            "machine": {**saved.here(shape.architecture), "format": saved.FORMAT,
                        "shape": asdict(shape), "board": list(checkpoint.words(shape))},
            "disks": {name: [_file(layer) for layer in disk.layers] for name, disk in now.items()},
        }  # fmt: skip

    def _precopy(self, frozen: layers.Chains, opened: ExitStack) -> int:
        """Send disks and memory of a vm that runs; a file with the memory as it was sent."""
        for number, layer in _numbered(layers.load(self._directory)):
            if any(layer in disk.layers for disk in frozen.values()):
                with _opened(layer.path) as file:
                    self._sent += self._other.send_file(number, file.fileno())
        machine = self._machine
        memory = pages.find(machine.place.pid, machine.qmp, machine.shape)
        opened.callback(memory.close)
        first = os.memfd_create("proa-first", os.MFD_CLOEXEC)
        opened.callback(os.close, first)
        os.ftruncate(first, memory.size_bytes)
        pages.copy(memory, pages.own(memory), first)
        if memory.base >= 0:
            pages.underlay(memory.base, first)
        self._sent += self._other.send_file(MEMORY, first)
        return first

    def _switch(self, to: str, first: int, now: layers.Chains, opened: ExitStack) -> Migrated:
        mark = self._directory / duplicate.STOPPED
        mark.touch()
        began = time.monotonic_ns()
        found = checkpoint.take(self._machine, lambda: None, go_on=False)
        opened.callback(found.close)
        try:
            last = self._rest(found, first, now)
            self._other.send("load")
            self._other.expect("standing")
            files.atomic_write(
                self._directory / LEAVING, json.dumps({"to": to}).encode(), durable=True
            )
            self._let_go(to)
        except Unknown as error:
            _stay(self._core, self._instance, error)
            raise
        except BaseException:
            duplicate.thaw(self._core, self._instance)
            raise
        paused = time.monotonic_ns() - began
        leave(self._core, self._instance, to)
        with suppress(ProaError):
            self._other.send("released")
            self._other.expect("done")
        return Migrated(self._sent, last, paused)

    def _rest(self, found: Checkpoint, first: int, now: layers.Chains) -> int:
        changed = _changed(found, first)
        last = self._other.send_ranges(MEMORY, found.pages, changed)
        last += self._other.send_file(STATE, found.state)
        tops = {disk.top for disk in now.values()}
        for number, layer in _numbered(now):
            if layer in tops:
                with _opened(layer.path) as file:
                    last += self._other.send_file(number, file.fileno())
        with _opened(self._directory / "log") as file:
            last += self._other.send_file(LOG, file.fileno())
        self._sent += last
        return last

    def _let_go(self, to: str) -> None:
        """Say `go`; returns when it runs there.  Raises Unknown when that cannot be known."""
        try:
            self._other.send("go")
            self._other.expect("running")
        except ProaError:
            if not asked(to, self._instance.id, ASK_SECONDS):
                (self._directory / LEAVING).unlink()
                raise


def disk_digest(path: Path) -> str:
    """Of an EROFS file, without the time it was made at, which is nowhere but in its superblock."""
    with path.open("rb") as file:
        head = bytearray(file.read(SUPERBLOCK.stop))
        head[SUPERBLOCK] = b"".join(head[start:end] for start, end in UNTIMED).ljust(
            SUPERBLOCK.stop - SUPERBLOCK.start, b"\0"
        )
        digest = hashlib.sha256(head)
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def asked(to: str, instance_id: str, seconds: float) -> bool:
    """Whether an instance runs at another engine, which is asked until it answers."""
    end = time.monotonic() + seconds
    while (answer := wire.runs(to, instance_id)) is None:
        if time.monotonic() > end:
            raise Unknown(to)
        time.sleep(ASK_PAUSE)
    return answer


class Unknown(ProaError):
    """The other engine had the last word and is not there to tell it."""

    code = "unknown"
    http_status = 503

    def __init__(self, to: str) -> None:
        super().__init__(
            f"the engine at '{to}' does not tell whether it has the vm",
            hint="it stays stopped here until that engine answers; then start this engine anew",
        )


def leave(core: Core, instance: Instance, to: str) -> None:
    """It runs at another engine: nothing is kept here but its address."""
    record, running = instance.record, instance.running
    if not record.foreign:
        away = core.config.root / AWAY
        away.mkdir(mode=0o700, exist_ok=True)
        files.atomic_write(away / record.id, to.encode(), durable=True)
    record.removing, record.state = True, states.EXITED
    core.save(instance)
    instance.running = None
    if running is not None:
        running.kill()
    core.networks.unpublish(record.id)
    files.remove_tree(core.directory(record.id))
    core.forget(instance)
    instance.removed = True


def guests(core: Core) -> set[str]:
    """Instances that run elsewhere with addresses of ours; those known to be over are forgotten."""
    away = core.config.root / AWAY
    found = set(os.listdir(away)) if away.is_dir() else set()
    for instance_id in sorted(found):
        with suppress(OSError):
            if wire.runs((away / instance_id).read_text(), instance_id) is False:
                (away / instance_id).unlink()
                found.discard(instance_id)
    return found


def forget(core: Core, instance_id: str) -> None:
    """A machine that went away is over, says the engine it went to."""
    if len(instance_id) == ID_CHARACTERS and instance_id.isalnum():
        (core.config.root / AWAY / instance_id).unlink(missing_ok=True)
        if not any(item.id == instance_id for item in core.all()):
            core.networks.release(instance_id)


def recovered(core: Core, instance: Instance) -> bool:
    """After the engine was away in the middle of a migration: whether the instance is gone.

    While the other engine cannot be asked it stays stopped.
    """
    path, record = core.directory(instance.id) / LEAVING, instance.record
    if not path.exists():
        return False
    to = str(json.loads(path.read_bytes())["to"])
    answer = wire.runs(to, instance.id)
    if answer:
        core.places.release(record.place)
        leave(core, instance, to)
    elif answer is None:
        _stay(core, instance, Unknown(to))
    else:
        path.unlink()
        record.state, record.error = states.RUNNING, ""
        (path.parent / duplicate.STOPPED).touch()
    return bool(answer)


def _stay(core: Core, instance: Instance, why: Unknown) -> None:
    """Stopped, since it may run elsewhere."""
    instance.record.state, instance.record.error = states.PAUSED, why.message
    core.save(instance)
    duplicate.unmark(core, instance)


def _link(core: Core, instance: Instance) -> Link | None:
    found = list(present(core, instance).values())
    if len(found) > 1:
        raise Unsupported("a vm in several networks cannot move to another engine")
    return replace(found[0], host_name="") if found else None


def _file(layer: layers.Layer) -> dict[str, Any]:
    return {"file": layer.path.name, "format": layer.format,
            "size_bytes": layer.path.stat().st_size}  # fmt: skip


def _numbered(chains: layers.Chains) -> Iterator[tuple[int, layers.Layer]]:
    """Every file of every disk with its target, as both sides count them."""
    number = FIRST_FILE
    for name in sorted(chains):
        for layer in chains[name].layers:
            yield number, layer
            number += 1


def _opened(path: Path) -> Any:
    return path.open("rb", buffering=0)


def _changed(found: Checkpoint, first: int) -> list[tuple[int, int]]:
    """Where the pages of a checkpoint are not what was sent before."""
    ranges: list[tuple[int, int]] = []
    size = found.shape.ram_bytes
    with (
        mmap.mmap(found.pages, size, prot=mmap.PROT_READ) as new,
        mmap.mmap(first, size, prot=mmap.PROT_READ) as old,
        memoryview(new) as fresh,
        memoryview(old) as known,
    ):
        for start, end in pages.filled(found.pages):
            for at in range(start, end, CELL):
                stop = min(at + CELL, end)
                if fresh[at:stop] != known[at:stop]:
                    ranges.append((at, stop))
    return ranges
