"""Clones made ahead: QEMU runs, a template is loaded, the guest is paused or has rehearsed.

A spare has a disk and a tap of its own, under provisional names; starting an instance renames them.
It ends by itself when its engine goes, since its monitor never launched anything.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proa.agent import Exit
from proa.errors import HostError, LaunchError, ProaError
from proa.host import netlink
from proa.isolation.places import Places
from proa.isolation.vm import hull, plans, power, qemu
from proa.isolation.vm.layers import Opened
from proa.isolation.vm.template import Template
from proa.resources import Launch
from proa.spec import Limits

WARM_UP_ID = 0x3000_0000  # out of the way of the engine's own numbers
WARM_UP_SECONDS = 5.0
PAUSE_SECONDS = 0.25  # left to the instance just started before a spare is made

log = logging.getLogger(__name__)


@dataclass
class Spare:
    """A clone that waits; `tap` is its interface's provisional name, empty without a network."""

    berth: hull.Hull
    template: Template
    disk: Path
    tap: str

    def alive(self) -> bool:
        """Whether its monitor is still there."""
        return not self.berth.place.agent.lost

    def claim(self, launch: Launch) -> None:
        """Give disk and tap to an instance and let the guest run."""
        self.disk.rename(launch.directory / "disk")
        for link in launch.links:
            netlink.link_rename(self.tap, link.host_name)
            netlink.link_up(link.host_name, bridge=link.bridge)
        self.berth.qmp.pipeline(("cont", {}))


@dataclass(frozen=True)
class Order:
    """A kind of spare: of which template, with which image."""

    machine: qemu.Machine
    template: Template
    image: Path
    skeleton: Path


class Spares:
    """Keeps `count` spares of the kind ordered last; one thread makes them."""

    def __init__(self, places: Places, count: int, *, warm: bool = False) -> None:
        self._places = places
        self._count, self._warm = count, warm
        self._ready: list[Spare] = []
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, template: Template) -> Spare | None:
        """A spare of this template, if one waits."""
        with self._lock:
            found = next((s for s in self._ready if s.template is template and s.alive()), None)
            if found is not None:
                self._ready.remove(found)
            return found

    def order(self, order: Order) -> None:
        """Have spares of this kind made, in the stead of others."""
        if self._count == 0:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vm-spares", daemon=True)
                self._thread.start()
        self._orders.put(order)

    def drop(self) -> None:
        """End those that wait now; the next order has new ones made."""
        with self._lock:
            ready, self._ready = self._ready, []
        for spare in ready:
            spare.berth.end(self._places)

    def close(self) -> None:
        """End the spares, and wait for the one being made."""
        with self._lock:
            ready, self._ready, self._count = self._ready, [], 0
        self._orders.put(None)
        if self._thread is not None:
            self._thread.join()
        for spare in ready:
            spare.berth.end(self._places)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            time.sleep(PAUSE_SECONDS)
            order = self._latest(order)
            if order is None:
                return
            self._drop_others(order.template)
            try:
                while self._count > len(self._ready):
                    self._add(make(self._places, order, warm=self._warm))
            except (ProaError, OSError) as error:
                log.warning("no spare vm: %s", error)

    def _latest(self, order: Order | None) -> Order | None:
        with contextlib.suppress(queue.Empty):
            while order is not None:
                order = self._orders.get_nowait()
        return order

    def _add(self, spare: Spare) -> None:
        with self._lock:
            if self._count:
                self._ready.append(spare)
                return
        spare.berth.end(self._places)

    def _drop_others(self, template: Template) -> None:
        with self._lock:
            kept = [s for s in self._ready if s.template is template and s.alive()]
            dropped = [s for s in self._ready if s not in kept]
            self._ready = kept
        for spare in dropped:
            spare.berth.end(self._places)


def make(places: Places, order: Order, *, warm: bool = False) -> Spare:
    """A paused clone of a template with an image's disk, rehearsed when it shall be warm."""
    berth = hull.make(places, order.skeleton)
    try:
        disk = berth.place.directory / "disk"
        name = f"pvs{secrets.token_hex(4)}" if order.machine.network else ""
        if order.template.seed is None:
            raise HostError("a generic template has no spares")
        parts = power.Parts(order.image, _creator(order.template, disk), _tap(name))
        started = power.clone(
            berth, order.machine, order.template, parts, qemu.Clone(paused=not warm)
        )
        berth.place.agent.finish(started)
        berth.qmp.drain()
        if warm:
            _warm_up(berth, order.machine.network)
        return Spare(berth, order.template, disk, name)
    except BaseException:
        berth.end(places)
        raise


def _warm_up(berth: hull.Hull, network: bool) -> None:
    """Let the guest run, do what a start does, pause it."""
    agent = berth.place.agent
    agent.finish(power.individualise(berth, Limits()))
    rehearsed = plans.warm_up(time.time_ns(), network=network)
    for number, (flags, steps) in enumerate(rehearsed, WARM_UP_ID):
        ended = threading.Event()
        agent.on_exit = partial(_ended, berth, ended)
        with contextlib.suppress(LaunchError):
            agent.exec(number, steps, flags)
            ended.wait(WARM_UP_SECONDS)
    agent.on_exit = lambda exit: hull.hull_exited(berth.place, exit)
    berth.qmp.execute("stop")


def _ended(berth: hull.Hull, ended: threading.Event, exit: Exit) -> None:
    hull.hull_exited(berth.place, exit)
    ended.set()


def _creator(template: Template, disk: Path) -> Callable[[], Opened]:
    assert template.seed is not None
    seed = template.seed
    return lambda: Opened.single(seed.create(disk))


def _tap(name: str) -> Callable[[], int] | None:
    return (lambda: netlink.tap_open(name, "")) if name else None
