"""Layers as tars: one layer with its marks, or all of them merged.

The same tree gives the same bytes: a directory comes before what is in it, its files before its
directories, each sorted by name; times are whole seconds, as Docker and BuildKit write them.
Memory does not grow with files' sizes, only with one directory's names and with hard links.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from proa.errors import Corrupt, Unsupported
from proa.image.layer import tar
from proa.image.layer.member import MAXIMUM_PATH
from proa.image.layer.merged import Directory, Merged
from proa.image.layer.stream import CHUNK
from proa.image.layer.tar import Entry
from proa.image.layer.writer import Sink, Writer

WHITEOUT = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"

_KINDS = {
    stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCKDEV, stat.S_IFIFO: tar.FIFO,
}  # fmt: skip
_SECOND_NS = 10**9
_KEPT_XATTRS = (
    "security.capability", "system.posix_acl_access", "system.posix_acl_default",
)  # fmt: skip
_CAPABILITY = struct.Struct("<IIIIII")  # struct vfs_ns_cap_data of linux/capability.h
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO)  # of a running instance: removed or replaced
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def pack(
    root: Path,
    sink: Sink,
    epoch_seconds: int | None = None,
    *,
    omit: Container[bytes] = (),
) -> None:
    """Write an overlayfs upper directory as an OCI layer tar; times after the epoch become it.

    Whiteouts become `.wh.` names.  Left out are sockets, overlayfs's own attributes and the
    relative paths in `omit` with what is below them.  Raises
    Unsupported for what a layer cannot express, OSError when the tree cannot be read.
    """
    _pack((root,), _Packer(Writer(sink), epoch_seconds, omit, marks=True))


def pack_merged(
    layers: Sequence[Path],
    sink: Sink,
    epoch_seconds: int | None = None,
    *,
    omit: Container[bytes] = (),
) -> None:
    """Write the file system that these layers (topmost first) give as one plain tar."""
    _pack(layers, _Packer(Writer(sink), epoch_seconds, omit, marks=False))


def _is_plain(root: Entry) -> bool:
    """Whether a root says nothing that is not so anyway: Docker's layers leave it out, too."""
    return (root.mode, root.uid, root.gid) == (0o755, 0, 0) and not root.xattrs


def _pack(layers: Sequence[Path], packer: _Packer) -> None:
    with Merged(layers) as files:
        pending: list[tuple[bytes, Sequence[int]]] = [(b"", range(files.count))]
        while pending:
            path, having = pending.pop()
            try:
                with files.directory(path, having) as directory:
                    below = packer.directory(path, directory)
            except FileNotFoundError:  # of a running instance
                continue
            pending += reversed(below)
    packer.writer.finish()


class _Packer:
    def __init__(
        self, writer: Writer, epoch_seconds: int | None, omit: Container[bytes], *, marks: bool
    ) -> None:
        self.writer = writer
        self._omit = omit
        self._epoch_ns = None if epoch_seconds is None else epoch_seconds * _SECOND_NS
        self._marks = marks
        self._first_names: dict[tuple[int, int], bytes] = {}

    def directory(self, path: bytes, directory: Directory) -> list[tuple[bytes, Sequence[int]]]:
        """Write a directory and what is in it, but for its directories: they are returned."""
        if len(path) > MAXIMUM_PATH:
            raise Unsupported("a path in the file system is too long for an archive")
        status = os.fstat(directory.top)
        entry = self._entry(path + b"/" if path else b"./", status)
        entry.xattrs = _xattrs(directory.top)
        if path or not self._marks or not _is_plain(entry):
            self.writer.add(entry)
        before = path + b"/" if path else b""
        if self._marks:
            self._add_marks(before, directory, entry.mtime_ns)
        below: list[tuple[bytes, Sequence[int]]] = []
        for name, found in sorted(directory.names.items()):
            if self._marks and name.startswith(WHITEOUT):
                shown = os.fsdecode(before + name)
                raise Unsupported(f"a layer cannot have a file of the name '/{shown}'")
            if before + name in self._omit:
                continue
            if stat.S_ISDIR(found.status.st_mode):
                below.append((before + name, found.layers))
            else:
                parent = directory.descriptors[found.layers[0]]
                self._leaf(parent, name, before + name, found.status)
        return below

    def _add_marks(self, before: bytes, directory: Directory, mtime_ns: int) -> None:
        """Marks come first, so that a reader need not look back (OCI image-spec, layer.md)."""
        marks = [OPAQUE_WHITEOUT] if directory.opaque and before else []
        marks += [WHITEOUT + name for name in sorted(directory.hidden)]
        for mark in marks:
            self.writer.add(Entry(before + mark, tar.FILE, 0, 0, 0, 0, mtime_ns))

    def _leaf(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        entry = self._entry(path, status)
        if status.st_nlink > 1:
            first = self._first_names.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                entry.kind, entry.link = tar.HARDLINK, first
                self.writer.add(entry)
                return
        try:
            if kind == stat.S_IFREG:
                self._file(parent, name, entry, status)
                return
            if kind == stat.S_IFLNK:
                entry.link = os.readlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return
        self.writer.add(entry)

    def _file(self, parent: int, name: bytes, entry: Entry, status: os.stat_result) -> None:
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            entry.xattrs = _xattrs(fd)
            if not os.path.samestat(status, os.fstat(fd)):
                return
            entry.size = status.st_size
            self.writer.add(entry, _content(fd, entry.size))
        finally:
            os.close(fd)

    def _entry(self, path: bytes, status: os.stat_result) -> Entry:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        mtime_ns = status.st_mtime_ns // _SECOND_NS * _SECOND_NS
        if self._epoch_ns is not None:
            mtime_ns = min(mtime_ns, self._epoch_ns)
        device = kind in (tar.CHARACTER, tar.BLOCKDEV)
        return Entry(
            path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, 0, mtime_ns,
            major=os.major(status.st_rdev) if device else 0,
            minor=os.minor(status.st_rdev) if device else 0,
        )  # fmt: skip


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes, however the file changes meanwhile: cut, or filled with zeros."""
    while size:
        data = os.read(fd, min(size, CHUNK)) or bytes(min(size, CHUNK))
        size -= len(data)
        yield data


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """What belongs to the file; never overlayfs's own notes, nor labels of this host."""
    found: dict[bytes, bytes] = {}
    for name in os.listxattr(fd):
        if name.startswith("trusted.overlay.") and name.endswith((".redirect", ".metacopy")):
            raise Corrupt("a file's content is not in its layer: redirected by overlayfs")
        if name in _KEPT_XATTRS or (
            name.startswith("user.") and not name.startswith("user.overlay.")
        ):
            found[os.fsencode(name)] = os.getxattr(fd, name)
    if capability := found.get(b"security.capability"):
        found[b"security.capability"] = plain_capability(capability)
    return found


def plain_capability(value: bytes) -> bytes:
    """A file capability of the initial user namespace without saying so (revision 3 to 2)."""
    if len(value) != _CAPABILITY.size:
        return value
    magic, *sets, root_uid = _CAPABILITY.unpack(value)
    if magic & _REVISION_MASK != _REVISION_3 or root_uid:
        return value
    return struct.pack("<IIIII", magic & ~_REVISION_MASK | _REVISION_2, *sets)
