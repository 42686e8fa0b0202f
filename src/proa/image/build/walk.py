"""What COPY, ADD and bind mounts take from a tree: found, filtered, digested.

A tree is a build context, a stage or an image, all of them somebody else's: it is read through
one descriptor that is the root of everything, links included, and only regular files are opened.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proa.errors import Invalid
from proa.host import files
from proa.image.build import wildcards
from proa.image.layer import tree

MAXIMUM_LINKS = 255
MAXIMUM_PATH = 4095
MAXIMUM_NAMES = 200  # of a pattern
FOREIGN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")
_ENTRY = struct.Struct("<IIIQQ")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK = 1 << 20

Excluded = Callable[[str], bool]


@dataclass(frozen=True)
class Filter:
    """Which paths are left out; below a directory that is, something may be wanted nevertheless
    when `may_hold` says so."""

    excluded: Excluded
    may_hold: Excluded = lambda path: True


@dataclass(frozen=True)
class Tree:
    """A tree to take from.

    `ignored` is about paths from its root (`.dockerignore`); with `root_owned` every file counts
    as root's; `remember` looks up and keeps digests of unchanged files.
    """

    fd: int
    ignored: Filter | None = None
    root_owned: bool = False
    remember: Memory | None = None


class Memory:
    """Digests by what stat(2) says; the base keeps nothing."""

    def get(self, status: os.stat_result) -> bytes | None:
        """The digest of a file that has not changed since."""
        return None

    def put(self, status: os.stat_result, digest: bytes) -> None:
        """Keep it."""


@dataclass(frozen=True)
class Item:
    """One file of a selection.

    `path` is relative to what was selected, empty for itself; `place` relative to the tree.
    `late`: a directory that is there only because of something below it.
    """

    path: bytes
    place: bytes
    status: os.stat_result
    late: bool = False


def real(root_fd: int, path: str) -> str:
    """`path` with every link followed inside the root; names that do not exist stay as they are."""
    done: list[str] = []
    left = [name for name in path.split("/")[::-1] if name not in ("", ".")]
    links = 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = done[:-1]
            continue
        target = _link(root_fd, "/".join([*done, name]))
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > MAXIMUM_LINKS:
            raise Invalid(f"too many links in '{path}'")
        if target.startswith("/"):
            done = []
        left += target.split("/")[::-1]
    return "/".join(done)


def _link(root_fd: int, path: str) -> str | None:
    try:
        fd = files.open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def status_of(root_fd: int, path: str, *, follow: bool = False) -> os.stat_result | None:
    """What is at `path`; None when nothing is."""
    flags = os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW
    try:
        fd = files.open_in_root(root_fd, path or ".", flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def open_root(path: os.PathLike[str]) -> int:
    """A directory of this host, as the root of a tree."""
    return os.open(path, tree.DIRECTORY)


def open_directory(root_fd: int, place: str) -> int:
    """A directory below a root; nothing leads out of it."""
    return tree.open_directory(root_fd, os.fsencode(place))


class Walker:
    """Reads one tree; close it."""

    def __init__(self, source: Tree) -> None:
        self.source = source
        self._directories = tree.Directories(source.fd)

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.close()

    # -- what is meant --------------------------------------------------------------------------

    def find(self, pattern: str) -> list[str]:
        """The paths a source of COPY means, links not yet followed; a plain path is itself."""
        head, rest = wildcards.split(posixpath.normpath("/" + pattern))
        if not rest:
            return [head]
        match = wildcards.compiled(rest)
        if match is None:
            return []
        top = real(self.source.fd, head)
        depth = rest.count("/")
        if depth > MAXIMUM_NAMES:
            raise Invalid(f"the pattern '{pattern[:60]}...' has too many names")
        return [
            posixpath.join(top, found) if top else found
            for found in self._matching(os.fsencode(top), b"", depth, match.fullmatch)
        ]

    def _matching(
        self, top: bytes, below: bytes, depth: int, match: Callable[[str], object]
    ) -> Iterator[str]:
        """Like `filepath.Walk`, no deeper than the pattern has names."""
        for name in self._names(posixpath.join(top, below)):
            path = posixpath.join(below, name)
            status = self._status(posixpath.join(top, path))
            if status is None or self._is_ignored(posixpath.join(top, path), status):
                continue
            if match(os.fsdecode(path)):
                yield os.fsdecode(path)
            elif depth and stat.S_ISDIR(status.st_mode):
                yield from self._matching(top, path, depth - 1, match)

    def _is_ignored(self, place: bytes, status: os.stat_result) -> bool:
        ignored = self.source.ignored
        if ignored is None or not ignored.excluded(os.fsdecode(place)):
            return False
        return not (stat.S_ISDIR(status.st_mode) and ignored.may_hold(os.fsdecode(place)))

    def resolve(self, path: str) -> str | None:
        """Where `path` leads, links followed; None when nothing is there, or it is ignored."""
        place = real(self.source.fd, path)
        status = self._status(os.fsencode(place))
        if status is None or (place and self._is_ignored(os.fsencode(place), status)):
            return None
        return place

    def walk(
        self, top: str, include: Filter | None = None, exclude: Filter | None = None
    ) -> Iterator[Item]:
        """Everything wanted at and below `top`, parents first, names in order of their bytes."""
        start = os.fsencode(top)
        status = self._status(start)
        if status is None:
            return
        first = Item(b"", start, status)
        yield first
        if not stat.S_ISDIR(status.st_mode):
            return
        filters = _Filters(self.source.ignored, include, exclude)
        waiting: list[Item] = []  # directories not wanted yet, a chain
        stack = [(first, iter(self._names(start)))]
        while stack:
            parent, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if waiting and waiting[-1] is parent:
                    waiting.pop()
                continue
            item = self._item(parent, name)
            if item is None:
                continue
            wanted, enter = filters.judge(item)
            if wanted:
                yield from waiting
                waiting.clear()
                yield item
            if enter and stat.S_ISDIR(item.status.st_mode):
                if not wanted:
                    item = Item(item.path, item.place, item.status, late=True)
                    waiting.append(item)
                stack.append((item, iter(self._names(item.place))))

    def _item(self, parent: Item, name: bytes) -> Item | None:
        place = posixpath.join(parent.place, name)
        if len(place) > MAXIMUM_PATH:
            raise Invalid(f"the path '{os.fsdecode(place[:200])}...' is too long")
        status = self._status(place)
        if status is None or stat.S_ISSOCK(status.st_mode):
            return None
        return Item(posixpath.join(parent.path, name), place, status)

    # -- one file -------------------------------------------------------------------------------

    def status(self, place: str) -> os.stat_result | None:
        """What is at a path without links; None when nothing is."""
        return self._status(os.fsencode(place))

    def _names(self, place: bytes) -> list[bytes]:
        return sorted(map(os.fsencode, os.listdir(self._directories.existing(place))))

    def _status(self, place: bytes) -> os.stat_result | None:
        if not place:
            return os.fstat(self.source.fd)
        try:
            parent = self._directories.existing(posixpath.dirname(place))
            return os.lstat(posixpath.basename(place), dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, item: Item) -> int:
        """A descriptor of a regular file or a directory; never waits, never follows a link."""
        if not item.place:
            return tree.open_directory(self.source.fd, b"")
        parent = self._directories.existing(posixpath.dirname(item.place))
        fd = os.open(posixpath.basename(item.place), _OPEN, dir_fd=parent)
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(item.status.st_mode):
            os.close(fd)
            raise Invalid(f"'{os.fsdecode(item.place)}' changed while it was read")
        return fd

    def link(self, item: Item) -> bytes:
        """What a symbolic link says."""
        parent = self._directories.existing(posixpath.dirname(item.place))
        return os.readlink(posixpath.basename(item.place), dir_fd=parent)

    def owner(self, item: Item) -> tuple[int, int]:
        """Whose it is, as the image will have it."""
        return (0, 0) if self.source.root_owned else (item.status.st_uid, item.status.st_gid)

    # -- digests --------------------------------------------------------------------------------

    def digest(self, items: Iterator[Item]) -> bytes:
        """Of paths, modes, owners, attributes, targets and contents; not of times."""
        whole, links = hashlib.sha256(), dict[tuple[int, int], bytes]()
        for item in items:
            status = item.status
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            whole.update(_ENTRY.pack(status.st_mode, *self.owner(item), size, status.st_rdev))
            first = b""
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                first = links.setdefault((status.st_dev, status.st_ino), item.path)
            for text in (item.path, first, self._content(item)):
                whole.update(b"%d:" % len(text) + text)
        return whole.digest()

    def _content(self, item: Item) -> bytes:
        if stat.S_ISLNK(item.status.st_mode):
            return self.link(item)
        if not stat.S_ISREG(item.status.st_mode) and not stat.S_ISDIR(item.status.st_mode):
            return b""
        memory = self.source.remember
        known = memory.get(item.status) if memory is not None else None
        if known is not None:
            return known
        fd = self.open(item)
        try:
            before = os.fstat(fd)
            found = _digest_of(fd, before)
        finally:
            os.close(fd)
        if memory is not None:
            memory.put(before, found)
        return found


def _digest_of(fd: int, status: os.stat_result) -> bytes:
    """Of a file's bytes and of the attributes of a file or directory."""
    whole = hashlib.sha256()
    if stat.S_ISREG(status.st_mode):
        while data := os.read(fd, _CHUNK):
            whole.update(data)
    for name, value in xattrs(fd):
        whole.update(b"\0%d:" % len(name) + name + b"%d:" % len(value) + value)
    return whole.digest()


def xattrs(fd: int) -> list[tuple[bytes, bytes]]:
    """The extended attributes an image keeps, in order."""
    try:
        names = sorted(map(os.fsencode, os.listxattr(fd)))
    except OSError:
        return []
    return [(name, os.getxattr(fd, name)) for name in names if not name.startswith(FOREIGN_XATTRS)]


class _Filters:
    """All that decides about one path."""

    def __init__(
        self, ignored: Filter | None, include: Filter | None, exclude: Filter | None
    ) -> None:
        self._ignored = ignored
        self._include = include
        self._exclude = exclude

    def judge(self, item: Item) -> tuple[bool, bool]:
        """Whether the item is wanted, and whether to look below it."""
        wanted = enter = True
        for chosen, path in ((self._ignored, item.place), (self._exclude, item.path)):
            if chosen is not None and chosen.excluded(os.fsdecode(path)):
                wanted = False
                enter = enter and chosen.may_hold(os.fsdecode(path))
        if self._include is not None and self._include.excluded(os.fsdecode(item.path)):
            wanted = False
        return wanted, enter
