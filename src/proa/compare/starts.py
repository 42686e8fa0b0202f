"""One start of an instance, and when it reached what: all by the host's monotonic clock.

The clock starts before the request to create is written.  What the engine saw (place, init, exec)
comes from its own trace, what the instance did (output, port, reply, end) is seen from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from proa.client.connection import instance_path, target
from proa.client.sdk import Client, Instance
from proa.client.streams import Demultiplexer
from proa.compare import readiness
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.errors import NotFound, ProaError, Timeout

PATIENCE_SECONDS = 60.0
MACHINE_PATIENCE_SECONDS = 300.0
REPLY_SECONDS = 5.0  # after the port is open, at the first start: else it does not speak HTTP
_SLICE_SECONDS = 0.5
QUIET_SECONDS = 2.0  # without output, port or end: it is taken to have none

TRACED = ("place", "init", "exec")
OUTPUT, PORT, REPLY, READY, END = "first-output", "port-open", "first-reply", "ready", "end"
MILESTONES = (*TRACED, OUTPUT, PORT, REPLY, READY, END)
TITLES = {
    "place": "the place exists",
    "init": "init is up",
    "exec": "exec answers: the program is executed",
    OUTPUT: "the first output",
    PORT: "the port is open",
    REPLY: "the first good reply",
    READY: "the readiness command succeeds",
    END: "the program has ended",
}
HOW = {
    **dict.fromkeys(TRACED, "the engine's own trace of the start"),
    OUTPUT: "the first bytes on an attached connection",
    PORT: "a TCP connection to the instance's address is taken",
    REPLY: "HTTP GET / at the instance's address answers with a status below 400",
    READY: "the command given with --ready exits with 0",
    END: "the attached connection is closed by the engine",
}


@dataclass(frozen=True)
class Expected:
    """What a start is waited for: found out by the first start, the same for all after it."""

    output: bool = False
    end: bool = False
    port: int = 0
    reply: bool = False
    ready: str = ""

    @property
    def last(self) -> str:
        """The milestone that says it is there."""
        found = {READY: self.ready, REPLY: self.reply, PORT: self.port, OUTPUT: self.output}
        return next((name for name, holds in found.items() if holds), END if self.end else "exec")


@dataclass(frozen=True)
class Look:
    """What a form's first start is waited for: all that comes but what another form `missed`."""

    port: int = 0
    missed: frozenset[str] = frozenset()


@dataclass
class Started:
    """A running (or ended) instance; `moments` are milliseconds since the request."""

    instance: Instance
    moments: dict[str, float]
    facts: Mapping[str, str] = field(default_factory=dict)  # `Proa` of inspect
    missed: dict[str, str] = field(default_factory=dict)  # milestone → why, or nothing to say

    @property
    def started_by(self) -> str:
        """How it was started (`StartedBy` of inspect); empty for a container."""
        return str(self.facts.get("StartedBy") or "")


class Listener:
    """Hears an instance's output on a connection of its own, and when it came."""

    def __init__(self, client: Client, instance: Instance) -> None:
        self.heard, self.over = threading.Event(), threading.Event()
        self.first_ns = self.end_ns = 0
        self._connection = client.connect()
        query: dict[str, object] = {"stream": True, "stdout": True, "stderr": True}
        url = target(instance_path(instance.id, "/attach"), query)
        self._connection.begin_hijack("POST", url)
        self._connection.hijack()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        cutter, data = Demultiplexer(), self._connection.early
        while True:
            if any(piece for _, piece in cutter.feed(data)) and not self.first_ns:
                self.first_ns = time.monotonic_ns()
                self.heard.set()
            try:
                data = self._connection.socket.recv(65536)
            except OSError:
                break
            if not data:
                break
        self.end_ns = time.monotonic_ns()
        self.heard.set()
        self.over.set()

    def close(self) -> None:
        """Stop listening."""
        self._connection.abandon()
        self._thread.join()
        self._connection.close()


@contextmanager
def started(
    fleet: Fleet, way: Way, command: tuple[str, ...], expected: Expected | Look
) -> Iterator[Started]:
    """Start one, wait for what is expected, and remove it at the end.

    Raises Timeout when what is expected does not come.
    """
    client = fleet.client.another()
    begin = time.monotonic_ns()
    instance = fleet.create(way, command, client)
    listener: Listener | None = None
    try:
        listener = Listener(client, instance)
        instance.start()
        found = Started(instance, {})
        if isinstance(expected, Look):
            _look(found, listener, begin, expected, _patience(way))
        else:
            _wait(found, listener, begin, expected, _patience(way))
        _trace(found, begin)
        yield found
    finally:
        if listener is not None:
            listener.close()
        fleet.remove(instance)
        client.close()


