"""Control groups of every kind of host: v1, v2, and hybrid (v1 with an empty v2 tree beside it).

A `Cgroup` is one directory per hierarchy in use, all of the same name.  Freezing and killing use
the v2 tree where there is one.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from proa.errors import HostError, Timeout, Unsupported
from proa.host import pseudo
from proa.host.cgroup_io import Setting
from proa.host.cgroup_layout import OWN_LEAF, Hierarchy, detect, directories, make, unified_base
from proa.host.cgroup_tables import (
    Kept,
    Usage,
    kept_v1,
    kept_v2,
    memory_and_swap,
    settings_v1,
    settings_v2,
    usage_v1,
    usage_v2,
)
from proa.spec import Limits

__all__ = ["Cgroup", "Hierarchy", "Kept", "Usage", "children", "create", "detect", "existing"]


def create(name: str) -> Cgroup:
    """Make cgroup `parent/leaf` in every hierarchy in use; an existing one is taken as it is."""
    group = existing(name)
    try:
        try:
            group.make()
        except FileNotFoundError:  # the parent was removed since we prepared it
            unified_base.cache_clear()
            group = existing(name)
            for directory in group.directories:
                make(directory.parent)
            group.make()
    except OSError as error:
        group.remove()
        raise HostError(f"cannot make cgroup '{name}': {error}") from error
    return group


def existing(name: str) -> Cgroup:
    """The cgroup of that name, without making it."""
    hierarchy = detect()
    try:
        return Cgroup(name, hierarchy.kind, directories(hierarchy, name))
    except OSError as error:
        raise HostError(f"cannot prepare cgroups for '{name}': {error}") from error


def children(parent: str) -> list[str]:
    """The names of all cgroups below `parent`, in any hierarchy, for recovery."""
    names: set[str] = set()
    for directory in existing(parent).directories:
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            names.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return sorted(names - {OWN_LEAF})


# -- one cgroup -----------------------------------------------------------------------------------


class Cgroup:
    """One cgroup, by name; holds nothing open, so it may be forgotten at any time."""

    def __init__(self, name: str, kind: str, directories: dict[str, Path]) -> None:
        self.name = name
        self.v2 = kind == "v2"
        self._at = directories

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directories, one per hierarchy (controllers mounted together share one)."""
        return tuple(dict.fromkeys(self._at.values()))

    def make(self) -> None:
        """Make its directories; raises OSError."""
        for directory in self.directories:
            make(directory)

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
            settings = settings_v2(limits)
        else:
            settings = settings_v1(limits)
            self._apply_memory_v1(limits)
        for setting in settings:
            self._set(setting)

    def _set(self, setting: Setting) -> None:
        directory = self._at.get("unified" if self.v2 else setting.controller)
        try:
            if directory is None:
                raise FileNotFoundError(errno.ENOENT, f"no '{setting.controller}' controller")
            pseudo.write(directory / setting.file, setting.value)
        except OSError as error:
            if error.errno == errno.ENOENT and setting.optional:
                return
            absent = directory is None or directory.is_dir()
            if absent and error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                raise Unsupported(
                    f"this host's kernel has no '{setting.file}'", hint="leave this limit out"
                ) from error
            raise HostError(
                f"cannot set '{setting.file}' of cgroup '{self.name}' to '{setting.value}': "
                f"{error.strerror}"
            ) from error

    def _apply_memory_v1(self, limits: Limits) -> None:
        """Memory, and memory plus swap (as a rule the same), which must not be lower."""
        wanted = limits.memory_bytes
        value, both = str(wanted or -1), str(memory_and_swap(limits) or -1)
        memory = Setting("memory", "memory.limit_in_bytes", value, optional=not wanted)
        swap = Setting("memory", "memory.memsw.limit_in_bytes", both, optional=True)
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
        return usage_v2(self._at["unified"]) if self.v2 else usage_v1(self._at)

    def kept(self) -> Kept:
        """What it is charged for that no process maps."""
        return kept_v2(self._at["unified"]) if self.v2 else kept_v1(self._at)

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
            pseudo.write(file, value)
        except OSError as error:
            raise HostError(f"cannot freeze cgroup '{self.name}': {error.strerror}") from error
        if not _until(lambda: self.frozen() == frozen, seconds=5):
            raise Timeout(f"cgroup '{self.name}' does not {'freeze' if frozen else 'thaw'}")

    def frozen(self) -> bool:
        """Whether all its processes are stopped."""
        directory = self._at.get("unified")
        if directory is not None:
            return pseudo.table(directory / "cgroup.events").get("frozen", 0) == 1
        return "freezer" in self._at and "FROZEN" in pseudo.read(
            self._at["freezer"] / "freezer.state"
        )

    def pids(self) -> list[int]:
        """The processes in it and below it, as far as our pid namespace shows them."""
        found: set[int] = set()
        for directory in self.directories:
            for below in _tree(directory):
                found.update(map(int, pseudo.read(below / "cgroup.procs").split()))
        return sorted(found - {0})  # 0 is one we cannot see; signalled, it would be ourselves

    def kill(self, *, timeout_seconds: float = 10) -> None:
        """End every process in it, forking ones too, and wait until it is empty."""
        if not _until(self._kill_round, seconds=timeout_seconds):
            raise Timeout(f"processes of cgroup '{self.name}' do not end: {self.pids()}")

    def _kill_round(self) -> bool:
        if not self.pids():
            return True
        if self._kill_at_once():
            self._signal_all()  # one that is on its way in is in some of the directories only
            return False
        with suppress(HostError, Timeout):  # a frozen process cannot fork away
            self.freeze()
        self._signal_all()
        with suppress(HostError, Timeout):
            self.thaw()
        return False

    def _kill_at_once(self) -> bool:
        """By cgroup.kill, which v2 has since Linux 5.14."""
        with suppress(KeyError, OSError):
            pseudo.write(self._at["unified"] / "cgroup.kill", 1)
            return True
        return False

    def _signal_all(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

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
