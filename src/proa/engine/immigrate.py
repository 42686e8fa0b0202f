"""Live migration, the side that takes: see `migrate.py`.

Until `go` nothing of it outlives the connection; its record says that it is being removed.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from proa.engine import admission, duplicate, lifecycle, migrate, names
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import PINNED, Instance, Record, load_spec
from proa.engine.links import BRIDGE
from proa.engine.wire import Target, Wire
from proa.errors import Conflict, Corrupt, ProaError, Unsupported
from proa.host import files
from proa.isolation.vm import layers, qcow2, revival, saved
from proa.isolation.vm.checkpoint import Checkpoint
from proa.isolation.vm.machine import Machine
from proa.isolation.vm.plans import Names
from proa.resources import Launch, Link
from proa.spec import Port

ID = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"disk|[0-9]{1,9}")
FILES_MAXIMUM = 128
GOING = "going"  # in the instance's directory from `go` until its processes run
LOG_MAXIMUM_BYTES = 1 << 40
IMAGE_MAXIMUM_BYTES = 1 << 40


def receive(core: Core, connection: socket.socket) -> None:
    """Take a machine over a connection of the API, or say why not."""
    other = Wire(connection)
    try:
        with ExitStack() as undo:
            _Arrival(core, other, undo).run()
    except ProaError as error:
        other.refuse(error)
    finally:
        other.close()


class _Arrival:
    """One machine on its way here."""

    def __init__(self, core: Core, other: Wire, undo: ExitStack) -> None:
        self._core, self._other, self._undo = core, other, undo
        self._lacks = False  # the image's disk
        self._ports: tuple[Port, ...] = ()
        self._foreign: dict[str, Any] = {}
        self._at_home = False

    def run(self) -> None:
        offer = self._other.expect("offer")
        try:
            instance, shape, link = self._accept(offer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"the offer is not understood: {error!r}") from error
        self._undo.callback(self._discard, instance)
        directory = self._core.directory(instance.id)
        memory, state = (os.memfd_create("proa-arrival", os.MFD_CLOEXEC) for _ in range(2))
        self._undo.callback(os.close, memory)
        self._undo.callback(os.close, state)
        os.ftruncate(memory, shape.ram_bytes)
        targets = {
            migrate.MEMORY: Target(memory, shape.ram_bytes),
            migrate.STATE: Target(state, saved.STATE_MAXIMUM_BYTES),
            migrate.LOG: Target(_file(directory / "log", self._undo), LOG_MAXIMUM_BYTES),
            **_make(directory, offer["disks"], self._undo),
        }
        if self._lacks:
            file = _file(directory / PINNED, self._undo)
            targets[migrate.IMAGE] = Target(file, IMAGE_MAXIMUM_BYTES)
        self._other.send("ready", image=self._lacks)
        self._other.expect("load", targets)
        _record_disks(directory, offer["disks"])
        self._enter(instance, Checkpoint(shape, -1, memory, state), link)

    def _accept(self, offer: dict[str, Any]) -> tuple[Instance, Any, Link | None]:
        if offer["format"] != migrate.FORMAT:
            raise Unsupported("the engines are of different versions")
        identity, spec = str(offer["id"]), load_spec(offer["spec"])
        if not ID.fullmatch(identity) or spec.isolation != self._core.vms.name:
            raise Corrupt("the offer is not understood")
        shape = saved.check(offer["machine"])
        image = self._core.images.get(str(offer["image_id"]))
        link = Link(**offer["link"]) if offer["link"] is not None else None
        if link is not None:
            link = self._linked(identity, link)
            self._foreign = {} if self._at_home else {**vars(link), "home": str(offer["home"])}
        self._ports = tuple(
            Port(int(port), str(protocol), str(host), int(number))
            for port, protocol, host, number in offer["ports"]
        )
        record = Record(
            identity, names.check(str(offer["name"])), image.id, spec, dict(offer["body"]),
            int(offer["created_ns"]), removing=True,
        )  # fmt: skip
        self._lacks = self._differs(image, str(offer["image_disk"]), identity)
        try:
            self._core.directory(identity).mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"the instance '{record.name}' is here already") from None
        try:
            self._core.add(Instance(record))
        except BaseException:
            self._core.directory(identity).rmdir()
            raise
        return self._core.get(identity), shape, link

    def _linked(self, identity: str, link: Link) -> Link:
        """Its interface here: our own one's again, or one in the other engine's bridge."""
        ours = self._core.networks.link_of(identity)
        if ours is not None and (ours.address, ours.bridge) == (link.address, link.bridge):
            self._at_home = True
            return ours
        return replace(link, host_name=f"pm{secrets.token_hex(5)}")

    def _differs(self, image: Any, digest: str, identity: str) -> bool:
        """Whether its disk is not the very same here: the guest has parts of it in memory."""
        scratch = self._core.config.root / f".arrival-{identity[:12]}"
        try:
            disk = self._core.images.writable(image, scratch).disk()
            return migrate.disk_digest(disk) != digest
        finally:
            files.remove_tree(scratch)

    def _discard(self, instance: Instance) -> None:
        """It stays theirs."""
        if instance.record.removing and not instance.removed:
            instance.record.state = states.EXITED
            lifecycle.remove(self._core, instance, force=True)

    # -- going on -------------------------------------------------------------------------------

    def _enter(self, instance: Instance, found: Checkpoint, link: Link | None) -> None:
        core, record = self._core, instance.record
        with instance.lock, ExitStack() as undo:
            record.state = states.STARTING
            core.save(instance)
            admission.admit(core, instance, instance.spec)
            undo.callback(setattr, instance, "admitted", False)
            machine = core.vms.revive(
                duplicate.pinned(_launch(core, instance, link)), found, duplicate.MIGRATION
            )
            undo.callback(self._fell, instance, machine)
            lifecycle.tie(core, instance, machine)
            record.foreign = self._foreign
            record.interfaces = {BRIDGE: link.name} if link is not None and self._at_home else {}
            core.save(instance)
            lifecycle.link_log(core, instance)
            revival.stand(machine, _names(core, instance, link), link)
            self._other.send("standing")
            self._other.expect("go")
            self._goes(instance, machine)
            undo.pop_all()
            instance.admitted = False
        self._after(instance, machine, link)

    def _goes(self, instance: Instance, machine: Machine) -> None:
        """It is ours from the record's change on, though we be killed at once."""
        record, mark = instance.record, self._core.directory(instance.id) / GOING
        mark.touch()
        instance.next_process = 1 + max(status.id for status in machine.agent().state())
        record.state, record.removing, record.facts = states.RUNNING, False, machine.facts
        record.started_ns = record.started_ns or record.created_ns
        self._core.save(instance)
        machine.agent().resume()
        mark.unlink()
        (self._core.config.root / migrate.AWAY / record.id).unlink(missing_ok=True)

    def _fell(self, instance: Instance, machine: Machine) -> None:
        instance.running = None
        machine.kill()

    def _after(self, instance: Instance, machine: Machine, link: Link | None) -> None:
        """The other engine has let go of its ports; a client that waits is told in any case."""
        core = self._core
        core.emit(instance, "create")
        core.emit(instance, "start")
        instance.notify()
        with suppress(ProaError):
            self._other.send("running")
            self._other.expect("released")
        if link is not None and self._ports:
            address = link.address.partition("/")[0]
            held = core.networks.publish(instance.id, address, self._ports)
            machine.agent().hold([port.holder_fd for port in held])
            for port in held:
                os.close(port.holder_fd)
        with suppress(ProaError):
            self._other.send("done")


