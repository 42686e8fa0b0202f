"""Control groups of every kind of host: v1, v2, and hybrid (v1 with an empty v2 tree beside it).

A `Cgroup` is one directory per hierarchy in use, all of the same name.  Limits and readings are
rows of the tables below; freezing and killing use the v2 tree where there is one.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proa.errors import HostError, Timeout
from proa.spec import Limits

_V2_CONTROLLERS = ("cpu", "memory", "pids", "io")
_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "blkio")
_CPU_PERIOD_US = 100_000
_OWN_LEAF = "proa-engine"  # where the engine itself goes when its own cgroup is to be a parent
_UNLIMITED_V1 = 1 << 62  # v1 reports "no limit" as a number just below 2^63


@dataclass(frozen=True)
class Hierarchy:
    """Where this host keeps its cgroups.

    `trees` maps each v1 controller in use to the mount point of its tree; `unified` is the v2
    tree's mount point.  `own` is the engine's own path in the v2 tree.
    """

    version: str  # "v1", "v2" or "hybrid"
    trees: tuple[tuple[str, Path], ...] = ()
    unified: Path | None = None
    own: str = "/"


@dataclass(frozen=True)
class Usage:
    """What a cgroup uses and has used; `memory_limit` 0 means none.

    `memory_inactive_bytes` is the part of `memory_bytes` that is cache the kernel would drop.
    """

    memory_bytes: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_inactive_bytes: int = 0
    cpu_ns: int = 0
    pids: int = 0
    oom_kills: int = 0
    read_bytes: int = 0
    write_bytes: int = 0


@cache
def detect() -> Hierarchy:
    """The hierarchy of this host; read once."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return parse(mounts, Path("/proc/self/cgroup").read_text(encoding="utf-8"))


