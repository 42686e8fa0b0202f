"""The engine's interface: one method per thing a client can ask, each a line or a few.

Everything behind it is in the modules beside; the API (and so every client) sees only this.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import proa
from proa.engine import (
    additions,
    admission,
    chains,
    config,
    disk_import,
    disks,
    files,
    inspect,
    lifecycle,
    links,
    migrate,
    names,
    networks,
    packages,
    recovery,
    request,
    screen,
    ssh,
    streams,
    suspend,
    whole,
)
from proa.engine import instance as states
from proa.engine.build import Builder
from proa.engine.copies import Copies
from proa.engine.core import Core
from proa.engine.execs import Execs
from proa.engine.filters import matches
from proa.engine.idle import Idler
from proa.engine.instance import Instance, Record
from proa.engine.logs import read_log
from proa.engine.options import AttachOptions, CommitOptions, LogOptions
from proa.engine.prober import Prober
from proa.engine.registries import Registries
from proa.engine.ssh import Way
from proa.engine.stats import Stats, stats, top
from proa.errors import Conflict, Invalid
from proa.image.build.request import BuildRequest, Report
from proa.image.catalog import Image
from proa.image.layer.stream import Source
from proa.image.layer.writer import Sink
from proa.image.progress import Progress
from proa.image.sbom.bill import Bill
from proa.isolation.base import Running
from proa.isolation.vm import confinement

if TYPE_CHECKING:
    from proa.advice.disk.machine import Machine
    from proa.advice.verdict import Advice
    from proa.engine.advise import Question
    from proa.engine.disk_facts import Wanted
    from proa.engine.measures import Measures

Filters = dict[str, list[str]]
Table = tuple[list[str], list[list[str]]]
Wait = Callable[[float | None], "tuple[int, str] | None"]


class Engine:
    """One engine: its instances, images, networks and volumes below one root directory."""

    version = proa.__version__

    def __init__(self, root: Path | None = None) -> None:
        self.config = config.load(root)
        self.root = self.config.root
        self._core = core = Core(self.config)
        self._execs = Execs(core)
        self._idler = Idler(core, core.vms.pause_idle_seconds)
        self._prober = Prober(core, self._execs)
        core.tied = self._tied
        self.images, self.networks, self.volumes = core.images, core.networks, core.volumes
        self.events, self.isolations = core.events, core.isolations
        core.images.in_use = self._users_of
        self.registries = Registries(core.images, core.events, self.config.registry)
        self.copies = Copies(core, self.registries)
        self._builder = Builder(core, self.registries)

    def recover(self) -> None:
        """Put the record and the host in agreement; before serving."""
        recovery.recover(self._core)
        self._core.places.replenish()
        self._core.later(self._prepare_network)

    def _tied(self, instance: Instance, running: Running) -> None:
        self._idler.watch(instance, running)
        self._prober.watch(instance, running)

    def _prepare_network(self) -> None:
        self.networks.prepare()  # before the first instance waits for it

    def close(self) -> None:
        """Stop; instances live on.  Where none does, the host is left as it was found."""
        self._prober.close()
        self._idler.close()
        for isolation in self.isolations.values():
            isolation.close()
        self._core.places.close()
        staying = any(item.live or item.state == states.SUSPENDED for item in self._core.all())
        if not staying and not migrate.guests(self._core):
            self.networks.destroy()
            self._core.user_networks.rest()
            self._core.places.destroy()
        self._core.state.close()

    # -- instances ----------------------------------------------------------------------------

    def create(self, name: str | None, body: Any) -> Instance:
        """A new instance of Docker's create body.  Raises Invalid, ImageNotFound, Conflict..."""
        why: dict[str, Any] = {}
        if request.leaves_the_form(body):
            from proa.engine import advise  # read by those who ask for it only

            body, why = advise.settled(self._core, body)
        subject = whole.subject(self._core, body)
        id = secrets.token_hex(32)
        spec = request.merge(body, subject.config, id, subject.hardware)
        spec = links.checked(self._core, spec)
        admission.check(spec.limits)
        record = Record(
            id,
            names.check(name) if name else names.generate(),
            subject.image_id,
            spec,
            body,
            time.time_ns(),
            advice=why,
        )
        self._store(record, named=bool(name))
        instance = self._core.get(id)
        self._core.emit(instance, "create")
        return instance

    def _store(self, record: Record, *, named: bool) -> None:
        directory = self._core.directory(record.id)
        directory.mkdir(mode=0o700)
        try:
            for mount in record.spec.mounts:
                if mount.kind == "volume":
                    name = self.volumes.create(mount.source or secrets.token_hex(32)).name
                    if not mount.source:
                        record.volumes.append(name)
            self._add(record, named=named)
        except BaseException:
            directory.rmdir()
            for volume in record.volumes:
                self.volumes.remove(volume, force=True)
            raise

    def _add(self, record: Record, *, named: bool) -> None:
        for _ in range(100):
            try:
                self._core.add(Instance(record))
                return
            except Conflict:
                if named:
                    holder = self.get(record.name)
                    raise Conflict(
                        f'Conflict. The container name "/{record.name}" is already in use by '
                        f'container "{holder.id}". You have to remove (or rename) that container '
                        "to be able to reuse that name."
                    ) from None
                record.name = f"{names.generate()}{secrets.randbelow(1000)}"
        raise Conflict("no free name was found", hint="give one with --name")

    def get(self, reference: str) -> Instance:
        """By id, name or unique beginning of an id.  Raises NotFound or Conflict."""
        return self._core.get(reference)

    def list(self, all: bool = False, filters: Filters | None = None) -> Sequence[Instance]:
        """Instances, newest first; without `all` only those that run."""
        filters = filters or {}
        everyone = all or "status" in filters or "exited" in filters
        return [
            item
            for item in self._core.all()
            if (everyone or item.live) and matches(self._core, item, filters)
        ]

    def start(self, reference: str) -> None:
        """Bring it up.  Raises LaunchError when the command cannot run."""
        instance = self.get(reference)
        if instance.state == states.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        self._execs.forget(instance)
        if instance.state == states.SUSPENDED:
            suspend.resume(self._core, instance)
        else:
            lifecycle.start(self._core, instance)

    def stop(self, reference: str, timeout: float | None = None, signal: str = "") -> None:
        """Ask, wait, kill."""
        lifecycle.stop(self._core, self.get(reference), timeout, signal)

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to the main process."""
        lifecycle.kill(self._core, self.get(reference), signal)

    def restart(self, reference: str, timeout: float | None = None) -> None:
        """Stop when running, then start."""
        instance = self.get(reference)
        if instance.live:
            lifecycle.stop(self._core, instance, timeout)
        lifecycle.start(self._core, instance)
        self._core.emit(instance, "restart")

    def remove(self, reference: str, force: bool = False, volumes: bool = False) -> None:
        """Delete it."""
        instance = self.get(reference)
        lifecycle.remove(self._core, instance, force=force, volumes=volumes)
        self._execs.forget(instance)

    def rename(self, reference: str, name: str) -> None:
        """Give it another name.  Raises Conflict when that is taken."""
        instance = self.get(reference)
        wanted = names.check(name)
        with instance.lock:
            old, instance.record.name = instance.name, wanted
            try:
                self._core.save(instance)
            except Conflict:
                instance.record.name = old
                raise
        self._core.emit(instance, "rename", oldName=f"/{old}")

    def pause(self, reference: str) -> None:
        """Freeze."""
        lifecycle.pause(self._core, self.get(reference))

    def unpause(self, reference: str) -> None:
        """Thaw."""
        lifecycle.resume(self._core, self.get(reference))

    def wait(self, reference: str, condition: str = "not-running") -> tuple[int, str]:
        """Block until the condition holds; exit code and error text."""
        result = self.wait_begin(reference, condition)(None)
        assert result is not None
        return result

    def wait_begin(self, reference: str, condition: str = "not-running") -> Wait:
        """A waiter that watches from now; give it a time-out in seconds or None for ever."""
        instance = self.get(reference)
        runs = instance.runs
        tests: dict[str, Callable[[], bool]] = {
            "not-running": lambda: not instance.live,
            "next-exit": lambda: instance.runs > runs or instance.removed,
            "removed": lambda: instance.removed,
        }
        if condition not in tests:
            raise Invalid(f'invalid condition: "{condition}"')

        def wait(timeout: float | None) -> tuple[int, str] | None:
            with instance.changed:
                if not instance.changed.wait_for(tests[condition], timeout):
                    return None
            return instance.exit_code, ""  # Docker fills the text only when a removal fails

        return wait

    def advise(self, question: Question) -> Advice:
        """Container or vm, and why.  Raises ImageNotFound."""
        from proa.engine import advise  # read by those who ask for it only

        return advise.answer(self._core, question)

    # -- what runs inside -----------------------------------------------------------------------

    def attach(self, reference: str, connection: socket.socket, options: AttachOptions) -> None:
        """Take over a client's socket and join it to the main process."""
        streams.attach(self._core, self.get(reference), connection, options)

    def resize(self, reference: str, rows: int, columns: int) -> None:
        """Set the main terminal's size; before the start it is remembered by nobody."""
        running = self.get(reference).running
        if running is None:
            raise Conflict(
                f"cannot resize a stopped container: unknown: Container {reference} is not running"
            )
        running.agent().resize(1, rows, columns)

    def exec_create(self, reference: str, body: Any) -> str:
        """Prepare an exec; its id."""
        return self._execs.create(self.get(reference), body)

    def exec_start(
        self,
        exec_id: str,
        connection: socket.socket | None = None,
        detach: bool = False,
        tty: bool = False,
    ) -> None:
        """Run it; the socket, when given, is taken over."""
        self._execs.start(exec_id, None if detach else connection)

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """Docker's ExecInspect."""
        return self._execs.inspect(exec_id)

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set an exec's terminal size."""
        self._execs.resize(exec_id, rows, columns)

    def logs(self, reference: str, options: LogOptions) -> Iterator[tuple[int, bytes] | None]:
        """(stream, line) pairs; None is a tick while following."""
        return read_log(self._core, self.get(reference), options)

    def stats(self, reference: str) -> Stats:
        """A reading of now."""
        return stats(self._core, self.get(reference))

    def top(self, reference: str, ps_args: str = "") -> Table:
        """Titles and rows of its processes."""
        return top(self._core, self.get(reference), ps_args)

    def archive_stat(self, reference: str, path: str) -> dict[str, Any]:
        """What a path is."""
        return files.archive_stat(self._core, self.get(reference), path)

    def archive_get(self, reference: str, path: str) -> Iterator[bytes]:
        """A tar of a path."""
        return files.archive_get(self._core, self.get(reference), path)

    def archive_put(
        self,
        reference: str,
        path: str,
        archive: BinaryIO,
        *,
        no_overwrite_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpack a tar inside."""
        files.archive_put(self._core, self.get(reference), path, archive)

    def commit(self, reference: str, wanted: CommitOptions) -> Image:
        """An image of an instance's files."""
        from proa.engine import commit  # not read at an engine's start, as its builds' modules

        return commit.commit(self._core, self.get(reference), wanted)

    def changes(self, reference: str) -> Sequence[tuple[int, str]]:
        """What it changed about its image: Docker's kind (0 C, 1 A, 2 D) and path."""
        from proa.engine import commit

        return commit.changed(self._core, self.get(reference))

    def export(self, reference: str, sink: Sink) -> None:
        """All its files as one tar."""
        from proa.engine import commit

        commit.export(self._core, self.get(reference), sink)

    def update(self, reference: str, body: Any) -> None:
        """Change limits, of a running instance at once."""
        instance = self.get(reference)
        with instance.lock:
            limits = request.limits_update(body, instance.spec.limits)
            admission.check(limits)
            wanted = request.with_limits(instance.spec, limits)
            if instance.running is not None:
                admission.admit(self._core, instance, wanted)
                instance.admitted = False
                instance.running.update(limits)
                instance.record.facts = instance.running.facts
                instance.record.saved = instance.running.saved
            instance.record.spec = wanted
            self._core.save(instance)
        self._core.emit(instance, "update")

    def attach_mount(self, reference: str, mount: Any) -> None:
        """Add a volume or a folder, in Docker's words for a mount, to what may be running."""
        additions.attach(self._core, self.get(reference), request.addition(mount))

    def detach_mount(self, reference: str, what: str) -> None:
        """Take it away, by volume or target."""
        additions.detach(self._core, self.get(reference), what)

    def attach_disk(self, reference: str, disk: Any) -> str:
        """Add a disk to a vm; its name inside."""
        wanted, size_bytes = request.disk(disk)
        return additions.attach_disk(self._core, self.get(reference), wanted, size_bytes)

    def detach_disk(self, reference: str, name: str) -> None:
        """Take it away."""
        additions.detach_disk(self._core, self.get(reference), name)

    def connect(self, network: str, reference: str, settings: Any) -> None:
        """Let an instance join a network."""
        networks.connect(self._core, network, self.get(reference), settings)

    def disconnect(self, network: str, reference: str) -> None:
        """Let it leave one."""
        networks.disconnect(self._core, network, self.get(reference))

    def networks_list(self) -> Sequence[dict[str, Any]]:
        """Docker's NetworkResource of every network."""
        return networks.listing(self._core)

    def network(self, reference: str) -> dict[str, Any]:
        """One network, with who is in it."""
        return networks.found(self._core, reference)

    def network_create(self, body: Any) -> str:
        """A new network of Docker's create body; its id."""
        return networks.create(self._core, body)

    def networks_prune(self, labels: Callable[[dict[str, str]], bool]) -> Sequence[str]:
        """Remove networks no instance uses whose labels pass; their names."""
        return networks.prune(self._core, labels)

    def network_remove(self, reference: str) -> None:
        """Remove a network nobody is in."""
        networks.remove(self._core, reference)

    # -- telling ------------------------------------------------------------------------------

    def inspect(self, reference: str) -> dict[str, Any]:
        """Docker's ContainerJSON and a `Proa` section."""
        return inspect.inspect(self._core, self.get(reference))

    def summary(self, instance: Instance) -> dict[str, Any]:
        """Docker's entry of the container list."""
        return inspect.summary(self._core, instance)

    def trace(self, reference: str) -> Sequence[tuple[str, int]]:
        """Milestones of the last start: name and monotonic nanoseconds."""
        return [(name, moment) for name, moment in self.get(reference).record.trace]

    def ssh(self, reference: str) -> Way:
        """How to log in to a whole machine by ssh."""
        return ssh.way(self._core, self.get(reference))

    def screen(self, reference: str) -> bytes:
        """A machine's screen as PNG."""
        return screen.shot(self.get(reference))

    def check_screen(self, reference: str) -> None:
        """Raises what `join_screen` would for an instance without a screen."""
        screen.check(self.get(reference))

    def join_screen(self, reference: str, client: socket.socket) -> None:
        """Let a client speak VNC with a machine; takes the socket over."""
        screen.join(self.get(reference), client)

    def press(self, reference: str, words: tuple[str, ...], *, text: bool, delay_ms: int) -> None:
        """Type keys and text into a machine."""
        screen.press(self.get(reference), words, text=text, delay_ms=delay_ms)

    def click(self, reference: str, x: int, y: int, button: str) -> None:
        """Click on a pixel of a machine's screen."""
        screen.click(self.get(reference), x, y, button)

    def usage(self, reference: str) -> dict[str, int]:
        """What it costs the host now."""
        running = self.get(reference).held
        if running is None:
            raise Conflict(f"Container {reference} is not running")
        return vars(running.usage())

    def info(self) -> dict[str, Any]:
        """Facts of this engine for `docker info`."""
        counts = [item.state for item in self._core.all()]
        return {
            "containers": len(counts), "running": counts.count(states.RUNNING),
            "paused": counts.count(states.PAUSED),
            "stopped": len(counts) - counts.count(states.RUNNING) - counts.count(states.PAUSED),
            "images": len(self.images.list()), "root": str(self.root), "version": self.version,
            "kernel": os.uname().release, "cpus": os.cpu_count() or 1,
            "memory_bytes": admission.host_memory(), "admission": admission.told(self._core),
            "landlock": confinement.fact(),
        }  # fmt: skip

    @cached_property
    def measures(self) -> Measures:
        """Memory, sizes, cold files, the host: what comparing asks for."""
        from proa.engine.measures import Measures  # not read at an engine's start

        return Measures(self._core)

    # -- disks --------------------------------------------------------------------------------

    def to_disk(self, image: Image, wanted: disks.Wanted) -> Iterator[str | disks.Made]:
        """A disk of an image that boots without Proa: progress, then the disk."""
        return disks.to_disk(self._core, image, wanted)

    def from_disk(
        self, upload: BinaryIO, origin: disk_import.Origin
    ) -> Iterator[str | disk_import.Imported]:
        """An image of a machine's disk: progress, then the image and its ledger."""
        return disk_import.from_disk(self._core, upload, origin)

    def disk_facts(self, which: Wanted) -> Machine:
        """The machine on a disk of the host's, or in an image: its services, by its files."""
        from proa.engine import disk_facts  # whose tables take a while to load

        return disk_facts.machine(self._core, which)

    def build(
        self, request: BuildRequest, report: Report, cancel: threading.Event, login: str = ""
    ) -> Image:
        """An image from a Containerfile.  Raises BuildError, Cancelled."""
        return self._builder.build(request, report, cancel, login)

    # -- disks of vms ---------------------------------------------------------------------------

    def disks(self, reference: str) -> Sequence[dict[str, Any]]:
        """An instance's disks and the files each is made of."""
        return chains.listing(self._core, self.get(reference))

    def disk_table(self, reference: str = "") -> dict[str, Any]:
        """Who holds which bytes, of one instance or of all."""
        return chains.table(self._core, self.get(reference) if reference else None)

    def disk_bytes(self) -> dict[str, int]:
        """By instance's name, the bytes only its disks hold."""
        return chains.own_bytes(self._core)

    def flatten(self, reference: str) -> None:
        """Make its disks one file each."""
        chains.flatten(self._core, self.get(reference))

    def rebase(self, reference: str, base: str, *, moved: bool = False) -> None:
        """Put its disk over another base."""
        chains.rebase(self._core, self.get(reference), base, moved=moved)

    def rollback(self, reference: str, snapshot: str = "", *, force: bool = False) -> None:
        """Put its files back to its image's or a snapshot's."""
        chains.rollback(self._core, self.get(reference), snapshot, force=force)

    # -- packages and bills of materials --------------------------------------------------------

    def from_packages(
        self, sent: Source, order: packages.Order, progress: Progress, cancel: threading.Event
    ) -> Image:
        """An image of a declaration and the files beside it, sent as a tar."""
        return packages.make(self._core, sent, order, progress, cancel)

    def bill(self, name: str, format: str) -> Bill:
        """An image's bill of materials: the attached one, or one made now."""
        return packages.bill_of(self._core, name, format)

    def packages_of(self, name: str) -> tuple[Sequence[dict[str, str]], bool]:
        """Packages in an image as rows, and whether they are of an attached bill."""
        return packages.table_of(self._core, name)

    def attach_bills(self, name: str) -> Sequence[dict[str, Any]]:
        """Attach the bills an image lacks; the new artifacts."""
        return packages.attach_bills(self._core, name)

    def _users_of(self, image_id: str) -> Sequence[str]:
        return [item.name for item in self._core.all() if item.image_id == image_id]
