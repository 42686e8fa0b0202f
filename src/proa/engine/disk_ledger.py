"""Where the bytes of a machine's disk went, as a confined guest reads it: nothing is written."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO

from proa.engine import disk_facts, disk_reader
from proa.engine.core import Core
from proa.image.machine.ledger import records, unmerged
from proa.image.sbom.component import short
from proa.image.sizes import OTHER, Row, directory, rows
from proa.isolation.vm.inspector import Inspector

_LISTS, _LIST = "var/lib/dpkg/info/", ".list"
_LISTS_MAXIMUM = 20_000
_BATCH = 16
FILE_SYSTEM = "the file system's own"


def read(core: Core, name: str) -> tuple[Row, ...]:
    """What a disk's root file system has in it, by package or directory; takes a guest's boot.

    Sums up to what its file systems say is in use.  Raises NotFound, Invalid, Corrupt, Unsupported.
    """
    path = disk_facts.path_of(core, name)
    kind = disk_facts.format_of(path)
    with core.images.workspace() as work:
        disk, _ = disk_facts.opened(path, kind, work)
        with core.vms.inspector(disk, work) as vm, _scrap() as rest:
            machine = disk_reader.find(vm, disk_reader.volumes(vm), None)
            lists = _note(vm, machine.target, rest)
            owners = _owners(vm, machine.target, lists)
            counted = _count(rest, owners)
    left = machine.used_bytes - sum(counted.values())
    found = rows(counted, "package" if owners else "directory")
    return (
        (*found, Row(FILE_SYSTEM, left, "journal, tables, ends of blocks")) if left > 0 else found
    )


def _scrap() -> IO[str]:
    return tempfile.TemporaryFile("w+", errors="surrogateescape", newline="")


def _note(vm: Inspector, target: str, rest: IO[str]) -> list[str]:
    """Write every file's size and path to a scrap; gives dpkg's lists."""
    lists: list[str] = []
    for path, record in disk_reader.names(vm, target):
        if size := disk_facts.entry(record).size:
            rest.write(f"{size} {path}\0")
        if path.startswith(_LISTS) and path.endswith(_LIST) and len(lists) < _LISTS_MAXIMUM:
            lists.append(path)
    return lists


def _owners(vm: Inspector, target: str, lists: list[str]) -> dict[str, str]:
    """Packages by path."""
    owners: dict[str, str] = {}
    for start in range(0, len(lists), _BATCH):
        batch = lists[start : start + _BATCH]
        for path, data in zip(batch, vm.read([f"{target}/{p}" for p in batch]), strict=True):
            package = short(path[len(_LISTS) : -len(_LIST)].partition(":")[0])
            for line in data.decode("utf-8", "surrogateescape").splitlines():
                owners[line.lstrip("/")] = package
    return owners


def _count(rest: IO[str], owners: Mapping[str, str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for path, size in _sizes(rest):
        if owners:
            name = owners.get(path) or owners.get(unmerged(path)) or OTHER
        else:
            name = directory(path.encode("utf-8", "surrogateescape"))
        counted[name] += size
    return counted


def _sizes(rest: IO[str]) -> Iterator[tuple[str, int]]:
    rest.seek(0)
    for record in records(rest):
        number, _, path = record.partition(" ")
        yield path, int(number)
