"""Templates: machines booted once, saved, and cloned from then on.

A template is a directory `templates/KEY` with `memory` (the RAM, sparse), `state` (the devices) and
`template.json` (what it was made of, sizes and checksums).  To be cloned its RAM is loaded into a
memfd which is then sealed: QEMU opens it for writing, and the seal is why no clone can change it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.agent import Dispatcher
from proa.errors import Corrupt, HostError, IsolationError, Timeout
from proa.isolation.vm import architectures, child, disks, plans, qemu, qmp
from proa.isolation.vm.guest import Progress

FORMAT = 4
SEED = "seed"
CELL = 1 << 16
FACTS = {"memory_bytes", "memory_digest", "state_digest", "seed_digest", "place_pid"}
ZERO = bytes(CELL)
SETTLE_SECONDS = 0.8
SAVE_SECONDS = 30.0
STORED_MAXIMUM = 16  # generic ones, of about 90 MB
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
IGNORE_SHARED: qmp.Command = (
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Template:
    """A template ready to be cloned: descriptors of its sealed RAM and of its device state.

    `place_pid` is its waiting place in the guest's numbers.  `seed` makes the writable disk that an
    image's template has mounted; a generic template has none.
    """

    key: str
    memory: int
    state: int
    place_pid: int
    seed: disks.Seed | None = None

    def open_state(self) -> int:
        """The device state with a position of its own, to be read by one clone."""
        return os.open(f"/proc/self/fd/{self.state}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the RAM; running clones keep theirs."""
        os.close(self.memory)
        os.close(self.state)


