"""Which further file systems a machine mounts: its fstab, read as text from a stranger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proa.image.machine.probe import MOUNTABLE, Volume

_TARGET = re.compile(r"(/[A-Za-z0-9_.+-]+){1,6}")
_SUBVOLUME = re.compile(r"(?:^|,)subvol=(/?[A-Za-z0-9_.@+/-]{1,128})(?:,|$)")
_NUMBER = re.compile(r"/dev/(?:[a-z]+?|nvme\d+n\d+p|mmcblk\d+p)(\d{1,3})")
_APART = ("/proc", "/sys", "/dev", "/run", "/tmp", "/mnt", "/media")
_LINES_MAXIMUM = 256


@dataclass(frozen=True)
class Mount:
    """One line that can be followed; `target` is absolute, `subvolume` btrfs's."""

    target: str
    volume: Volume
    subvolume: str = ""


@dataclass(frozen=True)
class Table:
    """The mounts, parents first, and what could not be followed."""

    mounts: tuple[Mount, ...]
    problems: tuple[str, ...]


def read(text: str, volumes: Sequence[Volume]) -> Table:
    """The table of a machine that has these volumes."""
    mounts: dict[str, Mount] = {}
    problems: list[str] = []
    for line in text.splitlines()[:_LINES_MAXIMUM]:
        words = line.split()
        if len(words) < 3 or words[0].startswith("#"):
            continue
        source, target, kind, options = (*words, "")[:4]
        if not _wanted(target, kind):
            continue
        found = next((item for item in volumes if _is(source, item)), None)
        if found is None or found.kind not in MOUNTABLE:
            problems.append(f"'{source[:80]}' for '{target}' is not on this disk")
            continue
        mounts[target] = Mount(target, found, _subvolume(options))
    ordered = sorted(mounts.values(), key=lambda mount: (mount.target.count("/"), mount.target))
    return Table(tuple(ordered), tuple(problems))


def _wanted(target: str, kind: str) -> bool:
    if kind in ("swap", "tmpfs", "proc", "sysfs", "nfs", "nfs4", "cifs", "none"):
        return False
    plain = bool(_TARGET.fullmatch(target)) and not {"..", "."} & set(target.split("/"))
    return plain and not any(target == path or target.startswith(f"{path}/") for path in _APART)


def _subvolume(options: str) -> str:
    found = _SUBVOLUME.search(options)
    return found[1] if found and ".." not in found[1].split("/") else ""


def _is(source: str, volume: Volume) -> bool:
    key, equals, value = source.partition("=")
    value = value.strip('"')
    names = {
        "UUID": volume.uuid, "LABEL": volume.label,
        "PARTUUID": volume.part_uuid, "PARTLABEL": volume.part_label,
    }  # fmt: skip
    if equals and key in names:
        return bool(value) and value.lower() == names[key].lower()
    for place, name in (("by-uuid", volume.uuid), ("by-label", volume.label)):
        if source == f"/dev/disk/{place}/{name}" and name:
            return True
    number = _NUMBER.fullmatch(source)
    return number is not None and int(number[1]) == volume.number
