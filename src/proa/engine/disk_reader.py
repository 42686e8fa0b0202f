"""A machine's files on a stranger's disk: which partitions they are on, read through a vm."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from proa import plan
from proa.engine.tree import Entry, Reader
from proa.errors import Corrupt, Invalid, LaunchError, Timeout, Unsupported
from proa.image.machine import fstab, probe
from proa.image.machine.probe import Volume
from proa.isolation.vm.inspector import DEVICE, Inspector

PARTITIONS_MAXIMUM = 32
NAMES_MAXIMUM = 4_000_000
LISTING_SECONDS = 600
_PARTITION = re.compile(r"vda(\d{1,3})$")
_ROOTS = ("ext4", "xfs", "btrfs")
_SUBVOLUMES = ("", "@", "root", "@rootfs")
# A journal is replayed where the disk can be written to; else what was written last is missed.
_UNREPLAYED = {"ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay"}
_SIGNS = ("etc/os-release", "usr/lib/os-release", "etc/fstab", "etc/passwd")
_OPAQUE = {"lvm": "LVM", "luks": "encryption (LUKS)", "raid": "software RAID"}


@dataclass(frozen=True)
class Machine:
    """A root that is mounted in the guest at `target`, with everything below it."""

    target: str
    root: Volume
    mounts: tuple[fstab.Mount, ...]
    problems: tuple[str, ...]

    @property
    def used_bytes(self) -> int:
        """What its file systems say is in use; 0 when one does not say."""
        used = {item.number: item.used_bytes for item in (self.root, *self._others())}
        return sum(used.values()) if all(used.values()) else 0

    @property
    def says(self) -> str:
        """Where it was found, for people."""
        where = f"partition {self.root.number}" if self.root.number else "the whole disk"
        further = "".join(f", {item.target} on {item.volume.number}" for item in self.mounts)
        return f"root: {where} ({self.root.kind}){further}"

    def _others(self) -> tuple[Volume, ...]:
        return tuple(mount.volume for mount in self.mounts if mount.volume.kind != "vfat")


def volumes(vm: Inspector) -> list[Volume]:
    """What the guest's kernel found in the partition table; number 0 is a disk without one."""
    listing = vm.read(("/proc/partitions",))[0].decode("ascii", "replace").split()
    numbers = sorted(int(match[1]) for word in listing if (match := _PARTITION.match(word)))
    table = probe.names_of_table(vm.read((DEVICE,))[0])
    result: list[Volume] = []
    for number in numbers[:PARTITIONS_MAXIMUM] or [0]:
        found = probe.volume(number, vm.read((_device(number),))[0])
        ids = table.get(number, ("", "")) if number else ("", "")
        result.append(Volume(number, found.kind, found.uuid, found.label, found.used_bytes, *ids))
    return result


def _device(number: int) -> str:
    return f"{DEVICE}{number or ''}"


def find(vm: Inspector, found: Sequence[Volume], wanted: int | None) -> Machine:
    """Mount the root and what its fstab names.  Raises Invalid when it is not clear which."""
    candidates = [item for item in found if wanted in (None, item.number)]
    roots = [item for item in candidates if item.kind in _ROOTS]
    if not roots:
        raise _no_root(found, wanted)
    tried = [attempt for item in roots for attempt in _attempts(vm, item)]
    best = max((score for score, _, _ in tried), default=0)
    chosen = [(target, item) for score, target, item in tried if score == best]
    if not chosen:
        raise Corrupt("no file system of the disk can be mounted: they are damaged")
    if (best == 0 and len(chosen) > 1) or len({item.number for _, item in chosen}) > 1:
        numbers = ", ".join(str(item.number) for _, item in chosen)
        raise Invalid(f"several partitions may be the root: {numbers}", hint="name one with --root")
    target, root = chosen[0]
    return _with_fstab(vm, target, root, found)


def names(vm: Inspector, target: str, most: int = NAMES_MAXIMUM) -> Iterator[tuple[str, Entry]]:
    """Every path below a mounted root, without a slash in front, and what is told of it.

    Raises Corrupt for more than `most` names, Timeout for a guest that takes too long: it may tell
    what it likes.
    """
    top, end = Path(target).name, time.monotonic() + LISTING_SECONDS
    listing = plan.Builtin(("tree-out", target, "names"))
    with vm.stream(listing) as connection, connection.makefile("rb") as stream:
        reader = Reader(cast(BinaryIO, stream))
        for number in range(most):
            if not number % 1000 and time.monotonic() > end:
                raise Timeout("the guest that reads the disk takes too long")
            entry = reader.entry()
            if entry is None:
                return
            if inner := entry.path.removeprefix(top).strip("/"):
                yield inner, entry
    raise Corrupt(f"the disk has more than '{most}' names")


def _no_root(found: Sequence[Volume], wanted: int | None) -> Invalid | Unsupported:
    shown = ", ".join(f"{item.number}: {item.kind or 'unknown'}" for item in found)
    for item in found:
        if item.kind in _OPAQUE and wanted in (None, item.number):
            return Unsupported(
                f"{_OPAQUE[item.kind]} is not read (partition {item.number})",
                hint="copy the machine's files to a plain disk, or use 'import' with a tar",
            )
    where = f"partition {wanted}" if wanted is not None else "the disk"
    return Invalid(f"no root file system on {where} ({shown})", hint="ext, xfs and btrfs are read")


def _attempts(vm: Inspector, item: Volume) -> Iterator[tuple[int, str, Volume]]:
    """Score and mount point of a volume, and of the usual subvolumes of a btrfs."""
    for index, name in enumerate(_SUBVOLUMES if item.kind == "btrfs" else ("",)):
        target = f"/mnt/p{item.number}{'.' * bool(index)}{index or ''}"
        with suppress(LaunchError):
            _mount(vm, item, target, f"subvol={name}" if name else "")
            signs = vm.read([f"{target}/{sign}" for sign in _SIGNS])
            yield sum(map(bool, signs)), target, item


def _mount(vm: Inspector, item: Volume, target: str, options: str = "") -> None:
    try:
        vm.mount(item.kind, _device(item.number), target, options)
    except LaunchError:
        if item.kind not in _UNREPLAYED:
            raise
        more = ",".join(filter(None, (options, _UNREPLAYED[item.kind])))
        vm.mount(item.kind, _device(item.number), target, more)


def _with_fstab(vm: Inspector, target: str, root: Volume, found: Sequence[Volume]) -> Machine:
    text = vm.read((f"{target}/etc/fstab",))[0].decode("utf-8", "replace")
    table = fstab.read(
        text, [item for item in found if item.number != root.number or item.kind == "btrfs"]
    )
    mounted: list[fstab.Mount] = []
    problems = list(table.problems)
    for mount in table.mounts:
        options = f"subvol={mount.subvolume}" if mount.subvolume else ""
        try:
            _mount(vm, mount.volume, f"{target}{mount.target}", options)
            mounted.append(mount)
        except LaunchError as error:
            problems.append(f"'{mount.target}' could not be mounted: {error.message}")
    return Machine(target, root, tuple(mounted), tuple(problems))
