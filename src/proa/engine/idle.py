"""Pausing the idle: instances in which nothing happens are stopped, and go on when called.

Idle is an instance whose limit has passed without a process but its main one, without attached
input, a packet sent, or noticeable use of the processor.  While it is stopped, a packet socket
with a filter listens at the host's end of its interface: the packet that wakes it waits in the
interface's queue.  Whoever asks for the running place wakes it as well (`Instance.running`).
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proa.agent import MAIN
from proa.engine import instance as states
from proa.engine import links
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import ProaError
from proa.host import packets, pseudo
from proa.isolation.base import Running

BUSY_SHARE = 0.02  # of a processor; an idle guest takes a quarter of that, emulated
TICK_SECONDS = (0.1, 5.0)
RUNNING = 2  # a process's phase, as monitors tell

log = logging.getLogger(__name__)


@dataclass
class Watched:
    """One instance that may doze; `limit` in seconds."""

    instance: Instance
    running: Running
    limit: float
    since: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.monotonic)
    cpu_ns: int = 0
    sent: int = -1
    asleep: bool = False
    listeners: list[socket.socket] = field(default_factory=list)


class Idler:
    """Watches instances that have a limit; one thread, which runs while there are any."""

    def __init__(self, core: Core, default_seconds: int) -> None:
        self._core = core
        self._default = default_seconds  # of vms: a container has only what it asks for
        self._watched: dict[str, Watched] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def limit(self, instance: Instance) -> int:
        """Seconds after which an idle instance is stopped; 0 never."""
        asked: int = instance.spec.hardware.pause_idle_seconds
        if asked >= 0:
            return asked
        shares_kernel = self._core.isolation(instance.isolation).features.shares_kernel
        return 0 if shares_kernel else self._default

    def watch(self, instance: Instance, running: Running) -> None:
        """From now on; one that an engine left stopped when it was killed goes on first."""
        limit = self.limit(instance)
        if instance.record.dozing and instance.state == states.RUNNING:
            with suppress(ProaError):
                running.resume()
        instance.record.dozing = False
        if not limit:
            return
        with self._lock:
            self._watched[instance.id] = Watched(instance, running, limit)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="idle", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wake everybody: without an engine nobody would."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        for watched in self._watched.values():
            if watched.instance.standby.dozing:
                watched.instance.standby.needed(watched.running)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                everyone = list(self._watched.values())
                if not everyone:
                    self._thread = None
                    return
            shortest = min(watched.limit for watched in everyone) / 4
            called = self._selector.select(min(max(shortest, TICK_SECONDS[0]), TICK_SECONDS[1]))
            for key, _ in called:
                self._called(key.data)
            for watched in everyone:
                try:
                    self._look(watched)
                except (ProaError, OSError) as error:
                    log.warning("instance '%s': %s", watched.instance.name, error)
                    watched.since = time.monotonic()

    def _called(self, watched: Watched) -> None:
        """A packet came: in another thread, since a machine may be slow to go on."""
        self._stop_listening(watched)
        self._core.later(lambda: self._wake(watched))

    def _wake(self, watched: Watched) -> None:
        watched.instance.standby.needed(watched.running)

    def _look(self, watched: Watched) -> None:
        instance, now = watched.instance, time.monotonic()
        if instance.held is not watched.running:
            self._forget(watched)
            return
        if instance.standby.dozing:
            return
        if watched.asleep:
            self._risen(watched)
            watched.since = now
        if self._stirs(watched, now):
            watched.since = now
        elif now - watched.since >= watched.limit:
            self._doze(watched)

    def _risen(self, watched: Watched) -> None:
        self._stop_listening(watched)
        watched.asleep = watched.instance.record.dozing = False
        self._core.save(watched.instance)
        self._core.emit(watched.instance, "wake")

    def _forget(self, watched: Watched) -> None:
        self._stop_listening(watched)
        with self._lock:
            if self._watched.get(watched.instance.id) is watched:
                del self._watched[watched.instance.id]

    def _stirs(self, watched: Watched, now: float) -> bool:
        """Whether it did anything since the last look."""
        spent, sent = watched.running.usage().cpu_ns, self._sent(watched)
        share = (spent - watched.cpu_ns) / 1e9 / max(now - watched.at, 1e-3)
        still = sent == watched.sent and share <= BUSY_SHARE
        watched.cpu_ns, watched.sent, watched.at = spent, sent, now
        return not still or has_input(watched.instance, watched.running)

    def _sent(self, watched: Watched) -> int:
        core, instance = self._core, watched.instance
        found = (
            links.service(core, network).counters(instance.id)
            for network in links.present(core, instance)
        )
        return sum(counters[3] for counters in found if counters is not None)

    def _doze(self, watched: Watched) -> None:
        instance, running = watched.instance, watched.running
        processes = running.agent().state()
        if any(item.id > MAIN and item.phase == RUNNING for item in processes):
            watched.since = time.monotonic()
            return
        with instance.lock:
            if instance.state != states.RUNNING or instance.held is not running:
                return
            self._listen(watched)
            if not instance.standby.doze(running, watched.limit):
                self._stop_listening(watched)
                return
            watched.asleep = instance.record.dozing = True
            self._core.save(instance)
        self._core.emit(instance, "doze")
        if self._sent(watched) != watched.sent:  # it spoke at the last moment: an answer may come
            self._wake(watched)

    def _listen(self, watched: Watched) -> None:
        for link in links.present(self._core, watched.instance).values():
            address = link.address.partition("/")[0]
            listener = packets.listen(link.host_name, link.mac, address)
            watched.listeners.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, watched)

    def _stop_listening(self, watched: Watched) -> None:
        listeners, watched.listeners = watched.listeners, []
        for listener in listeners:
            self._selector.unregister(listener)
            listener.close()


def has_input(instance: Instance, running: Running) -> bool:
    """Whether a client that may type is still attached: its socket is open in the monitor."""
    if not instance.inputs:
        return False
    monitor = pseudo.parent(int(running.saved["pid"]))
    with suppress(OSError):
        opened = Path(f"/proc/{monitor}/fd")
        held = {os.readlink(opened / name) for name in os.listdir(opened)}
        instance.inputs &= {inode for inode in instance.inputs if f"socket:[{inode}]" in held}
    return bool(instance.inputs)
