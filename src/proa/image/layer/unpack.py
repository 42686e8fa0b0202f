"""Unpacking one layer into a directory that overlayfs takes as a lower.

A layer is somebody else's tar.  Every parent directory is opened with `openat2(RESOLVE_IN_ROOT)`
and every member made relative to that descriptor with `O_NOFOLLOW` or `O_EXCL`, so `..`, absolute
names, links and replaced parents end inside the directory or are refused.  Whiteouts become what
overlayfs wants: a 0:0 character device, and `trusted.overlay.opaque` on a directory.  Ids stay
the image's (0 is root).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, Unsupported
from proa.image.layer import member, tar, tree
from proa.image.layer.stream import Source, write_all
from proa.image.layer.tar import Entry

OPAQUE = b"trusted.overlay.opaque"
_WHITEOUT = b".wh."
_OPAQUE_WHITEOUT = b".wh..wh..opq"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOREIGN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")
_XATTR_ABSENT = (errno.EOPNOTSUPP, errno.EPERM)
_MALFORMED = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EINVAL,
    errno.EXDEV, errno.EMLINK, errno.EFBIG, errno.EPERM, errno.EOVERFLOW,
)  # fmt: skip


@dataclass(frozen=True)
class Unpacked:
    """What a layer holds: bytes of its files, and whether it hides anything of layers below."""

    size_bytes: int
    hides: bool


def unpack(
    source: Source, root: Path, trash: Path, accept: Callable[[Entry], bool] | None = None
) -> Unpacked:
    """Unpack a plain tar into the directory `root`, an empty one or one filled by us.

    What later members replace is moved to the directory `trash`, on the same file system.
    `accept` may change an entry before it is made, or leave it out.
    """
    with _Unpacker(root, trash) as unpacker:
        reader = tar.Reader(source)
        for count, entry in enumerate(reader):
            if count >= member.MAXIMUM_ENTRIES:
                raise Corrupt(f"the layer has more than '{member.MAXIMUM_ENTRIES}' entries")
            if accept is None or accept(entry):
                unpacker.add(entry, reader.chunks())
        return unpacker.finish()


class _Unpacker:
    def __init__(self, root: Path, trash: Path) -> None:
        self._root = os.open(root, tree.DIRECTORY)
        self._trash = os.open(trash, tree.DIRECTORY)
        self._replaced = 0
        self._directories = tree.Directories(self._root)
        self._times: dict[bytes, int] = {}
        self._size = 0
        self._holes = member.Holes("layer")
        self._hides = False
        self._makers: dict[str, Callable[[Entry, int, bytes], None]] = {
            tar.DIRECTORY: self._directory, tar.SYMLINK: self._symlink,
            tar.HARDLINK: self._hardlink, tar.FIFO: self._special,
            tar.CHARACTER: self._special, tar.BLOCKDEV: self._special,
        }  # fmt: skip

    def __enter__(self) -> _Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.close()
        os.close(self._root)
        os.close(self._trash)

    # -- one entry ------------------------------------------------------------------------------

    def add(self, entry: Entry, data: Iterator[memoryview]) -> None:
        path = member.path(entry.name, "layer")
        member.check_owner(entry)
        try:
            self._add(entry, path, data)
        except OSError as error:
            if error.errno not in _MALFORMED:
                raise
            raise Corrupt(f"cannot unpack '{member.show(path)}': {error.strerror}") from error
        except (ValueError, OverflowError) as error:
            raise Corrupt(f"cannot unpack '{member.show(path)}': {error}") from error

    def _add(self, entry: Entry, path: bytes, data: Iterator[memoryview]) -> None:
        parent_path, _, name = path.rpartition(b"/")
        if not name:
            if entry.kind != tar.DIRECTORY:
                raise Corrupt("the root of the layer is not a directory")
            self._own_open(self._root, entry)
            self._times[b""] = entry.mtime_ns
            return
        parent = self._directories.made(parent_path)
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
        elif entry.kind == tar.FILE:
            self._file(entry, parent, name, data)
        else:
            self._makers[entry.kind](entry, parent, name)
            if entry.kind == tar.DIRECTORY:
                self._times[path] = entry.mtime_ns

    def _file(self, entry: Entry, parent: int, name: bytes, data: Iterator[memoryview]) -> None:
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._replace(entry, parent, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.segments is None:
                for chunk in data:
                    write_all(fd, chunk)
            else:
                self._holes.write(fd, entry, data)
            self._own_open(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self._size += entry.stored

    def _directory(self, entry: Entry, parent: int, name: bytes) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            there = os.lstat(name, dir_fd=parent)
            if not stat.S_ISDIR(there.st_mode):
                opaque = _is_whiteout(there)
                parent = self._replace(entry, parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, tree.DIRECTORY, dir_fd=parent)
        try:
            self._own_open(fd, entry)
            if opaque:
                os.setxattr(fd, OPAQUE, b"y")
        finally:
            os.close(fd)

    def _symlink(self, entry: Entry, parent: int, name: bytes) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            parent = self._replace(entry, parent, name)
            os.symlink(entry.link, name, dir_fd=parent)
        self._own(entry, parent, name)

    def _hardlink(self, entry: Entry, parent: int, name: bytes) -> None:
        target = member.path(entry.link, "layer")
        if not target:
            raise Corrupt(f"'{member.show(entry.name)}' is a hard link to the root")
        source = self._directories.existing(posixpath.dirname(target))
        base = posixpath.basename(target)
        try:
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if _same(source, base, parent, name):
                return
            parent = self._replace(entry, parent, name)
            source = self._directories.existing(posixpath.dirname(target))
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _special(self, entry: Entry, parent: int, name: bytes) -> None:
        kind = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK}
        device = member.device(entry)
        mode = kind[entry.kind] | entry.mode
        try:
            os.mknod(name, mode, device, dir_fd=parent)
        except FileExistsError:
            parent = self._replace(entry, parent, name)
            os.mknod(name, mode, device, dir_fd=parent)
        self._hides |= entry.kind == tar.CHARACTER and device == 0
        self._own(entry, parent, name)

    # -- whiteouts ------------------------------------------------------------------------------

    def _whiteout(self, parent: int, name: bytes) -> None:
        """Hide what layers below have; what this layer itself brings stays."""
        if name == _OPAQUE_WHITEOUT:
            os.setxattr(parent, OPAQUE, b"y")
            self._hides = True
            return
        if name.startswith(_WHITEOUT * 2):  # other notes of AUFS to itself
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Corrupt(f"invalid whiteout '{member.show(name)}'")
        self._hides = True
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(hidden, dir_fd=parent).st_mode):
                fd = os.open(hidden, tree.DIRECTORY, dir_fd=parent)
                try:
                    os.setxattr(fd, OPAQUE, b"y")
                finally:
                    os.close(fd)

    def _replace(self, entry: Entry, parent: int, name: bytes) -> int:
        """Move what is in the way out of the layer; gives the parent, opened anew.

        A removed name may have been part of how any known directory was reached.
        """
        self._replaced += 1
        os.rename(name, b"%d" % self._replaced, src_dir_fd=parent, dst_dir_fd=self._trash)
        return self._directories.only(posixpath.dirname(member.path(entry.name, "layer")), parent)

    # -- attributes -----------------------------------------------------------------------------

    def _own_open(self, fd: int, entry: Entry) -> None:
        """Owner, mode, attributes, in the order in which none undoes another."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            _set_xattr(fd, name, value)

    def _own(self, entry: Entry, parent: int, name: bytes) -> None:
        """The same for what cannot be opened: symlinks, devices, fifos."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)  # made here a moment ago: no symlink
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def finish(self) -> Unpacked:
        """Directories' times, now that nothing is made in them any more."""
        for path, mtime_ns in self._times.items():
            try:
                fd = tree.open_directory(self._root, path)
            except OSError:
                continue  # replaced by a later entry
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        return Unpacked(self._size, self._hides)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _same(source: int, base: bytes, parent: int, name: bytes) -> bool:
    return os.path.samestat(os.lstat(base, dir_fd=source), os.lstat(name, dir_fd=parent))


def _set_xattr(fd: int, name: bytes, value: bytes) -> None:
    if name.startswith(_FOREIGN_XATTRS):
        return
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno in _XATTR_ABSENT:
            return
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
            raise Unsupported(
                f"the attribute '{member.show(name)}' of '{len(value)}' bytes is too large here"
            ) from error
        raise