def recovered(core: Core, instance: Instance) -> None:
    """After the engine was killed between `go` and the first step."""
    mark = core.directory(instance.id) / GOING
    if mark.exists() and instance.running is not None:
        instance.running.agent().resume()
        mark.unlink()


def _launch(core: Core, instance: Instance, link: Link | None) -> Launch:
    record, spec = instance.record, instance.spec
    image, directory = core.images.get(record.image_id), core.directory(record.id)
    return Launch(
        id=record.id, directory=directory, rootfs=core.images.writable(image, directory),
        limits=spec.limits, links=(link,) if link is not None else (), sysctls=spec.sysctls,
        remove=spec.remove, hardware=spec.hardware, architecture=image.details.architecture,
        hostname=spec.hostname,
    )  # fmt: skip


def _names(core: Core, instance: Instance, link: Link | None) -> Names:
    """Its own as before: a machine that moves is the same one."""
    return Names(instance.spec.hostname, instance.id[:32], ())


def _make(directory: Path, disks: dict[str, Any], undo: ExitStack) -> dict[int, Target]:
    """Empty files for what is coming, in the order both sides count them."""
    targets: dict[int, Target] = {}
    (directory / layers.DIRECTORY).mkdir(mode=0o700)
    number = migrate.FIRST_FILE
    for name in sorted(disks):
        for item in disks[name]:
            size = int(item["size_bytes"])
            known = FILE.fullmatch(str(item["file"])) and item["format"] in ("raw", "qcow2")
            if not known or len(targets) >= FILES_MAXIMUM or size > qcow2.SIZE_MAXIMUM_BYTES:
                raise Corrupt("the offer is not understood")
            file = _file(_path(directory, item), undo)
            os.ftruncate(file, size)
            targets[number] = Target(file, qcow2.SIZE_MAXIMUM_BYTES)
            number += 1
    return targets


def _file(path: Path, undo: ExitStack) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    undo.callback(os.close, file)
    return file


def _path(directory: Path, item: dict[str, Any]) -> Path:
    if item["file"] == layers.FIRST:
        return directory / layers.FIRST
    return directory / layers.DIRECTORY / str(item["file"])


def _record_disks(directory: Path, disks: dict[str, Any]) -> None:
    chains = {
        name: layers.Chain(
            tuple(layers.Layer(_path(directory, item), item["format"]) for item in items)
        )
        for name, items in disks.items()
    }
    layers.save(directory, chains)
