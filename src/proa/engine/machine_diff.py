"""What a whole machine changed about its base's files, told by a guest that reads both disks.

Compared is what a directory tells: kinds, owners, modes, sizes, times and targets of links.
"""

from __future__ import annotations

import os
import stat

from proa.engine import disk_reader
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.machine_commit import at_rest
from proa.engine.tree import HARD_LINK, Entry
from proa.errors import Unsupported
from proa.isolation.vm import layers, qcow2
from proa.isolation.vm.inspector import Disk
from proa.isolation.vm.layers import Chain

CHANGED, ADDED, DELETED = 0, 1, 2  # Docker's numbers
_Facts = tuple[object, ...]


def changed(core: Core, instance: Instance) -> list[tuple[int, str]]:
    """(Docker's kind, absolute path) of each change, sorted by path.  Takes two guests' boots.

    Raises Unsupported for a disk that lies over nothing.
    """
    with at_rest(core, instance) as found:
        base = found.layers[-1]
        if not base.base:
            raise Unsupported(
                f"the disk of instance '{instance.name}' lies over nothing to compare it with",
                hint="proa export and commit make copies of all of it",
            )
        before, after = (_files(core, chain) for chain in (Chain((base,)), found))
    return sorted(_changes(before, after), key=lambda change: change[1])


def _changes(before: dict[str, _Facts], after: dict[str, _Facts]) -> list[tuple[int, str]]:
    gone = [path for path in before.keys() - after.keys() if _parent(path) in after]
    told = [(DELETED, path) for path in gone]
    told += [(ADDED, path) for path in after.keys() - before.keys()]
    told += [
        (CHANGED, path) for path in after.keys() & before.keys() if after[path] != before[path]
    ]
    return told


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _files(core: Core, chain: Chain) -> dict[str, _Facts]:
    """Paths and what is told of them, of a disk that is not written: that goes to a scrap."""
    with core.images.workspace() as work:
        path = work / "overlay"
        os.close(qcow2.create(path, layers.virtual_bytes(chain.top)))
        disk = Disk(path, "qcow2", work / "scratch", lambda: layers.open_readonly(chain))
        with core.vms.inspector(disk, work) as vm:
            machine = disk_reader.find(vm, disk_reader.volumes(vm), None)
            return {
                f"/{path}": _facts(entry) for path, entry in disk_reader.names(vm, machine.target)
            }


def _facts(entry: Entry) -> _Facts:
    plain = (entry.mode, entry.uid, entry.gid, entry.link, entry.major, entry.minor)
    if stat.S_ISDIR(entry.mode) or entry.flags & HARD_LINK:
        return plain
    return (*plain, entry.mtime_ns)
