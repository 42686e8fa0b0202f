"""A tar stream from an instance, unpacked here without trusting it.

Whoever controls the instance controls the stream.  Every directory on the way to an entry is opened
by descriptor, one component at a time, without following a symbolic link: neither `..`, nor an
absolute name, nor a link made by an earlier entry leads out of the destination.  Devices are left
out, and set-user-id bits are dropped: the copy belongs to whoever runs the command.
"""

from __future__ import annotations

import os
import sys
import tarfile
from typing import IO, cast

from proa.errors import Corrupt, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Source(Protocol):
        """What a tar is read from."""

        def read(self, size: int, /) -> bytes: ...


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 256 * 1024
PERMISSIONS = 0o777


def unpack(source: Source, directory: str, name: str | None, *, keep_owner: bool) -> None:
    """Unpack below `directory`; the stream's first component becomes `name`, or goes away.

    With None every name stays as it is.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stream = cast("IO[bytes]", source)  # a stream archive only ever calls read
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            _Unpacker(root, name, keep_owner).run(archive)
    except tarfile.TarError as error:
        raise Corrupt(f"the tar from the instance is broken: {error}") from error
    finally:
        os.close(root)


def components(name: str) -> list[str]:
    """The parts of an entry's name.  Raises Corrupt for one that climbs."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Corrupt(f"the tar from the instance has the entry '{name}', which leads elsewhere")
    return parts


class _Unpacker:
    def __init__(self, root: int, name: str | None, keep_owner: bool) -> None:
        self._root = root
        self._name = name
        self._keep_owner = keep_owner
        self._finished: list[tuple[list[str], tarfile.TarInfo]] = []

    def run(self, archive: Iterable[tarfile.TarInfo]) -> None:
        """Make every entry; directories get mode and time last, when nothing is put in them."""
        assert isinstance(archive, tarfile.TarFile)
        for entry in archive:
            parts = self._renamed(components(entry.name))
            if parts:
                self._make(archive, entry, parts)
        for parts, entry in reversed(self._finished):
            descriptor = self._open(parts)
            try:
                self._finish(descriptor, entry)
            finally:
                os.close(descriptor)

    def _renamed(self, parts: list[str]) -> list[str]:
        if self._name is None:
            return parts
        return ([self._name] if self._name else []) + parts[1:]

    def _make(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str]) -> None:
        parent = self._open(parts[:-1], create=True)
        try:
            if entry.isdir():
                self._directory(parent, parts, entry)
            elif entry.isreg():
                self._file(parent, parts[-1], archive, entry)
            elif entry.issym():
                self._symlink(parent, parts[-1], entry)
            elif entry.islnk():
                self._hard_link(parent, parts[-1], entry)
            elif entry.isfifo():
                _clear(parent, parts[-1])
                os.mkfifo(parts[-1], entry.mode & PERMISSIONS, dir_fd=parent)
            else:
                sys.stderr.write(f"warning: left out the device '{entry.name}'\n")
        except IsADirectoryError:
            raise ProaError(f"a directory is in the way of '{'/'.join(parts)}'") from None
        finally:
            os.close(parent)

    def _open(self, parts: list[str], *, create: bool = False) -> int:
        """A descriptor of a directory below the root, reached without following a link."""
        here = os.dup(self._root)
        for part in parts:
            try:
                following = _enter(here, part, create)
            except OSError as error:
                raise Corrupt(
                    f"the tar from the instance needs the directory '{'/'.join(parts)}', "
                    f"and '{part}' is none"
                ) from error
            finally:
                os.close(here)
            here = following
        return here

    def _directory(self, parent: int, parts: list[str], entry: tarfile.TarInfo) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            os.close(os.open(parts[-1], _DIRECTORY, dir_fd=parent))
        self._finished.append((parts, entry))

    def _file(
        self, parent: int, name: str, archive: tarfile.TarFile, entry: tarfile.TarInfo
    ) -> None:
        content = archive.extractfile(entry)
        assert content is not None
        _clear(parent, name)
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        with open(descriptor, "wb") as file:
            while data := content.read(_COPY_BYTES):
                file.write(data)
            file.flush()
            self._finish(descriptor, entry)

    def _symlink(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        _clear(parent, name)
        os.symlink(entry.linkname, name, dir_fd=parent)
        if self._keep_owner:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)

    def _hard_link(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        *where, last = self._renamed(components(entry.linkname))
        directory = self._open(where)
        try:
            _clear(parent, name)
            os.link(last, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise Corrupt(f"the tar links '{entry.name}' to a missing '{entry.linkname}'") from None
        finally:
            os.close(directory)

    def _finish(self, descriptor: int, entry: tarfile.TarInfo) -> None:
        if self._keep_owner:
            os.fchown(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, entry.mode & PERMISSIONS)
        nanoseconds = int(entry.mtime * 1e9)
        os.utime(descriptor, ns=(nanoseconds, nanoseconds))


def _enter(directory: int, name: str, create: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        if not create:
            raise
    os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _clear(parent: int, name: str) -> None:
    """Remove what is at `name`, itself and not what it links to; never a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
