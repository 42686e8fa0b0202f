"""Disks of labelled cases: real file systems, and what tools nobody here wrote read of them."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from pathlib import Path

from proa.advice.disk import reading, wanted
from proa.advice.disk.machine import Machine
from proa.advice.disk.tree import Entry, Tree
from tests.support.cases import Case, File, Link
from tests.support.disks import blank, ext4

BSD_LABEL = struct.pack("<I", 0x82564557)
NTFS = b"\xeb\x52\x90NTFS    "
SIZE_MIB = 16


def make(case: Case, path: Path, work: Path) -> Path:
    """The disk of a case: an ext4 of its tree, or another system's table by `config["type"]`."""
    if "type" in case.config:
        return _strange(path, int(case.config["type"], 16))
    root = work / "root"
    for name, what in case.tree.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, Link):
            place.symlink_to(what.target)
        else:
            data = what.data if isinstance(what, File) else what
            place.write_bytes(data.encode() if isinstance(data, str) else data)
            place.chmod(what.mode if isinstance(what, File) else 0o644)
    return ext4(path, root, SIZE_MIB)


def _strange(path: Path, kind: int) -> Path:
    """An MBR with one partition of a type, and what such a one begins with."""
    with blank(path, SIZE_MIB).open("r+b") as file:
        row = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", kind, b"\xff\xff\xff", 2048, 20480)
        file.seek(446)
        file.write(row + bytes(48) + b"\x55\xaa")
        file.seek(2048 * 512 + (512 if kind in (0xA5, 0xA6, 0xA9) else 0))
        file.write(BSD_LABEL + bytes(132) if kind in (0xA5, 0xA6, 0xA9) else NTFS)
    return path


def by_debugfs(path: Path, work: Path) -> Machine:
    """The machine of a disk as e2fsprogs reads it: the judge of what a guest reads."""
    head = path.read_bytes()[: 1 << 20]
    if head[1080:1082] != b"\x53\xef":
        start = struct.unpack_from("<I", head, 454)[0] * 512
        first = path.read_bytes()[start : start + (1 << 20)]
        return reading.of_strange(reading.Disk(path.name), head, [(1, first)], "")
    out = work / "out"
    out.mkdir()
    command = ["debugfs", "-R", f"rdump / {out}", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return reading.of_tree(tree_of(out), reading.Disk(path.name))


def tree_of(root: Path) -> Tree:
    """The names below a directory, and the texts that are wanted of them."""
    tree = Tree()
    for here, directories, files in os.walk(root):
        for name in sorted((*directories, *files)):
            place = Path(here) / name
            facts = place.lstat()
            link = os.readlink(place) if stat.S_ISLNK(facts.st_mode) else ""
            size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
            tree.add(f"/{place.relative_to(root)}", Entry(facts.st_mode, size, link))
    for path in (*wanted.wanted(tree), "/var/lib/dpkg/status"):
        file = root / path.lstrip("/")
        data = file.read_bytes() if file.is_file() else b""
        if data and b"\0" not in data[:4096]:
            tree.texts[path] = data.decode("utf-8", "replace")
    return tree
