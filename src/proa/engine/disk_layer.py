"""A machine's tree, as a guest sends it, made into a layer: sorted, counted, bounded.

The guest is hostile.  Its paths are only ever names in a tar, which goes through the same unpacker
as a layer of a registry; of contents, only small files are kept in memory.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from proa.engine.tree import HARD_LINK, Entry, Reader
from proa.errors import Corrupt, HostError
from proa.image.layer import sparse, tar, writer
from proa.image.machine.ledger import Ledger
from proa.image.machine.sorting import Verdict, judge

BYTES_MAXIMUM = 1 << 40
ENTRIES_MAXIMUM = 10_000_000
_XATTR, _SPARSE = 4, 16  # docs/protocol.md, `changes`
_PIECE = struct.Struct("<2Q")
_PIECES_MAXIMUM = 1024
More = tuple[dict[bytes, bytes], list[tuple[int, int]] | None, int]
_XATTRS_MAXIMUM = 1 << 18
_NOTED_MAXIMUM = 64 << 20  # of all files together that are looked at
_KINDS = {
    stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCKDEV, stat.S_IFIFO: tar.FIFO,
}  # fmt: skip
_NOTED = re.compile(
    r"var/lib/dpkg/info/[^/]+\.list|(?:usr/lib|etc)/os-release|"
    r"(?:usr/lib|lib|etc)/systemd/system/[^/]+\.service"
)
_WANTED_BY = re.compile(r"etc/systemd/system/[^/]+\.wants/([^/]+\.service)")
_SHELLS = ("bin/bash", "usr/bin/bash", "bin/sh", "usr/bin/sh")


@dataclass
class Passing:
    """What is learnt of a tree while it passes by."""

    ledger: Ledger
    noted: dict[str, bytes] = field(default_factory=dict)
    enabled: list[str] = field(default_factory=list)
    shells: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    newest_ns: int = 0
    has_rpm: bool = False
    _noted_bytes: int = 0

    def layer(self, reader: Reader) -> Iterator[bytes]:
        """The tar of what an image takes of the tree."""
        attributes: dict[bytes, bytes] = {}
        total = 0
        for _ in range(ENTRIES_MAXIMUM):
            entry = reader.entry()
            if entry is None:
                yield bytes(2 * tar.BLOCK)
                return
            if entry.flags & _XATTR:
                _collect(attributes, entry, reader)
                continue
            whole = entry.size
            segments = _map(entry, reader) if entry.flags & _SPARSE else None
            if segments is not None:
                entry = replace(entry, size=sum(length for _, length in segments))
            total += entry.size
            if total > BYTES_MAXIMUM:
                raise Corrupt(f"the disk's files have more than '{BYTES_MAXIMUM}' bytes")
            yield from self._member(entry, reader, (attributes, segments, whole))
            attributes = {}
        raise Corrupt("the disk has too many files")

    def _member(self, entry: Entry, reader: Reader, more: More) -> Iterator[bytes]:
        path = entry.path.partition("/")[2]
        directory = stat.S_ISDIR(entry.mode)
        hard = bool(entry.flags & HARD_LINK)
        size = entry.size if stat.S_ISREG(entry.mode) and not hard else 0  # what is stored
        verdict = judge(path, directory=directory) if path else Verdict(True, "")
        link = entry.link.partition("/")[2] if hard else entry.link
        if hard and verdict.kept and not judge(link, directory=False).kept:
            self.problems.append(f"'{path}' is another name of '{link}', which is left out")
            verdict = Verdict(False, "names of what is left out")
        self.ledger.add(path, size, verdict)
        if hard:
            self.ledger.alias(link, path)
        if not verdict.kept:
            for _ in reader.content(entry) if size else ():
                pass
            return
        self._note_name(path, entry, directory)
        yield writer.header(_member_of(path, link, entry, more))
        yield from self._content(path, reader.content(entry) if size else iter(()), size)

    def _note_name(self, path: str, entry: Entry, directory: bool) -> None:
        self.newest_ns = max(self.newest_ns, 0 if directory else _signed(entry.mtime_ns))
        wanted = _WANTED_BY.fullmatch(path)
        if wanted and len(self.enabled) < 1000:
            self.enabled.append(wanted[1])
        self.has_rpm = self.has_rpm or path in ("usr/bin/rpm", "bin/rpm")
        if path in _SHELLS:
            self.shells.append("/" + path)

    def _content(self, path: str, pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
        noted = _NOTED.fullmatch(path) and self._noted_bytes + size <= _NOTED_MAXIMUM
        kept: list[bytes] = []
        for data in pieces:
            if noted:
                kept.append(data)
            yield data
        if noted:
            self._noted_bytes += size
            self.noted[path] = b"".join(kept)
        if size % tar.BLOCK:
            yield bytes(-size % tar.BLOCK)

    def units(self) -> dict[str, str]:
        """Unit files by name; those of /etc win."""
        found: dict[str, str] = {}
        for path, data in sorted(self.noted.items(), reverse=True):  # usr/, lib/, etc/
            if path.endswith(".service"):
                found[path.rpartition("/")[2]] = data.decode("utf-8", "replace")
        return found

    def os_release(self) -> dict[str, str]:
        """The distribution's words about itself."""
        text = self.noted.get("usr/lib/os-release") or self.noted.get("etc/os-release") or b""
        pairs = (
            line.partition("=") for line in text[:65536].decode("utf-8", "replace").split("\n")
        )
        return {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}

    def dpkg_owners(self) -> dict[str, str]:
        """Packages by path, of dpkg's lists."""
        owners: dict[str, str] = {}
        for path, data in self.noted.items():
            if path.endswith(".list"):
                package = path.rpartition("/")[2][: -len(".list")].partition(":")[0]
                for line in data.decode("utf-8", "surrogateescape").splitlines():
                    owners[line.lstrip("/")] = package
        return owners


def _collect(attributes: dict[bytes, bytes], entry: Entry, reader: Reader) -> None:
    known = sum(len(key) + len(value) for key, value in attributes.items())
    if known + len(entry.link) + entry.size > _XATTRS_MAXIMUM:
        raise Corrupt("the guest sent too many extended attributes")
    value = b"".join(reader.content(entry))
    name = os.fsencode(entry.link)
    if name == b"security.capability" or (name.startswith(b"user.") and b"=" not in name):
        attributes[name] = value


def _map(entry: Entry, reader: Reader) -> list[tuple[int, int]]:
    """Where the pieces of a sparse file belong; only they follow."""
    if not stat.S_ISREG(entry.mode) or entry.major > _PIECES_MAXIMUM:
        raise Corrupt("the guest sent a malformed map of a sparse file")
    data = b"".join(reader.content(replace(entry, size=entry.major * _PIECE.size)))
    segments: list[tuple[int, int]] = list(_PIECE.iter_unpack(data))
    sparse.check(entry.size, segments, sum(length for _, length in segments))
    return segments


def _member_of(path: str, link: str, entry: Entry, more: More) -> tar.Entry:
    attributes, segments, size = more
    kind = tar.HARDLINK if entry.flags & HARD_LINK else _KINDS.get(stat.S_IFMT(entry.mode))
    if kind is None:
        raise HostError("the guest sent an unknown kind of file")
    device = kind in (tar.CHARACTER, tar.BLOCKDEV)
    return tar.Entry(
        os.fsencode(path or "."), kind, stat.S_IMODE(entry.mode), entry.uid, entry.gid,
        size if kind == tar.FILE else 0, _signed(entry.mtime_ns), os.fsencode(link),
        entry.major if device else 0, entry.minor if device else 0, attributes, segments,
        entry.size,
    )  # fmt: skip


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
