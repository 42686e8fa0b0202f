"""The memory of a running QEMU, read and written from outside, as /proc/PID/mem has it.

A clone's RAM is a private mapping of its template: the kernel tells which pages it has made its
own, and only those are its difference.  Sources: the kernel's admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.errors import IsolationError
from proa.isolation.vm import architectures, disks, qemu, qmp

PAGE = mmap.PAGESIZE
REGIONS = 4096  # asked for at once
FILE, PRESENT, SWAPPED = 1 << 2, 1 << 3, 1 << 4  # PAGE_IS_...
BIT_FILE, BITS_THERE = 61, 62  # of a pagemap entry; present and swapped are the two highest
ADDRESS = re.compile(r"\(ram\) is 0x([0-9a-f]+)\s*$")
PIECE = 1 << 20

Range = tuple[int, int]


class _Scan(ctypes.Structure):
    """`struct pm_scan_arg`."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages",
            "category_inverted", "category_mask", "category_anyof_mask", "return_mask",
        )
    ]  # fmt: skip


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "end", "categories")]


_SCAN = 3 << 30 | ctypes.sizeof(_Scan) << 16 | ord("f") << 8 | 16


@dataclass(frozen=True)
class Memory:
    """The RAM of a QEMU: where it is in its process; `base` is what it was mapped from, or -1."""

    pid: int
    address: int
    size_bytes: int
    base: int = -1

    def close(self) -> None:
        """Let go of the base."""
        if self.base >= 0:
            os.close(self.base)


def find(pid: int, control: qmp.Qmp, shape: qemu.Machine) -> Memory:
    """The RAM of a running QEMU.  Raises IsolationError when it is not one piece."""
    start = address(control, architectures.ALL[shape.architecture].ram_start)
    return Memory(pid, start, shape.ram_bytes, _base(pid, start))


def address(control: qmp.Qmp, guest_address: int) -> int:
    """Where a guest's memory is in QEMU's.  Raises IsolationError."""
    asked = {"command-line": f"gpa2hva {guest_address:#x}"}
    said = str(control.execute("human-monitor-command", asked))
    match = ADDRESS.search(said)
    if match is None:
        raise IsolationError(f"qemu does not tell where its memory is: '{said.strip()}'")
    return int(match[1], 16)


def file_bytes(pid: int, inode: int) -> int:
    """What a memory file that a QEMU has open takes.  Raises IsolationError."""
    file = _descriptor(pid, inode)
    try:
        return 512 * os.fstat(file).st_blocks
    finally:
        os.close(file)


def _base(pid: int, address: int) -> int:
    """A descriptor of the file mapped at an address, for reading; -1 for anonymous memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, _, _, _, inode, *_ = line.split(maxsplit=5)
        start, _, end = where.partition("-")
        if int(start, 16) <= address < int(end, 16):
            return _descriptor(pid, int(inode)) if inode != "0" else -1
    raise IsolationError(f"nothing is mapped at {address:#x} of qemu")


def _descriptor(pid: int, inode: int) -> int:
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.stat(path).st_ino == inode and "memfd:" in os.readlink(path):
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
    raise IsolationError("the file of qemu's memory is not open any more")


def own(memory: Memory) -> list[Range]:
    """What a QEMU has written of its RAM (offsets), all that is there without a base."""
    pagemap = os.open(f"/proc/{memory.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            found = list(_scan(pagemap, memory))
        except OSError:  # before Linux 6.7
            found = list(_read(pagemap, memory))
    finally:
        os.close(pagemap)
    return [(start - memory.address, end - memory.address) for start, end in found]


def _scan(pagemap: int, memory: Memory) -> Iterator[Range]:
    regions = (_Region * REGIONS)()
    start, end = memory.address, memory.address + memory.size_bytes
    excluded = FILE if memory.base >= 0 else 0
    while start < end:
        order = _Scan(
            ctypes.sizeof(_Scan), 0, start, end, 0, ctypes.addressof(regions), REGIONS, 0,
            excluded, excluded, PRESENT | SWAPPED, PRESENT,
        )  # fmt: skip
        libc = ctypes.CDLL(None, use_errno=True)
        count = libc.ioctl(pagemap, ctypes.c_ulong(_SCAN), ctypes.byref(order))
        if count < 0:
            raise OSError(ctypes.get_errno(), "PAGEMAP_SCAN")
        for region in regions[:count]:
            yield int(region.start), int(region.end)
        if count == 0 or int(order.walk_end) <= start:
            return
        start = int(order.walk_end)


def _read(pagemap: int, memory: Memory) -> Iterator[Range]:
    first, count = memory.address // PAGE, memory.size_bytes // PAGE
    entries = memoryview(os.pread(pagemap, count * 8, first * 8)).cast("Q")
    begin = -1
    for index, entry in enumerate((*entries, 0)):
        ours = entry >> BITS_THERE and not (memory.base >= 0 and entry >> BIT_FILE & 1)
        if ours and begin < 0:
            begin = index
        elif not ours and begin >= 0:
            yield memory.address + begin * PAGE, memory.address + index * PAGE
            begin = -1


def copy(memory: Memory, ranges: list[Range], target: int) -> int:
    """Copy ranges of a QEMU's RAM to the same offsets of a file; how many bytes that were."""
    total = 0
    source = os.open(f"/proc/{memory.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(target, memory.size_bytes) as mapped, memoryview(mapped) as view:
            for start, end in ranges:
                _exactly(os.preadv(source, [view[start:end]], memory.address + start), end - start)
                total += end - start
    finally:
        os.close(source)
    return total


def pour(source: int, memory: Memory) -> None:
    """Write what a sparse file holds into the RAM of a QEMU that has not started its guest."""
    target = os.open(f"/proc/{memory.pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with (
            mmap.mmap(source, memory.size_bytes, prot=mmap.PROT_READ) as mapped,
            memoryview(mapped) as view,
        ):
            for start, end in disks.data_ranges(source):
                done = os.pwritev(target, [view[start:end]], memory.address + start)
                _exactly(done, end - start)
    finally:
        os.close(target)


def filled(file: int) -> list[Range]:
    """Where a sparse file has something."""
    return disks.data_ranges(file)


def underlay(base: int, target: int) -> None:
    """Fill the holes of `target` with what `base` has there: both together are the whole RAM."""
    theirs = iter([*disks.data_ranges(target), (1 << 62, 1 << 62)])
    taken = next(theirs)
    for start, end in disks.data_ranges(base):
        while start < end:
            while taken[1] <= start:
                taken = next(theirs)
            if taken[0] <= start:
                start = min(taken[1], end)
                continue
            stop = min(end, taken[0])
            _send(base, target, start, stop)
            start = stop


def _send(source: int, target: int, start: int, end: int) -> None:
    os.lseek(target, start, os.SEEK_SET)
    while start < end:
        done = os.sendfile(target, source, start, end - start)
        if done <= 0:
            raise IsolationError("the template's memory is cut off")
        start += done


def _exactly(done: int, wanted: int) -> None:
    if done != wanted:
        raise IsolationError(f"only {done} of {wanted} bytes of qemu's memory were copied")
