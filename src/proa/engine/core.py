"""What every part of the engine shares: services, isolations, and the table of instances."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from proa.agent import Dispatcher, Exit
from proa.engine.config import Config
from proa.engine.events import Events
from proa.engine.instance import Instance, load_record
from proa.engine.state import State
from proa.errors import Conflict, NotFound, ProaError, Unsupported
from proa.image.store import Images
from proa.isolation.base import Isolation, Running
from proa.isolation.container import Containers
from proa.isolation.places import Places, Site
from proa.isolation.vm import Vms
from proa.network.service import Networks
from proa.network.user import UserNetworks
from proa.volume.service import Volumes

WORKERS = 4

log = logging.getLogger(__name__)


class Core:
    """The engine's shared state.  Holds no policy: see lifecycle, execs, files."""

    def __init__(self, config: Config) -> None:
        self.config = config
        for directory in (config.root, config.run, config.root / "instances"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state = State(config.root / "state.db")
        self.events = Events()
        self.images = Images(config.root / "images")
        self.networks = Networks(config.root / "network", config.tag)
        self.user_networks = UserNetworks(config.root / "networks", config.tag)
        self.volumes = Volumes(config.root / "volumes")
        self.dispatcher = Dispatcher()
        site = Site(config.root / "places", config.run, f"proa-{config.tag}", config.native)
        self.places = Places(site, self.dispatcher, config.spare_places)
        self.vms = Vms(config.root / "vm", self.places, config.vm, self._progress)
        self.isolations: dict[str, Isolation] = {
            isolation.name: isolation for isolation in (Containers(self.places), self.vms)
        }
        self.exec_ended: Callable[[str, Exit], None] = lambda instance_id, exit: None
        self.tied: Callable[[Instance, Running], None] = lambda instance, running: None
        self._lock = threading.Lock()
        self._instances = {
            record.id: Instance(record) for record in map(load_record, self.state.records())
        }
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for number in range(WORKERS):
            threading.Thread(target=self._run_work, name=f"worker-{number}", daemon=True).start()

    def _progress(self, message: str) -> None:
        """What is made once (a guest kernel, a template): told to whoever waits for it."""
        log.info("%s", message)
        self.events.emit("daemon", "progress", "proa", {"message": message})

    # -- instances ----------------------------------------------------------------------------

    def add(self, instance: Instance) -> None:
        """Store a new instance.  Raises Conflict when its name is taken."""
        record = instance.record
        self.state.insert(record.id, record.name, record.dump())
        with self._lock:
            self._instances[record.id] = instance

    def save(self, instance: Instance) -> None:
        """Write an instance's record."""
        self.state.update(instance.id, instance.name, instance.record.dump())

    def forget(self, instance: Instance) -> None:
        """Drop an instance's record."""
        self.state.delete(instance.id)
        with self._lock:
            self._instances.pop(instance.id, None)

    def get(self, reference: str) -> Instance:
        """An instance by id, name or unique beginning of its id.  Raises NotFound or Conflict."""
        reference = reference.removeprefix("/")
        with self._lock:
            if reference in self._instances:
                return self._instances[reference]
            everyone = list(self._instances.values())
        for instance in everyone:
            if instance.name == reference:
                return instance
        found = [item for item in everyone if reference and item.id.startswith(reference)]
        if len(found) > 1:
            raise Conflict(f"'{reference}' is the beginning of several ids", hint="give more of it")
        if not found:
            raise NotFound(f"No such container: {reference}")
        return found[0]

    def all(self) -> list[Instance]:
        """Every instance, newest first."""
        with self._lock:
            everyone = list(self._instances.values())
        return sorted(everyone, key=lambda item: item.created, reverse=True)

    def isolation(self, name: str) -> Isolation:
        """An isolation by name.  Raises Unsupported."""
        if name not in self.isolations:
            known = " or ".join(sorted(self.isolations))
            raise Unsupported(f"unknown isolation '{name}'", hint=f"use {known}")
        return self.isolations[name]

    def directory(self, id: str) -> Path:
        """Where an instance keeps its writable layer and its log."""
        return self.config.root / "instances" / id

    def emit(self, instance: Instance, action: str, **attributes: str) -> None:
        """An event about an instance, with Docker's attributes."""
        spec = instance.spec
        known = {
            **spec.labels,
            "image": spec.image,
            "name": instance.name,
            "isolation": spec.isolation,
        }
        self.events.emit("container", action, instance.id, {**known, **attributes})

    # -- work that must not block the dispatcher ------------------------------------------------

    def later(self, work: Callable[[], None]) -> None:
        """Do something in a worker thread."""
        self._work.put(work)

    def _run_work(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except ProaError as error:
                log.error("%s", error)
            except Exception:
                log.exception("unexpected failure in background work")
