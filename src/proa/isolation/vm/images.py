"""Templates of images: a clone of the generic template with one image mounted, saved again.

Made in the background after an image's first start, kept on disk by image, loaded a few at a time.
They serve new instances only: what is mounted in them is an empty writable disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa.agent import Exit, Launch
from proa.errors import Corrupt, IsolationError, ProaError, Timeout
from proa.isolation.places import Places
from proa.isolation.vm import child, disks, hull, plans, power, qemu, template
from proa.isolation.vm.guest import Progress
from proa.isolation.vm.layers import Opened
from proa.isolation.vm.template import Template
from proa.spec import Limits

LOADED_MAXIMUM = 4  # each pins about 110 MB
STORED_MAXIMUM = 16
FAILURES_MAXIMUM = 3
REHEARSAL_ID = 2
REHEARSAL_SECONDS = 20.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What an image's template is made of."""

    machine: qemu.Machine
    image_id: str
    image: Path
    generic: Template
    seed: disks.Seed
    skeleton: Path

    def key(self) -> str:
        """Its name on disk."""
        facts = self.image.stat()
        parts = (self.generic.key, self.image_id, facts.st_size, facts.st_mtime_ns,
                 self.seed.size_bytes, plans.rehearsal())  # fmt: skip
        return "image-" + hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class ImageTemplates:
    """Keeps the templates of the images used last; one thread makes and loads them."""

    def __init__(self, root: Path, places: Places, progress: Progress) -> None:
        self._root = root
        self._places = places
        self._progress = progress
        self._loaded: OrderedDict[tuple[qemu.Machine, str], Template] = OrderedDict()
        self._asked: set[tuple[qemu.Machine, str]] = set()
        self._closing = threading.Event()
        self._failures: dict[tuple[qemu.Machine, str], int] = {}
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Wanted | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def get(self, machine: qemu.Machine, image_id: str) -> Template | None:
        """The loaded template of an image, if any."""
        with self._lock:
            found = self._loaded.get((machine, image_id))
            if found is not None:
                self._loaded.move_to_end((machine, image_id))
            return found

    def last(self, image_id: str) -> qemu.Machine | None:
        """The shape whose template of an image was used last, if one is loaded."""
        with self._lock:
            found = (machine for machine, name in reversed(self._loaded) if name == image_id)
            return next(found, None)

    def want(self, wanted: Wanted) -> None:
        """Load, or make, a template in the background; once per image and engine."""
        with self._lock:
            if (wanted.machine, wanted.image_id) in self._asked:
                return
            self._asked.add((wanted.machine, wanted.image_id))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="templates", daemon=True)
                self._thread.start()
        self._work.put(wanted)

    def wait(self, machine: qemu.Machine, image_id: str, seconds: float) -> Template | None:
        """As `get`, after giving one that was asked for some time to appear."""
        deadline = time.monotonic() + seconds
        while self.get(machine, image_id) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.get(machine, image_id)

    def discard(self, machine: qemu.Machine, image_id: str) -> None:
        """Forget a template that proved to be broken, on disk too; it is not made again."""
        with self._lock:
            broken = self._loaded.pop((machine, image_id), None)
        if broken is not None:
            shutil.rmtree(self._root / broken.key, ignore_errors=True)

    def close(self) -> None:
        """Give up what is being made, let go of every loaded template."""
        self._closing.set()
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            loaded, self._loaded = self._loaded, OrderedDict()
        for item in loaded.values():
            item.close()

    def _run(self) -> None:
        while (wanted := self._work.get()) is not None and not self._closing.is_set():
            try:
                self._add(wanted, self._open(wanted))
            except (ProaError, OSError) as error:
                if not self._closing.is_set():
                    log.warning("no template of image '%s': %s", wanted.image_id, error)
                self._failed(wanted)

    def _failed(self, wanted: Wanted) -> None:
        """Let a later start ask again, a few times."""
        key = (wanted.machine, wanted.image_id)
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] < FAILURES_MAXIMUM:
            with self._lock:
                self._asked.discard(key)

    def _add(self, wanted: Wanted, made: Template) -> None:
        with self._lock:
            self._loaded[(wanted.machine, wanted.image_id)] = made
            while len(self._loaded) > LOADED_MAXIMUM:
                oldest, evicted = self._loaded.popitem(last=False)
                self._asked.discard(oldest)
                evicted.close()

    def _open(self, wanted: Wanted) -> Template:
        directory = self._root / wanted.key()
        try:
            return template.load(directory)
        except FileNotFoundError:
            pass
        except Corrupt as error:
            log.warning("the template '%s' is made again: %s", directory.name, error)
        _make(wanted, directory, self._places, self._closing)
        self._progress(f"template of image '{wanted.image_id[:19]}' ready")
        self._prune()
        return template.load(directory)

    def _prune(self) -> None:
        """Remove the stored templates made longest ago, beyond the maximum."""
        stored = sorted(self._root.glob("image-*"), key=lambda path: path.stat().st_mtime)
        for path in stored[:-STORED_MAXIMUM]:
            shutil.rmtree(path, ignore_errors=True)


def _make(wanted: Wanted, directory: Path, places: Places, closing: threading.Event) -> None:
    """Clone with RAM that is written through, mount, read what every program reads, save."""
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    memory = os.memfd_create("template", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, wanted.machine.ram_bytes)
        template.copy_sparse(wanted.generic.memory, memory)
        berth = hull.make(places, wanted.skeleton)
        with hull.watched(berth, places):
            _rehearse(wanted, berth, memory, work, closing)
        berth.end(places)
        disk = work / "disk"
        seed = disks.Seed(disk.stat().st_size, tuple(disks.extents(disk)))
        (work / template.SEED).write_bytes(seed.dump())
        disk.unlink()
        template.store(work, directory.name, memory, wanted.generic.place_pid)
        shutil.rmtree(directory, ignore_errors=True)
        work.rename(directory)
    finally:
        os.close(memory)
        shutil.rmtree(work, ignore_errors=True)


def _rehearse(
    wanted: Wanted, berth: hull.Hull, memory: int, work: Path, closing: threading.Event
) -> None:
    agent = berth.place.agent
    ended = threading.Event()
    codes: list[int] = []

    def on_exit(exit: Exit) -> None:
        if exit.id != REHEARSAL_ID:
            hull.hull_exited(berth.place, exit)
        codes.append(exit.code)
        ended.set()

    agent.on_exit = on_exit
    with ExitStack() as opened:
        tap = (lambda: child.blank_tap(opened)) if wanted.machine.network else None
        parts = power.Parts(
            wanted.image, lambda: Opened.single(wanted.seed.create(work / "disk")),
            (lambda: os.dup(tap())) if tap else None,
        )  # fmt: skip
        writable = Template(wanted.generic.key, memory, wanted.generic.state, 0)
        power.clone(berth, wanted.machine, writable, parts, qemu.Clone(shared=True))
        agent.finish(power.individualise(berth, Limits()))
        agent.exec(REHEARSAL_ID, plans.rehearsal(), Launch.JOIN)
        if not ended.wait(REHEARSAL_SECONDS):
            raise Timeout("the image was not mounted in time")
        if codes != [0]:
            raise IsolationError(f"the image could not be mounted: {berth.last_words()}")
        if closing.wait(template.SETTLE_SECONDS):
            raise IsolationError("the engine ends")
        berth.qmp.drain()
        template.save_state(berth.qmp, work / "state")
        berth.qmp.execute("quit")
