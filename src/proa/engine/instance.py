"""One instance: its record, and what the engine holds of it while it runs."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from proa.engine.standby import Standby
from proa.isolation.base import Running
from proa.spec import (
    Endpoint,
    Hardware,
    Health,
    Limits,
    Mount,
    Port,
    Process,
    Security,
    Spec,
    Throttle,
)

CREATED, STARTING, RUNNING, PAUSED, EXITED, REMOVING, SUSPENDED = (
    "created", "starting", "running", "paused", "exited", "removing", "suspended"
)  # fmt: skip
PINNED = "image.erofs"  # in an instance's directory: the disk of its image, if it needs that one
LIVE = (STARTING, RUNNING, PAUSED)


@dataclass(frozen=True)
class ExtraDisk:
    """A disk added to a vm by its owner: `name` inside; `own` when it was made for it."""

    path: str
    format: str = "raw"
    readonly: bool = False
    name: str = ""
    own: bool = False


@dataclass
class Record:
    """What is stored.  `body` is the create request as given, for inspect; times in ns, 0 never."""

    id: str
    name: str
    image_id: str
    spec: Spec
    body: dict[str, Any]
    created_ns: int
    state: str = CREATED
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    place: str = ""
    saved: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    trace: list[tuple[str, int]] = field(default_factory=list)
    removing: bool = False
    foreign: dict[str, Any] = field(default_factory=dict)  # a link of another engine
    disks: list[ExtraDisk] = field(default_factory=list)
    interfaces: dict[str, str] = field(default_factory=dict)  # of networks it is in now
    dozing: bool = False  # stopped for want of work: see engine/idle.py
    health: dict[str, Any] = field(default_factory=dict)  # replaced whole: see engine/prober.py
    advice: dict[str, Any] = field(default_factory=dict)  # why it got its form, if that was left

    def dump(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def load_record(data: dict[str, Any]) -> Record:
    """The inverse of `Record.dump`."""
    disks = [ExtraDisk(**item) for item in data.get("disks", ())]
    return Record(**{**data, "spec": load_spec(data["spec"]), "disks": disks})


def load_spec(data: dict[str, Any]) -> Spec:
    """A Spec from JSON data."""
    process = Process(**{**data["process"], **_tuples(data["process"])})
    security = Security(**{**data["security"], **_tuples(data["security"])})
    hardware = data.get("hardware", {})  # engines before it had none
    health = data.get("health", {})  # nor that
    changed = {
        "process": process,
        "security": security,
        "hardware": Hardware(**{**hardware, **_tuples(hardware)}),
        "health": Health(**{**health, **_tuples(health)}),
        "limits": _limits(data["limits"]),
        "endpoints": tuple(Endpoint(**{**e, **_tuples(e)}) for e in data.get("endpoints", ())),
        "mounts": tuple(Mount(**item) for item in data["mounts"]),
        "ports": tuple(Port(**item) for item in data["ports"]),
        "sysctls": tuple(tuple(item) for item in data["sysctls"]),
        "rlimits": tuple(tuple(item) for item in data["rlimits"]),
        "extra_hosts": tuple(tuple(item) for item in data["extra_hosts"]),
        "nameservers": tuple(data["nameservers"]),
    }
    return Spec(**{**data, **changed})


def _limits(data: dict[str, Any]) -> Limits:
    throttles = tuple(Throttle(**item) for item in data.get("throttles", ()))
    return Limits(**{**data, "throttles": throttles})


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) for key, value in data.items() if isinstance(value, list)}


class Instance:
    """A record with its lock and, while it lives, its running place.

    `lock` serialises operations; `changed` is notified at every change of state.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.lock = threading.RLock()
        self.changed = threading.Condition()
        self.held: Running | None = None  # the place, be it stopped for want of work or not
        self.standby = Standby()
        self.inputs: set[int] = set()  # inodes of sockets whose clients may type
        self.waiting: list[Attachment] = []
        self.runs = 0  # how often it has ended, for `wait` for the next exit
        self.removed = False
        self.hosts = ""  # what its /etc/hosts was told last
        self.admitted = False  # counted in by `admission`, while it starts
        self.next_process = 2
        self.exec_ids: list[str] = []

    id = property(lambda self: self.record.id)
    name = property(lambda self: self.record.name)
    spec = property(lambda self: self.record.spec)
    state = property(lambda self: self.record.state)
    image_id = property(lambda self: self.record.image_id)
    image_name = property(lambda self: self.record.spec.image)
    isolation = property(lambda self: self.record.spec.isolation)
    created = property(lambda self: self.record.created_ns)
    started_ns = property(lambda self: self.record.started_ns)
    finished_ns = property(lambda self: self.record.finished_ns)
    exit_code = property(lambda self: self.record.exit_code)
    oom_killed = property(lambda self: self.record.oom_killed)
    error = property(lambda self: self.record.error)
    tty = property(lambda self: self.record.spec.process.terminal)

    @property
    def running(self) -> Running | None:
        """The place, if there is one.  Asking for it is needing it: it wakes, and stays awake."""
        if self.held is not None:
            self.standby.needed(self.held)
        return self.held

    @running.setter
    def running(self, place: Running | None) -> None:
        self.held = place
        if place is None:
            self.record.dozing = False
        self.standby.begin()
        self.inputs.clear()

    @property
    def live(self) -> bool:
        """Has, or is about to have, a place."""
        return self.record.state in LIVE

    def mark(self, milestone: str, at_ns: int = 0) -> None:
        """Remember when a milestone of this start was reached (monotonic ns; 0: now)."""
        self.record.trace.append((milestone, at_ns or time.monotonic_ns()))

    def notify(self) -> None:
        """Wake whoever waits for a change."""
        with self.changed:
            self.changed.notify_all()


@dataclass
class Attachment:
    """A client's stream waiting for the start; owns its descriptor.  `flags` are ATTACH's."""

    descriptor: int
    flags: int
    detach_keys: bytes = b""
