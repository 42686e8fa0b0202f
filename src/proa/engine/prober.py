"""Runs the health checks of all instances: one thread keeps the time and reads what probes write.

What may block (entering a place, an instance's lock) is done by a few workers of its own, so that
places that do not answer delay nothing but other probes.  An instance that is paused, asleep or
coming up is passed over, and not woken.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import secrets
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from proa.agent import Attach
from proa.engine import health
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.execs import Exec, Execs, resting
from proa.engine.health import Result
from proa.engine.instance import Instance
from proa.errors import ProaError
from proa.isolation.base import Running

WORKERS = 4
OUTPUT_BYTES = 4096  # the first ones are kept, as Docker does
NEVER_ENDED = -1
_PIECE = 1 << 16

log = logging.getLogger(__name__)


@dataclass
class Probe:
    """One run of the command."""

    exec: Exec
    connection: socket.socket
    start_ns: int = field(default_factory=time.time_ns)
    output: bytearray = field(default_factory=bytearray)
    cut: bool = False
    over: bool = False  # whatever it still does is nobody's concern


@dataclass
class Watched:
    """One instance that is checked; `due` is when to look at it, by the monotonic clock."""

    instance: Instance
    running: Running
    due: float = 0.0
    probe: Probe | None = None
    rested: bool = False  # since the last look: time did not pass in there


class Prober:
    """All health checks of this engine; its threads run once there is one."""

    def __init__(self, core: Core, execs: Execs) -> None:
        self._core = core
        self._execs = execs
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Watched]] = []
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._bell, self._ear = socket.socketpair()
        for end in (self._bell, self._ear):
            end.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, self._heard)

    def watch(self, instance: Instance, running: Running) -> None:
        """Check it from now on, if it is to be checked."""
        if not health.enabled(instance.spec.health):
            return
        if not instance.record.health:
            instance.record.health = health.begun()
        with self._lock:
            if self._thread is None:
                self._begin_threads()
        self._post(partial(self._wait, Watched(instance, running)))

    def close(self) -> None:
        """Stop checking; probes that run are ended."""
        self._closing = True
        self._ring()
        if self._thread is not None:
            self._thread.join()
        for _, _, watched in self._heap:
            if watched.probe is not None:
                self._end(watched.running, watched.probe)

    def _begin_threads(self) -> None:
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()
        for number in range(WORKERS):
            threading.Thread(target=self._run_work, name=f"health-{number}", daemon=True).start()

    # -- the thread -------------------------------------------------------------------------------

    def _post(self, work: Callable[[], None]) -> None:
        self._posted.put(work)
        self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # then it rings already
            self._bell.send(b"!")

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            self._ear.recv(_PIECE)

    def _run(self) -> None:
        while not self._closing:
            left = max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
            for key, _ in self._selector.select(left):
                key.data()
            with suppress(queue.Empty):
                while True:
                    self._posted.get_nowait()()
            while self._heap and self._heap[0][0] <= time.monotonic():
                due, _, watched = heapq.heappop(self._heap)
                if watched.due == due:
                    self._look(watched)

    def _plan(self, watched: Watched, seconds: float) -> None:
        """Look at it after so long, and not before."""
        watched.due = time.monotonic() + seconds
        heapq.heappush(self._heap, (watched.due, next(self._order), watched))

    def _wait(self, watched: Watched) -> None:
        """Until the next probe."""
        record, asked = watched.instance.record, watched.instance.spec.health
        began = record.state != states.STARTING
        age_ns = max(0, time.time_ns() - record.started_ns) if began else 0
        status = record.health.get("Status", health.STARTING)
        self._plan(watched, health.interval_seconds(asked, status, age_ns))

    def _look(self, watched: Watched) -> None:
        """It is time for a probe, or a probe is out of time."""
        instance, probe = watched.instance, watched.probe
        if instance.held is not watched.running:
            if probe is not None:
                self._drop(watched, probe)
            return
        rested, watched.rested = watched.rested, resting(instance, watched.running)
        if watched.rested:
            self._wait(watched)
        elif probe is None:
            self._begin(watched)
        elif rested:
            self._plan(watched, health.timeout_seconds(instance.spec.health))
        else:
            seconds = health.timeout_seconds(instance.spec.health)
            said = f"Health check exceeded timeout ({health.duration(seconds)})"
            output = _text(probe)
            self._drop(watched, probe)
            self._work.put(partial(self._end, watched.running, probe))
            self._result(watched, probe, NEVER_ENDED, f"{said}: {output}" if output else said)

    def _begin(self, watched: Watched) -> None:
        instance = watched.instance
        arguments = health.arguments(instance.spec.health)
        process = replace(instance.spec.process, arguments=arguments, terminal=False, stdin=False)
        streams = int(Attach.OUT | Attach.ERR)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        command = Exec(secrets.token_hex(32), instance, process, streams, raw=True)
        watched.probe = probe = Probe(command, ours)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._read, probe))
        self._work.put(partial(self._enter, watched, probe, theirs))

    def _read(self, probe: Probe) -> None:
        """Take what it wrote; all but the beginning goes nowhere."""
        try:
            while piece := probe.connection.recv(_PIECE):
                room = OUTPUT_BYTES - len(probe.output)
                probe.output += piece[:room]
                probe.cut |= len(piece) > room
        except BlockingIOError:
            return
        except OSError:
            log.debug("a probe's stream broke")
        self._hang_up(probe)

    def _hang_up(self, probe: Probe) -> None:
        with suppress(KeyError, ValueError):  # it was before
            self._selector.unregister(probe.connection)
        probe.connection.close()

    def _ended(self, watched: Watched, probe: Probe, code: int) -> None:
        """Its end is told after the last of its output."""
        if watched.probe is probe:
            if probe.connection.fileno() >= 0:
                self._read(probe)
            self._drop(watched, probe)
            self._result(watched, probe, code, _text(probe))

    def _failed(self, watched: Watched, probe: Probe, reason: str) -> None:
        """It did not even begin: a failure, unless nobody could have."""
        if watched.probe is not probe:
            return
        self._drop(watched, probe)
        if resting(watched.instance, watched.running):
            self._wait(watched)
        else:
            self._result(watched, probe, NEVER_ENDED, reason)

    def _drop(self, watched: Watched, probe: Probe) -> None:
        watched.probe, probe.over = None, True
        self._hang_up(probe)
        self._execs.drop(probe.exec)

    def _result(self, watched: Watched, probe: Probe, code: int, output: str) -> None:
        result = Result(probe.start_ns, time.time_ns(), code, output)
        self._work.put(partial(self._tell, watched, result))

    # -- the workers ------------------------------------------------------------------------------

    def _run_work(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except Exception:
                log.exception("unexpected failure of a health check")

    def _enter(self, watched: Watched, probe: Probe, theirs: socket.socket) -> None:
        seconds = health.timeout_seconds(watched.instance.spec.health)
        self._post(partial(self._plan, watched, seconds))
        try:
            with theirs:
                told = partial(self._told, watched, probe)
                self._execs.probe(watched.running, probe.exec, theirs, told)
        except (ProaError, OSError) as error:
            self._post(partial(self._failed, watched, probe, str(error)))
        else:
            if probe.over:  # its time was up before it was in
                self._end(watched.running, probe)

    def _told(self, watched: Watched, probe: Probe, code: int) -> None:
        self._post(partial(self._ended, watched, probe, code))

    def _end(self, running: Running, probe: Probe) -> None:
        with suppress(ProaError):
            if probe.exec.number and not probe.exec.ended.is_set():
                running.agent().signal(probe.exec.number, signal.SIGKILL)

    def _tell(self, watched: Watched, result: Result) -> None:
        instance = watched.instance
        with instance.lock:
            record = instance.record
            if instance.held is not watched.running or not record.health:
                return
            known, age_ns = record.health, result.start_ns - record.started_ns
            record.health = health.after(known, instance.spec.health, result, age_ns)
            status = record.health["Status"]
            if status != known["Status"]:
                with suppress(ProaError):  # a full disk: it is told all the same
                    self._core.save(instance)
                self._core.emit(instance, f"health_status: {status}")
        self._post(partial(self._wait, watched))


def _text(probe: Probe) -> str:
    text = probe.output.decode("utf-8", "replace")
    return f"{text}..." if probe.cut else text