def parse(mountinfo: str, own_cgroup: str) -> Hierarchy:
    """The hierarchy described by /proc/self/mountinfo and /proc/self/cgroup."""
    trees: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.partition(" ")
        where = Path(left.split(" ")[4])
        if kind == "cgroup2":
            unified = unified or where
        elif kind == "cgroup":
            for controller in set(options.split(" ")[-1].split(",")) & {
                *_V1_CONTROLLERS,
                "freezer",
            }:
                trees.setdefault(controller, where)
    own = next((ln[3:] for ln in own_cgroup.splitlines() if ln.startswith("0::")), "/")
    if not trees and unified is None:
        raise HostError("no cgroup file system is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    if not trees:
        return Hierarchy("v2", (), unified, own)
    if unified is not None:
        trees.pop("freezer", None)  # the v2 tree freezes and kills better
    version = "v1" if unified is None else "hybrid"
    return Hierarchy(version, tuple(sorted(trees.items())), unified, own)


# -- small files ----------------------------------------------------------------------------------


def _write(path: Path, value: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _read(path: Path) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:  # the controller, or on old kernels the file, is not there
        return ""


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _table(path: Path) -> dict[str, int]:
    """A file of `key number` lines."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


# -- the parent of all instances ------------------------------------------------------------------


@cache
def _unified_base(hierarchy: Hierarchy, parent: str) -> Path:
    """The v2 directory that holds `parent`, with controllers enabled below both.

    The root of the tree where that is allowed, else the engine's own (delegated) cgroup, whose
    processes then move to a leaf: a v2 cgroup holds either processes or controllers.
    """
    assert hierarchy.unified is not None
    root = hierarchy.unified
    if hierarchy.version == "hybrid":
        _make(root / parent)
        return root
    own = root / hierarchy.own.strip("/").removesuffix(_OWN_LEAF).rstrip("/")
    try:
        _prepare(root, parent)
        return root
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
            raise
    _vacate(own)
    _prepare(own, parent)
    return own


def _prepare(base: Path, parent: str) -> None:
    _enable(base)
    _make(base / parent)
    _enable(base / parent)


def _enable(directory: Path) -> None:
    """Hand the controllers we use, as far as they are offered, down to the children."""
    offered = _read(directory / "cgroup.controllers").split()
    enabled = _read(directory / "cgroup.subtree_control").split()
    wanted = [f"+{name}" for name in _V2_CONTROLLERS if name in offered and name not in enabled]
    if wanted:
        _write(directory / "cgroup.subtree_control", " ".join(wanted))


def _vacate(directory: Path) -> None:
    leaf = directory / _OWN_LEAF
    _make(leaf)
    for pid in _read(directory / "cgroup.procs").split():
        with suppress(ProcessLookupError):
            _write(leaf / "cgroup.procs", pid)


def _make(directory: Path) -> None:
    with suppress(FileExistsError):
        directory.mkdir()


def _directories(hierarchy: Hierarchy, name: str) -> dict[str, Path]:
    """Per controller in use (and "unified") the directory of cgroup `name`."""
    parent = name.partition("/")[0]
    found = {controller: tree / name for controller, tree in hierarchy.trees}
    if hierarchy.unified is not None:
        found["unified"] = _unified_base(hierarchy, parent) / name
    return found


def create(name: str) -> Cgroup:
    """Make cgroup `parent/leaf` in every hierarchy in use; an existing one is taken as it is."""
    group = existing(name)
    try:
        try:
            group.make()
        except FileNotFoundError:  # the parent was removed since we prepared it
            _unified_base.cache_clear()
            group = existing(name)
            for directory in group.directories:
                _make(directory.parent)
            group.make()
    except OSError as error:
        group.remove()
        raise HostError(f"cannot make cgroup '{name}': {error}") from error
    return group


def existing(name: str) -> Cgroup:
    """The cgroup of that name, without making it."""
    hierarchy = detect()
    try:
        return Cgroup(name, hierarchy.version, _directories(hierarchy, name))
    except OSError as error:
        raise HostError(f"cannot prepare cgroups for '{name}': {error}") from error


def children(parent: str) -> list[str]:
    """The names of all cgroups below `parent`, in any hierarchy, for recovery."""
    names: set[str] = set()
    for directory in existing(parent).directories:
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            names.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return sorted(names - {_OWN_LEAF})


# -- one cgroup -----------------------------------------------------------------------------------


class Cgroup:
    """One cgroup, by name; holds nothing open, so it may be forgotten at any time."""

    def __init__(self, name: str, version: str, directories: dict[str, Path]) -> None:
        self.name = name
        self.v2 = version == "v2"
        self._at = directories

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directories, one per hierarchy (controllers mounted together share one)."""
        return tuple(dict.fromkeys(self._at.values()))

    def make(self) -> None:
        """Make its directories; raises OSError."""
        for directory in self.directories:
            _make(directory)

    def procs_descriptors(self) -> list[int]:
        """Its `cgroup.procs` files opened for writing; the caller closes them."""
        opened: list[int] = []
        try:
            for directory in self.directories:
                opened.append(os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise HostError(f"cannot open cgroup '{self.name}': {error}") from error
        return opened

    def apply(self, limits: Limits) -> None:
        """Set these limits; a limit of 0 lifts it."""
        if self.v2:
            settings = _settings_v2(limits)
        else:
            settings = _settings_v1(limits)
            self._apply_memory_v1(limits.memory_bytes)
        for setting in settings:
            self._set(setting)

    def _set(self, setting: Setting) -> None:
        directory = self._at.get("unified" if self.v2 else setting.controller)
        try:
            if directory is None:
                raise FileNotFoundError(errno.ENOENT, f"no '{setting.controller}' controller")
            _write(directory / setting.file, setting.value)
        except OSError as error:
            if error.errno == errno.ENOENT and setting.optional:
                return
            raise HostError(
                f"cannot set '{setting.file}' of cgroup '{self.name}' to '{setting.value}': "
                f"{error.strerror}"
            ) from error

    def _apply_memory_v1(self, memory_bytes: int) -> None:
        """Memory, and memory plus swap (the same: a limit is a limit), which must not be lower."""
        value = str(memory_bytes or -1)
        memory = Setting("memory", "memory.limit_in_bytes", value, optional=not memory_bytes)
        swap = Setting("memory", "memory.memsw.limit_in_bytes", value, optional=True)
        try:
            self._set(memory)
            self._set(swap)
        except HostError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.EINVAL:
                raise
            self._set(swap)  # raising: the sum makes room first
            self._set(memory)

    def usage(self) -> Usage:
        """What it uses now and has used; a reading the kernel does not offer is 0."""
        return _usage_v2(self._at["unified"]) if self.v2 else _usage_v1(self._at)

    # -- freezing and ending ----------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop every process of it; returns when they have stopped."""
        self._freeze(True)

    def thaw(self) -> None:
        """Let the processes run again."""
        self._freeze(False)

    def _freeze(self, frozen: bool) -> None:
        directory = self._at.get("unified")
        if directory is not None:
            file, value = directory / "cgroup.freeze", str(int(frozen))
        elif "freezer" in self._at:
            file, value = self._at["freezer"] / "freezer.state", "FROZEN" if frozen else "THAWED"
        else:
            raise HostError(f"cannot freeze cgroup '{self.name}': the host has no freezer")
        try:
            _write(file, value)
        except OSError as error:
            raise HostError(f"cannot freeze cgroup '{self.name}': {error.strerror}") from error
        if not _until(lambda: self.frozen() == frozen, seconds=5):
            raise Timeout(f"cgroup '{self.name}' does not {'freeze' if frozen else 'thaw'}")

    def frozen(self) -> bool:
        """Whether all its processes are stopped."""
        directory = self._at.get("unified")
        if directory is not None:
            return _table(directory / "cgroup.events").get("frozen", 0) == 1
        return "freezer" in self._at and "FROZEN" in _read(self._at["freezer"] / "freezer.state")

    def pids(self) -> list[int]:
        """The processes in it and below it."""
        found: set[int] = set()
        for directory in self.directories:
            for below in _tree(directory):
                found.update(map(int, _read(below / "cgroup.procs").split()))
        return sorted(found)

    def kill(self, *, timeout_seconds: float = 10) -> None:
        """End every process in it, forking ones too, and wait until it is empty."""
        unified = self._at.get("unified")
        if unified is not None:
            with suppress(OSError):  # before Linux 5.14
                _write(unified / "cgroup.kill", 1)
        if not _until(self._kill_round, seconds=timeout_seconds):
            raise Timeout(f"processes of cgroup '{self.name}' do not end: {self.pids()}")

    def _kill_round(self) -> bool:
        pids = self.pids()
        if not pids:
            return True
        with suppress(HostError):  # a frozen process cannot fork away; a missing freezer is fine
            self.freeze()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(HostError):
            self.thaw()
        return False

    def remove(self) -> None:
        """Remove its directories and those below; missing ones are fine, processes are not."""
        for directory in self.directories:
            for below in reversed(_tree(directory)):
                if not _until(lambda path=below: _remove(path), seconds=1):  # type: ignore[misc]
                    raise HostError(f"cannot remove cgroup '{self.name}': it is busy")


def _tree(directory: Path) -> list[Path]:
    """A cgroup directory and all below it, parents first; nothing when it is gone."""
    found = [directory]
    for above in found:
        with suppress(FileNotFoundError), os.scandir(above) as entries:
            found += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    return found


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise HostError(f"cannot remove cgroup '{directory}': {error.strerror}") from error
        return False
    return True


def _until(done: Callable[[], bool], *, seconds: float) -> bool:
    """Ask until the answer is yes, at growing intervals; False when the time is over."""
    end, pause = time.monotonic() + seconds, 0.0005
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


# -- limits and readings, as tables ---------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One file to write; an optional one may be missing (what is wanted is the default then)."""

    controller: str
    file: str
    value: str
    optional: bool


def _quota_us(cpus: float) -> int:
    return max(1000, round(cpus * _CPU_PERIOD_US))


def _settings_v1(limits: Limits) -> tuple[Setting, ...]:
    quota = str(_quota_us(limits.cpus)) if limits.cpus else "-1"
    pids = str(limits.pids or "max")
    shares = str(limits.cpu_shares or 1024)
    return (
        Setting("cpu", "cpu.cfs_quota_us", quota, not limits.cpus),
        Setting("cpu", "cpu.shares", shares, not limits.cpu_shares),
        Setting("pids", "pids.max", pids, not limits.pids),
    )


def _settings_v2(limits: Limits) -> tuple[Setting, ...]:
    quota = str(_quota_us(limits.cpus)) if limits.cpus else "max"
    swap = "0" if limits.memory_bytes else "max"
    return (
        Setting("memory", "memory.max", str(limits.memory_bytes or "max"), not limits.memory_bytes),
        Setting("memory", "memory.swap.max", swap, True),
        Setting("cpu", "cpu.max", f"{quota} {_CPU_PERIOD_US}", not limits.cpus),
        Setting("cpu", "cpu.weight", str(cpu_weight(limits.cpu_shares)), not limits.cpu_shares),
        Setting("pids", "pids.max", str(limits.pids or "max"), not limits.pids),
    )


def cpu_weight(shares: int) -> int:
    """The v2 weight (1 to 10000, 100 by default) of a number of v1 shares (2 to 262144)."""
    if not shares:
        return 100
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def _usage_v1(at: dict[str, Path]) -> Usage:
    nowhere = Path("/nonexistent")
    memory = at.get("memory", nowhere)
    limit = _number(memory / "memory.limit_in_bytes")
    moved = _blkio(_read(at.get("blkio", nowhere) / "blkio.throttle.io_service_bytes"))
    return Usage(
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        memory_peak=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit=0 if limit >= _UNLIMITED_V1 else limit,
        memory_inactive_bytes=_table(memory / "memory.stat").get("total_inactive_file", 0),
        cpu_ns=_number(at.get("cpuacct", nowhere) / "cpuacct.usage"),
        pids=_number(at.get("pids", nowhere) / "pids.current"),
        oom_kills=_table(memory / "memory.oom_control").get("oom_kill", 0),
        read_bytes=moved["Read"],
        write_bytes=moved["Write"],
    )


def _blkio(text: str) -> dict[str, int]:
    """Bytes read and written, summed over the devices of a blkio `device operation bytes` file."""
    moved = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in moved:
            moved[words[1]] += int(words[2])
    return moved


def _usage_v2(directory: Path) -> Usage:
    moved = _io(_read(directory / "io.stat"))
    return Usage(
        memory_bytes=_number(directory / "memory.current"),
        memory_peak=_number(directory / "memory.peak"),
        memory_limit=_number(directory / "memory.max"),
        memory_inactive_bytes=_table(directory / "memory.stat").get("inactive_file", 0),
        cpu_ns=_table(directory / "cpu.stat").get("usage_usec", 0) * 1000,
        pids=_number(directory / "pids.current"),
        oom_kills=_table(directory / "memory.events").get("oom_kill", 0),
        read_bytes=moved["rbytes"],
        write_bytes=moved["wbytes"],
    )


def _io(text: str) -> dict[str, int]:
    """Bytes read and written, summed over the devices of a v2 io.stat file."""
    moved = {"rbytes": 0, "wbytes": 0}
    for word in text.split():
        key, _, value = word.partition("=")
        if key in moved:
            moved[key] += int(value)
    return moved
