"""Places on the host: a monitor, new namespaces, a range of ids and a cgroup, ready to be launched.

A container is launched in one; so is a vm's QEMU.  A few *spare* places are kept ready, since
what makes a place slow (the first move into a v1 cgroup waits for an RCU grace period of about
11 ms) does not depend on what will run there.  A spare ends by itself when its engine goes.

On disk a place is the directory `places/<name>`, its socket in the run directory, and a cgroup of
the same name.  The name starts with the hexadecimal number of its id range.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa import plan
from proa.agent import MAIN, Agent, Dispatcher
from proa.agent import Launch as Flag
from proa.errors import HostError, IsolationError, NoSpace, ProaError
from proa.host import cgroup, files, mounts
from proa.isolation.surroundings import LINKS, READONLY, SYSCTLS
from proa.plan import Step

ID_BASE = 0x4000_0000
ID_COUNT = 65536
ID_RANGES = 16384
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
NAMESPACES = ("user", "pid", "mount", "net", "ipc", "uts", "cgroup")
MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
    "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
STAGE = "/tmp"  # any directory that mapped ids can reach; hidden by a tmpfs at once

log = logging.getLogger(__name__)


@dataclass
class Place:
    """One place; `pid` is its waiting (later: main) process as the host sees it."""

    name: str
    base: int
    directory: Path
    cgroup: cgroup.Cgroup
    agent: Agent
    pid: int = 0

    def user_namespace(self) -> int:
        """The place's user namespace, for id-mapped mounts; the caller closes it."""
        try:
            return os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise IsolationError(f"the place '{self.name}' ended: {error.strerror}") from error


def place_plan(
    cgroups: int, base: int, sysctls: tuple[tuple[str, str], ...] = ()
) -> tuple[Step, ...]:
    """Steps that prepare a place: everything but its root file system.

    The first `cgroups` descriptors sent are `cgroup.procs` files, then one per entry of DEVICES.
    A new proc can be mounted in a user namespace only while the old one is visible
    (mount_too_revealing in fs/namespace.c), so this comes before the host's mounts are dropped.
    """
    dev, quiet = f"{STAGE}/dev", "nosuid,noexec,nodev"
    steps: list[Step] = [plan.Namespaces(NAMESPACES), plan.IdMap(base, ID_COUNT)]
    steps += [plan.Cgroup(f"fd:{n}") for n in range(cgroups)]
    steps.append(plan.MountFs("tmpfs", "stage", STAGE, "nosuid,nodev", "mode=0755,size=65536k"))
    steps += [plan.Directory(f"{STAGE}/{name}") for name in ("proc", "sys", "dev", "root")]
    steps.append(plan.MountFs("proc", "proc", f"{STAGE}/proc", quiet))
    steps.append(plan.MountFs("sysfs", "sysfs", f"{STAGE}/sys", f"{quiet},ro"))
    steps.append(plan.MountFs("cgroup2", "cgroup", f"{STAGE}/sys/fs/cgroup", f"{quiet},ro"))
    steps.append(plan.MountFs("tmpfs", "tmpfs", dev, "nosuid,noexec", "mode=0755,size=65536k"))
    steps += [plan.Attach(f"fd:{cgroups + n}", f"{dev}/{name}") for n, name in enumerate(DEVICES)]
    steps += [plan.Directory(f"{dev}/{name}") for name in ("pts", "shm", "mqueue")]
    steps.append(
        plan.MountFs(
            "devpts",
            "devpts",
            f"{dev}/pts",
            "nosuid,noexec",
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        )
    )
    steps.append(plan.MountFs("tmpfs", "shm", f"{dev}/shm", quiet, "mode=1777,size=65536k"))
    steps.append(plan.MountFs("mqueue", "mqueue", f"{dev}/mqueue", quiet))
    steps += [plan.Symlink(target, f"{dev}/{name}") for target, name in LINKS]
    steps.append(plan.Root(STAGE))
    steps.append(plan.Interface("lo", "lo", "", "", 0))
    steps += [plan.Sysctl(name, value) for name, value in (*SYSCTLS, *sysctls)]
    steps += [plan.Mask(path) for path in MASKED]
    steps += [plan.ReadOnly(path) for path in READONLY]
    return tuple(steps)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Site:
    """Where places are made: their directories, their sockets, the cgroup all of them are in, and
    the static program."""

    directory: Path
    run: Path
    cgroup: str
    native: Path


