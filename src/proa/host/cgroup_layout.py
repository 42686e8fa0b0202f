"""Where this host keeps its cgroups, and which directories belong to a name."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proa.errors import HostError
from proa.host import devices, pseudo

OWN_LEAF = "proa-engine"  # where the engine itself goes when its own cgroup is to be a parent
_V2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io")
_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer")
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True)
class Hierarchy:
    """Where this host keeps its cgroups.

    `trees` maps each v1 controller in use to the mount point of its tree; `unified` is the v2
    tree's mount point.  `own` is the engine's own path in the v2 tree.
    """

    kind: str  # "v1", "v2" or "hybrid"
    trees: tuple[tuple[str, Path], ...] = ()
    unified: Path | None = None
    own: str = "/"


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
            for controller in options.split(" ")[-1].split(","):
                if controller in _V1_CONTROLLERS:
                    trees.setdefault(controller, where)
    own = next((ln[3:] for ln in own_cgroup.splitlines() if ln.startswith("0::")), "/")
    if not trees and unified is None:
        raise HostError("no cgroup file system is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    if not trees:
        return Hierarchy("v2", (), unified, own)
    if unified is not None:
        trees.pop("freezer", None)  # the v2 tree freezes and kills better
    kind = "v1" if unified is None else "hybrid"
    return Hierarchy(kind, tuple(sorted(trees.items())), unified, own)


# -- the parent of all instances ------------------------------------------------------------------


@cache
def unified_base(hierarchy: Hierarchy, parent: str) -> Path:
    """The v2 directory that holds `parent` (if any), with controllers enabled below both.

    The root of the tree where that is allowed, else the engine's own (delegated) cgroup, whose
    processes then move to a leaf: a v2 cgroup holds either processes or controllers.
    """
    assert hierarchy.unified is not None
    root = hierarchy.unified
    if hierarchy.kind == "hybrid":
        make(root / parent)
        _guard(root, parent)
        return root
    own = root / hierarchy.own.strip("/").removesuffix(OWN_LEAF).rstrip("/")
    try:
        _prepare(root, parent)
        _guard(root, parent)
        return root
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
            raise
    _vacate(own)
    _prepare(own, parent)
    _guard(own, parent)
    return own


def _guard(base: Path, parent: str) -> None:
    """Keep devices shut below `parent`; a second wall, so a kernel without BPF may lack it."""
    if parent:
        with suppress(OSError):
            devices.restrict(base / parent)


def _prepare(base: Path, parent: str) -> None:
    _enable(base)
    make(base / parent)
    _enable(base / parent)


def _enable(directory: Path) -> None:
    """Hand the controllers we use, as far as they are offered, down to the children."""
    offered = pseudo.read(directory / "cgroup.controllers").split()
    enabled = pseudo.read(directory / "cgroup.subtree_control").split()
    wanted = [f"+{name}" for name in _V2_CONTROLLERS if name in offered and name not in enabled]
    if wanted:
        pseudo.write(directory / "cgroup.subtree_control", " ".join(wanted))


def _vacate(directory: Path) -> None:
    """Move every process of a cgroup to a leaf below it, again while new ones turn up."""
    leaf = directory / OWN_LEAF
    make(leaf)
    for _ in range(10):
        pids = pseudo.read(directory / "cgroup.procs").split()
        for pid in pids:
            with suppress(ProcessLookupError):
                pseudo.write(leaf / "cgroup.procs", pid)
        if not pids:
            return


def make(directory: Path) -> None:
    """mkdir(2), an existing one being fine.

    A v1 cpuset takes no process before it has been given processors and memory: its parent's.
    """
    with suppress(FileExistsError):
        directory.mkdir()
    if not (directory / "cgroup.clone_children").exists():
        return  # v2, which inherits
    for name in _CPUSET_FILES:
        with suppress(FileNotFoundError):
            if not (directory / name).read_text().strip():
                pseudo.write(directory / name, (directory.parent / name).read_text().strip())


def directories(hierarchy: Hierarchy, name: str) -> dict[str, Path]:
    """Per controller in use (and "unified") the directory of cgroup `name`."""
    parent, slash, _ = name.partition("/")
    found = {controller: tree / name for controller, tree in hierarchy.trees}
    if hierarchy.unified is not None:
        found["unified"] = unified_base(hierarchy, parent if slash else "") / name
    return found