class Templates:
    """Makes templates on demand and keeps the loaded ones.  Safe to use from many threads."""

    def __init__(
        self,
        root: Path,
        firmware: Callable[[qemu.Machine], child.Firmware],
        dispatcher: Dispatcher,
        progress: Progress = lambda line: None,
    ) -> None:
        self._root = root
        self._firmware = firmware
        self._dispatcher = dispatcher
        self._progress = progress
        self._loaded: dict[qemu.Machine, Template] = {}
        self._locks: dict[qemu.Machine, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, machine: qemu.Machine) -> Template:
        """The template of this shape: loaded, else read from disk, else made now."""
        loaded = self._loaded.get(machine)
        if loaded is not None:
            return loaded
        with self._lock:
            lock = self._locks.setdefault(machine, threading.Lock())
        with lock:
            loaded = self._loaded.get(machine)
            if loaded is None:
                loaded = self._loaded[machine] = self._open(machine)
            return loaded

    def has(self, machine: qemu.Machine) -> bool:
        """Whether `get` would answer at once."""
        return machine in self._loaded

    def discard(self, machine: qemu.Machine) -> None:
        """Forget and remove a template that proved to be broken."""
        with self._lock:
            broken = self._loaded.pop(machine, None)
        if broken is not None:
            shutil.rmtree(self._root / broken.key, ignore_errors=True)

    def close(self) -> None:
        """Let go of every loaded template."""
        with self._lock:
            loaded, self._loaded = self._loaded, {}
        for template in loaded.values():
            template.close()

    def key(self, machine: qemu.Machine) -> str:
        """Name of a template: everything that must be the same for a clone to be right."""
        firmware = self._firmware(machine)
        facts = (
            FORMAT,
            architectures.version_key(machine.architecture),
            machine.key(),
            machine.command_line(),
            processor(),
            _identity(firmware.kernel.image),
            file_digest(firmware.initramfs),
            plans.template_setup(),
            plans.place(network=machine.network),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def _open(self, machine: qemu.Machine) -> Template:
        """Read a template, or make it while other engines wait."""
        key = self.key(machine)
        directory = self._root / key
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                found = load(directory)
                os.utime(directory)
                return found
            except FileNotFoundError:
                pass
            except Corrupt as error:
                log.warning("the template '%s' is made again: %s", key, error)
            self._make(machine, directory)
            self._prune(directory)
            return load(directory)

    def _prune(self, newest: Path) -> None:
        """Remove the generic templates used longest ago, beyond the maximum."""
        kept = {newest.name, *(item.key for item in list(self._loaded.values()))}
        stored = [path.parent for path in self._root.glob("[0-9a-f]*/template.json")]
        stored.sort(key=lambda path: path.stat().st_mtime)
        for path in stored[:-STORED_MAXIMUM]:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _make(self, machine: qemu.Machine, directory: Path) -> None:
        """Boot, prepare a place, let the guest settle, save; the directory appears complete."""
        started = time.monotonic()
        self._progress(f"making a template: {machine.ram_bytes >> 20} MiB, {machine.vcpus} cpu")
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        memory = os.memfd_create("template", os.MFD_CLOEXEC)
        firmware = self._firmware(machine)
        try:
            os.ftruncate(memory, machine.ram_bytes)
            with child.boot(machine, firmware, self._dispatcher, memory=memory) as guest:
                guest.agent.setup(plans.template_setup())
                place_pid = guest.agent.place(plans.place(network=machine.network))
                time.sleep(SETTLE_SECONDS)
                save_state(guest.qmp, work / "state")
            store(work, directory.name, memory, place_pid)
            shutil.rmtree(directory, ignore_errors=True)
            work.rename(directory)
        finally:
            os.close(memory)
            shutil.rmtree(work, ignore_errors=True)
        self._progress(f"template ready after {time.monotonic() - started:.1f} seconds")


def save_state(control: qmp.Qmp, path: Path) -> None:
    """Write the devices' state to `path`; the RAM is shared and stays where it is.

    The guest is not stopped first: a clone then runs on by itself, without a round trip.
    """
    control.execute(*IGNORE_SHARED)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        control.execute("getfd", {"fdname": "state"}, descriptor=descriptor)
    finally:
        os.close(descriptor)
    control.execute("migrate", {"uri": "fd:state"})
    deadline = time.monotonic() + SAVE_SECONDS
    while True:
        status = control.execute("query-migrate")
        if status.get("status") == "completed":
            return
        if status.get("status") in ("failed", "cancelled"):
            raise IsolationError(f"saving failed: {status.get('error-desc', status['status'])}")
        if time.monotonic() > deadline:
            raise Timeout(f"saving took longer than {SAVE_SECONDS:g} seconds")
        time.sleep(0.005)


def store(work: Path, key: str, memory: int, place_pid: int) -> None:
    """Write RAM and facts beside the state (and the seed of its disk, if any) already there."""
    with (work / "memory").open("wb") as file:
        file.truncate(os.fstat(memory).st_size)
        digest = copy_sparse(memory, file.fileno())
    facts = {
        "key": key,
        "memory_bytes": os.fstat(memory).st_size,
        "memory_digest": digest,
        "state_digest": file_digest(work / "state"),
        "place_pid": place_pid,
        "seed_digest": hashlib.sha256(_seed(work)).hexdigest(),
    }
    (work / "template.json").write_text(json.dumps(facts))


def load(directory: Path) -> Template:
    """Open a template, load its RAM.  Raises FileNotFoundError, or Corrupt when it is damaged."""
    facts = _facts(directory)
    memory = os.memfd_create(f"proa-{directory.name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    state = -1
    try:
        state = os.open(directory / "state", os.O_RDONLY | os.O_CLOEXEC)
        seed = _seed(directory)
        digests = (_load_memory(directory, facts, memory), file_digest(directory / "state"),
                   hashlib.sha256(seed).hexdigest())  # fmt: skip
        if digests != (facts["memory_digest"], facts["state_digest"], facts["seed_digest"]):
            raise Corrupt(f"template '{directory.name}' does not match its checksums")
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
        return Template(
            directory.name,
            memory,
            state,
            int(facts["place_pid"]),
            disks.Seed.parse(seed) if seed else None,
        )
    except BaseException as error:
        for descriptor in (memory, state):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if isinstance(error, FileNotFoundError):
            raise Corrupt(f"template '{directory.name}' is incomplete") from error
        raise


def _load_memory(directory: Path, facts: dict[str, Any], memory: int) -> str:
    with (directory / "memory").open("rb") as file:
        if os.fstat(file.fileno()).st_size != facts["memory_bytes"]:
            raise Corrupt(f"the memory of template '{directory.name}' has another size")
        os.ftruncate(memory, facts["memory_bytes"])
        return copy_sparse(file.fileno(), memory)


def _seed(directory: Path) -> bytes:
    """The dumped seed of an image's template; nothing for a generic one."""
    try:
        return (directory / SEED).read_bytes()
    except FileNotFoundError:
        return b""


def _facts(directory: Path) -> dict[str, Any]:
    text = (directory / "template.json").read_text()
    try:
        facts: dict[str, Any] = json.loads(text)
        if facts["key"] == directory.name and set(facts) >= FACTS:
            return facts
    except (ValueError, KeyError, TypeError):
        pass
    raise Corrupt(f"the description of template '{directory.name}' is damaged")


def copy_sparse(source: int, target: int) -> str:
    """Copy what is not zero, to the same offsets; the digest of what was copied.

    Both sides are sparse in their own way, so holes decide nothing: the file is cut in equal
    cells, and those with something in them count.
    """
    digest = hashlib.blake2b(digest_size=16)
    done = 0
    for start, end in disks.data_ranges(source):
        for offset in range(max(start - start % CELL, done), end, CELL):
            data = os.pread(source, CELL, offset)
            done = offset + CELL
            if data != ZERO[: len(data)]:
                digest.update(offset.to_bytes(8, "little"))
                digest.update(data)
                os.pwrite(target, data, offset)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HostError(f"cannot read '{path}': {error.strerror}") from error


def _identity(path: Path) -> str:
    """Enough to notice that a file of ours was replaced, without reading it."""
    facts = path.stat()
    return f"{facts.st_size}.{facts.st_mtime_ns}.{facts.st_ino}"


def processor() -> str:
    """The processor's name: a template's guest has seen its features and the rate of its clock."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
