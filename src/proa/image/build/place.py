"""Writing into the root of a stage: by descriptors below it, links resolved inside it.

The root is a detached mount, or a directory, that nobody but the build can see.  What is in it
came from images and steps, so every path is resolved with the root as the root of everything
(CVE-2024-23652 and its kind), and what is replaced is removed by name, never followed.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proa.errors import Invalid
from proa.image.build import walk
from proa.image.build.walk import Item, Walker
from proa.image.layer import tree
from proa.image.layer.stream import CHUNK, write_all

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY_MODE = 0o755
MALFORMED = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EINVAL,
    errno.EXDEV, errno.EMLINK, errno.EFBIG, errno.EPERM, errno.EOVERFLOW, errno.EEXIST,
)  # fmt: skip
Check = Callable[[], None]  # raises Cancelled


@dataclass(frozen=True)
class Manner:
    """How things are written: `owner` (None: as the source has it), `mode` changes each mode,
    `made_mode` is of directories made on the way, `times_ns` of everything (None: the source's)."""

    owner: tuple[int, int] | None = None
    mode: Callable[[int], int] | None = None
    made_mode: int = DIRECTORY_MODE
    times_ns: int | None = None


@dataclass(frozen=True)
class _Open:
    """A directory that gets its attributes when everything below it is there."""

    item: Item
    place: bytes
    whole: bool  # all attributes; else times alone


class Target:
    """The root being written; close it."""

    def __init__(self, root_fd: int, check: Check) -> None:
        self.fd = root_fd
        self._check = check
        self._directories = tree.Directories(root_fd)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.close()

    def real(self, path: str) -> str:
        """`path` with links followed inside the root; what is missing stays as it is."""
        return walk.real(self.fd, path)

    def is_directory(self, place: str) -> bool | None:
        """Whether a directory is at `place`; None when nothing is."""
        status = walk.status_of(self.fd, place, follow=True)
        return None if status is None else stat.S_ISDIR(status.st_mode)

    def make_directories(self, place: str, manner: Manner) -> None:
        """Like `mkdir -p` of a path without links; what is made belongs to the manner's owner."""
        end = 0
        raw = os.fsencode(place)
        while end < len(raw):
            end = raw.find(b"/", end + 1) % (len(raw) + 1)
            status = walk.status_of(self.fd, os.fsdecode(raw[:end]))
            if status is None:
                self._make(raw[:end], manner)
            elif not stat.S_ISDIR(status.st_mode):
                raise Invalid(f"'/{os.fsdecode(raw[:end])}' is not a directory")

    def _make(self, place: bytes, manner: Manner) -> None:
        os.mkdir(posixpath.basename(place), 0o700, dir_fd=self._parent(place))
        fd = self._directories.existing(place)
        os.fchown(fd, *(manner.owner or (0, 0)))
        os.fchmod(fd, manner.made_mode)
        if manner.times_ns is not None:
            os.utime(fd, ns=(manner.times_ns, manner.times_ns))

    def _parent(self, place: bytes) -> int:
        return self._directories.existing(posixpath.dirname(place))

    # -- copying --------------------------------------------------------------------------------

    def copy(self, walker: Walker, items: Iterable[Item], place: str, manner: Manner) -> None:
        """Write a selection at `place`, whose parent is there; the first item is its top."""
        _Copy(self, walker, manner).run(items, os.fsencode(place))

    def directory(self, place: bytes) -> bool:
        """A directory at `place`; whether it was made."""
        status = self.status(place)
        if status is None:
            os.mkdir(posixpath.basename(place), 0o700, dir_fd=self._parent(place))
            return True
        if not stat.S_ISDIR(status.st_mode):
            raise Invalid(f"cannot copy a directory over the file '/{os.fsdecode(place)}'")
        return False

    def status(self, place: bytes) -> os.stat_result | None:
        """What is at `place`, links not followed."""
        if not place:
            return os.fstat(self.fd)
        try:
            return os.lstat(posixpath.basename(place), dir_fd=self._parent(place))
        except FileNotFoundError:
            return None

    def clear(self, place: bytes) -> None:
        """Remove a file that is in the way."""
        status = self.status(place)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            raise Invalid(f"cannot copy a file over the directory '/{os.fsdecode(place)}'")
        self.unlink(place)

    def unlink(self, place: bytes) -> None:
        """Remove the name of a file; paths may lead elsewhere from now on."""
        parent_path, name = posixpath.split(place)
        parent = self._parent(place)
        was_link = stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode)
        os.unlink(name, dir_fd=parent)
        if was_link:
            self._directories.only(parent_path, parent)

    def remove(self, place: bytes) -> None:
        """Remove whatever is at `place`, with all that is below it."""
        status = self.status(place)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            self.unlink(place)
            return
        waiting, directories = [place], list[bytes]()
        while waiting:
            directories.append(above := waiting.pop())
            for name in map(os.fsencode, os.listdir(self._directories.existing(above))):
                below = posixpath.join(above, name)
                there = self.status(below)
                if there is not None and stat.S_ISDIR(there.st_mode):
                    waiting.append(below)
                else:
                    self.unlink(below)
        for directory in reversed(directories):
            parent_path, name = posixpath.split(directory)
            parent = self._directories.only(parent_path, self._parent(directory))
            os.rmdir(name, dir_fd=parent)

    def new_file(self, place: bytes) -> int:
        """A new regular file, open for writing."""
        return os.open(posixpath.basename(place), _NEW, 0o600, dir_fd=self._parent(place))

    def link(self, old: bytes, new: bytes) -> None:
        """Another name for a file."""
        source, target = self._parent(old), self._parent(new)
        os.link(
            posixpath.basename(old), posixpath.basename(new), src_dir_fd=source,
            dst_dir_fd=target, follow_symlinks=False,
        )  # fmt: skip

    def symlink(self, place: bytes, text: bytes) -> None:
        """A symbolic link."""
        os.symlink(text, posixpath.basename(place), dir_fd=self._parent(place))

    def node(self, place: bytes, mode: int, device: int) -> None:
        """A fifo or a device node."""
        if stat.S_ISCHR(mode) and device == 0:
            raise Invalid(f"'/{os.fsdecode(place)}' would be overlayfs's mark of a removed file")
        os.mknod(posixpath.basename(place), mode, device, dir_fd=self._parent(place))

    def whiteout(self, place: bytes) -> None:
        """overlayfs's mark that layers below have nothing here."""
        os.mknod(posixpath.basename(place), stat.S_IFCHR, 0, dir_fd=self._parent(place))

    def own(self, place: bytes, owner: tuple[int, int], mode: int | None) -> None:
        """Owner and mode of what cannot be opened; `mode` None for a link."""
        name, parent = posixpath.basename(place), self._parent(place)
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        if mode is not None:
            os.chmod(name, mode, dir_fd=parent)  # no link: made here a moment ago

    def set_times(self, place: bytes, mtime_ns: int) -> None:
        """Access and modification time of anything."""
        times = (mtime_ns, mtime_ns)
        if not place:
            os.utime(".", ns=times, dir_fd=self.fd)  # a mount's own descriptor is no open file
            return
        name, parent = posixpath.basename(place), self._parent(place)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def opened(self, place: bytes) -> int:
        """A descriptor of a directory, good until the next few calls."""
        return self._directories.existing(place)

    def check(self) -> None:
        """Raise Cancelled when the build is."""
        self._check()