class Places:
    """Makes places and keeps `spares` of them ready."""

    def __init__(self, site: Site, dispatcher: Dispatcher, spares: int = 2) -> None:
        site.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory, self._run, self._parent = site.directory, site.run, site.cgroup
        self.native, self.dispatcher = site.native, dispatcher
        self._spares: list[Place] = []
        self._wanted = spares
        self._lock = threading.Lock()
        self._making = threading.Lock()  # held while spares are made
        self._next = 0
        self._refill: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._reap: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._empty: queue.SimpleQueue[cgroup.Cgroup | None] = queue.SimpleQueue()
        self._janitor = threading.Thread(target=self._remove_cgroups, name="janitor", daemon=True)
        self._janitor.start()
        threading.Thread(target=self._keep_spares, name="spares", daemon=True).start()
        threading.Thread(target=self._reap_monitors, name="reaper", daemon=True).start()

    # -- taking and making --------------------------------------------------------------------

    def take(self) -> Place:
        """A ready place: a spare when there is one, else made now."""
        while True:
            with self._lock:
                place = self._spares.pop() if self._spares else None
            if place is None:
                return self.make()
            if not place.agent.lost:
                return place
            self.release(place.name)

    def replenish(self) -> None:
        """Make spares again in the background; called when a start is done, not while it runs."""
        self._refill.put(True)

    def make(
        self,
        sysctls: tuple[tuple[str, str], ...] = (),
        wires: tuple[tuple[str, int], ...] = (),
        process: int = MAIN,
    ) -> Place:
        """A new place.  Raises IsolationError or HostError; leaves nothing behind then.

        `wires` are further options of the monitor with a descriptor each: `--channel`, `--keep`.
        `process` is what waits in the place: the main process, or the hull around it.
        """
        name, base = self._name()
        directory = self._directory / name
        directory.mkdir(mode=0o700)
        try:
            group = cgroup.create(f"{self._parent}/{name}")
            place = Place(name, base, directory, group, self._spawn(name, directory, wires))
            self._prepare(place, sysctls, process)
        except BaseException:
            self.release(name)
            raise
        return place

    def _prepare(self, place: Place, sysctls: tuple[tuple[str, str], ...], process: int) -> None:
        procs = place.cgroup.procs_descriptors()
        devices: list[int] = []
        try:
            devices = [mounts.open_tree(Path("/dev", name)) for name in DEVICES]
            steps = place_plan(len(procs), place.base, sysctls)
            sent = [*procs, *devices]
            place.pid = place.agent.place(steps, sent, int(Flag.LOCAL), process)
        finally:
            for descriptor in (*procs, *devices):
                os.close(descriptor)

    def _name(self) -> tuple[str, int]:
        used = {name.partition("-")[0] for name in os.listdir(self._directory)}
        with self._lock:
            for _ in range(ID_RANGES):
                number, self._next = self._next, (self._next + 1) % ID_RANGES
                if f"{number:04x}" not in used:
                    return f"{number:04x}-{secrets.token_hex(4)}", ID_BASE + number * ID_COUNT
        raise NoSpace(f"all {ID_RANGES} id ranges are in use", hint="remove some instances")

    def socket_path(self, name: str) -> Path:
        """Where the monitor of a place listens."""
        return self._run / f"{name}.sock"

    def _spawn(self, name: str, directory: Path, wires: tuple[tuple[str, int], ...]) -> Agent:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener, _opened(directory) as directory_fd:
            path = self.socket_path(name)
            listener.bind(os.fspath(path))
            listener.listen(16)
            agent = self.connect(name)
            wired = (("--listen", listener.fileno()), ("--directory", directory_fd), *wires)
            argv = [os.fspath(self.native), "monitor"]
            argv += [word for option, number in wired for word in (option, str(number))]
            try:
                monitor = subprocess.Popen(
                    argv,
                    pass_fds=[number for _, number in wired],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                )
            except OSError as error:
                raise HostError(
                    f"cannot run '{argv[0]}': {error.strerror}", hint="build it with make native"
                ) from error
        self._reap.put(monitor)
        return agent

    def connect(self, name: str) -> Agent:
        """A connection to the monitor of a place.  Raises IsolationError when it is gone."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.fspath(self.socket_path(name)))
        except OSError as error:
            connection.close()
            raise IsolationError(f"the monitor of place '{name}' is gone") from error
        agent = Agent(connection)
        self.dispatcher.add(agent)
        return agent

    def adopt(self, saved: dict[str, Any]) -> Place:
        """The place an earlier engine made, from what was saved of it.  Raises IsolationError."""
        name = str(saved["place"])
        group = cgroup.create(f"{self._parent}/{name}")
        return Place(
            name,
            int(saved["base"]),
            self._directory / name,
            group,
            self.connect(name),
            int(saved["pid"]),
        )

    def cgroup(self, name: str) -> cgroup.Cgroup:
        """The cgroup of a place, by its name."""
        return cgroup.existing(f"{self._parent}/{name}")

    # -- releasing ----------------------------------------------------------------------------

    def release(self, name: str) -> None:
        """Remove everything a place left: processes, socket, directory, cgroup.  Idempotent.

        Its empty cgroup goes a moment later: the kernel keeps one busy (EBUSY) for some 10 ms
        after its last process has ended, which nobody has to wait for.
        """
        group = cgroup.existing(f"{self._parent}/{name}")
        group.kill()
        self._empty.put(group)
        self.socket_path(name).unlink(missing_ok=True)
        files.remove_tree(self._directory / name)

    def repair(self, owned: set[str]) -> None:
        """Release every place on disk or in the cgroup tree that nobody owns."""
        names = set(os.listdir(self._directory))
        names |= {path.name.removesuffix(".sock") for path in self._run.glob("????-*.sock")}
        names |= set(cgroup.children(self._parent))
        with self._lock:
            spare = {place.name for place in self._spares}
        for name in names - owned - spare:
            self.release(name)

    def close(self) -> None:
        """End the spares; places in use live on."""
        with self._making, self._lock:
            self._wanted = 0
            spares, self._spares = self._spares, []
        for place in spares:
            self.end(place)

    def destroy(self) -> None:
        """Remove the cgroup of all places and those in it, all of them empty."""
        self._empty.put(None)
        self._janitor.join()
        cgroup.existing(self._parent).remove()

    def end(self, place: Place) -> None:
        """Release a place at hand.  A monitor whose process was launched goes on until every
        client has read what is left; any other ends now.
        """
        with contextlib.suppress(ProaError):  # its monitor is gone already, as wanted
            place.agent.quit()
        self.release(place.name)

    # -- threads ------------------------------------------------------------------------------

    def _keep_spares(self) -> None:
        while self._refill.get():
            try:
                with self._making:
                    self._fill()
            except ProaError as error:
                log.warning("no spare place: %s", error)

    def _fill(self) -> None:
        while len(self._spares) < self._wanted:
            place = self.make()
            with self._lock:
                self._spares.append(place)

    def _remove_cgroups(self) -> None:
        while (group := self._empty.get()) is not None:
            try:
                group.remove()
            except ProaError as error:
                log.warning("%s", error)

    def _reap_monitors(self) -> None:
        monitors: list[subprocess.Popen[bytes]] = []
        while True:
            with contextlib.suppress(queue.Empty):
                monitors.append(self._reap.get(timeout=5 if monitors else None))
            monitors = [monitor for monitor in monitors if monitor.poll() is None]