def _patience(way: Way) -> float:
    return PATIENCE_SECONDS if way.image else MACHINE_PATIENCE_SECONDS


def _trace(found: Started, begin: int) -> None:
    for name, moment in found.instance.trace():
        if name in TRACED and name not in found.moments:
            found.moments[name] = (moment - begin) / 1e6
    found.facts = found.instance.inspect().get("Proa") or {}


def _wait(
    found: Started, listener: Listener, begin: int, expected: Expected, patience: float
) -> None:
    if expected.port:
        _reach(found, begin, expected.port, expected.reply, patience)
    if expected.ready:
        environment = {"PROA_TARGET": f"{address(found.instance)}:{expected.port}"}
        moment = readiness.command(expected.ready, patience, environment)
        found.moments[READY] = (moment - begin) / 1e6
    if expected.output:
        _heard(found, listener, begin, patience)
    if expected.end:
        if not listener.over.wait(patience):
            raise Timeout(f"the program did not end in {patience:g} s, as it did before")
        found.moments[END] = (listener.end_ns - begin) / 1e6


def _heard(found: Started, listener: Listener, begin: int, patience: float) -> None:
    if not listener.heard.wait(patience) or not listener.first_ns:
        raise Timeout(f"there was no output in {patience:g} s, as there was before")
    found.moments[OUTPUT] = (listener.first_ns - begin) / 1e6


def _reach(found: Started, begin: int, port: int, reply: bool, patience: float) -> None:
    where = address(found.instance)
    found.moments[PORT] = (readiness.port_open(where, port, patience) - begin) / 1e6
    if reply:
        found.moments[REPLY] = (readiness.first_reply(where, port, patience) - begin) / 1e6


def _look(found: Started, listener: Listener, begin: int, look: Look, patience: float) -> None:
    """Whatever comes; what does not is in `missed`."""
    if look.port and PORT not in look.missed:
        try:
            _opened(found, listener, begin, look.port, patience)
            if REPLY not in look.missed:
                moment = readiness.first_reply(address(found.instance), look.port, REPLY_SECONDS)
                found.moments[REPLY] = (moment - begin) / 1e6
        except ProaError as error:
            found.missed[REPLY if PORT in found.moments else PORT] = error.message
    quiet = time.monotonic() + QUIET_SECONDS
    if OUTPUT not in look.missed:
        listener.heard.wait(QUIET_SECONDS)
    if END not in look.missed:
        listener.over.wait(max(quiet - time.monotonic(), 0))
    if listener.first_ns:
        found.moments[OUTPUT] = (listener.first_ns - begin) / 1e6
    elif OUTPUT not in look.missed:
        found.missed[OUTPUT] = f"it wrote nothing in {QUIET_SECONDS:g} s"
    if listener.over.is_set():
        found.moments[END] = (listener.end_ns - begin) / 1e6
    else:
        found.missed[END] = ""


def _opened(found: Started, listener: Listener, begin: int, port: int, patience: float) -> None:
    """Wait for the port as long as the program lives.  Raises Timeout."""
    end = time.monotonic() + patience
    while True:
        try:
            moment = readiness.port_open(address(found.instance), port, _SLICE_SECONDS)
        except Timeout:
            if listener.over.is_set() or time.monotonic() > end:
                raise
        else:
            found.moments[PORT] = (moment - begin) / 1e6
            return


def address(instance: Instance) -> str:
    """Where it is reached.  Raises NotFound when it is in no network."""
    for network in instance.inspect()["NetworkSettings"]["Networks"].values():
        if network.get("IPAddress"):
            return str(network["IPAddress"])
    raise NotFound("the instance has no address, so its port cannot be asked")


def expectation(found: list[Started], port: int, ready: str) -> Expected:
    """What all further starts are waited for: what was seen of every first one."""

    def everywhere(name: str) -> bool:
        return all(name in one.moments for one in found)

    return Expected(
        everywhere(OUTPUT),
        everywhere(END),
        port if everywhere(PORT) else 0,
        everywhere(REPLY),
        ready,
    )