class _Copy:
    """One selection being written."""

    def __init__(self, target: Target, walker: Walker, manner: Manner) -> None:
        self._target = target
        self._walker = walker
        self._manner = manner
        self._links: dict[tuple[int, int], bytes] = {}
        self._open: list[_Open] = []

    def run(self, items: Iterable[Item], place: bytes) -> None:
        for item in items:
            self._target.check()
            self._leave(item.path)
            self._put(item, posixpath.join(place, item.path) if item.path else place)
        self._leave(None)

    def _leave(self, path: bytes | None) -> None:
        """Finish the directories that `path` is not below."""
        while self._open:
            above = self._open[-1]
            if path is not None and (
                not above.item.path or path.startswith(above.item.path + b"/")
            ):
                return
            self._open.pop()
            self._finish_directory(above)

    def _finish_directory(self, above: _Open) -> None:
        if above.whole:
            fd = self._walker.open(above.item)
            try:
                self._attributes(self._target.opened(above.place), above.item, fd)
            finally:
                os.close(fd)
        self._target.set_times(above.place, self._time(above.item))

    def _put(self, item: Item, place: bytes) -> None:
        kind = stat.S_IFMT(item.status.st_mode)
        if kind == stat.S_IFDIR:
            made = self._target.directory(place)
            # what is there already keeps its attributes when it is only on the way
            whole = made or bool(item.path and not item.late)
            self._open.append(_Open(item, place, whole))
            return
        self._target.clear(place)
        if kind == stat.S_IFREG:
            self._file(item, place)
            return
        if kind == stat.S_IFLNK:
            self._target.symlink(place, self._walker.link(item))
            self._target.own(place, self._owner(item), None)
        else:
            device = 0 if kind == stat.S_IFIFO else item.status.st_rdev
            self._target.node(place, item.status.st_mode, device)
            self._target.own(place, self._owner(item), self._mode(item))
        self._target.set_times(place, self._time(item))

    def _file(self, item: Item, place: bytes) -> None:
        status = item.status
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), place)
            if first != place:
                self._target.link(first, place)
                return
        source = self._walker.open(item)
        try:
            fd = self._target.new_file(place)
            try:
                self._content(source, fd)
                self._attributes(fd, item, source)
                os.utime(fd, ns=(self._time(item), self._time(item)))
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def _content(self, source: int, fd: int) -> None:
        left = os.fstat(source).st_size
        try:
            while left > 0 and (count := os.copy_file_range(source, fd, min(left, 64 * CHUNK))):
                left -= count
                self._target.check()
        except OSError:  # not on these file systems: what was copied is not copied again
            pass
        while data := os.read(source, CHUNK):
            write_all(fd, data)
            self._target.check()

    def _attributes(self, fd: int, item: Item, source: int) -> None:
        os.fchown(fd, *self._owner(item))
        os.fchmod(fd, self._mode(item))
        for name, value in walk.xattrs(source):
            set_xattr(fd, name, value)

    def _owner(self, item: Item) -> tuple[int, int]:
        return self._manner.owner or self._walker.owner(item)

    def _mode(self, item: Item) -> int:
        change = self._manner.mode
        mode = item.status.st_mode
        return stat.S_IMODE(mode) if change is None else change(mode)

    def _time(self, item: Item) -> int:
        return item.status.st_mtime_ns if self._manner.times_ns is None else self._manner.times_ns


def set_xattr(fd: int, name: bytes, value: bytes) -> None:
    """Keep an attribute where the file system can, unless it means something to overlayfs."""
    if name.startswith(walk.FOREIGN_XATTRS):
        return
    try:
        os.setxattr(fd, name, value)
    except OSError:
        return
