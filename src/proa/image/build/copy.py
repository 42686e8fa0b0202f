"""COPY and ADD of files: what the sources mean, their digest, and writing them at the destination.

The rules are BuildKit's (solver/llbsolver/file and fsutil/copy), so that the same line gives the
same files: a directory's content is copied, a link named as source is followed, what is below it
is not, and directories that are made belong to `--chown`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from proa.errors import Invalid
from proa.image.build import archive, walk
from proa.image.build.ignore import Ignore
from proa.image.build.place import Manner, Target
from proa.image.build.walk import Filter, Item, Walker
from proa.image.build.wildcards import has_wildcard
from proa.image.layer.stream import STANDARD_BOUNDS, Bounds


@dataclass(frozen=True)
class Part:
    """One thing to copy: `place` in the tree, `name` what it is called at the destination.

    `unpack`: an archive's members are meant, not itself.
    """

    walker: Walker
    place: str
    name: str
    include: Filter | None = None
    exclude: Filter | None = None
    unpack: bool = False
    bounds: Bounds = STANDARD_BOUNDS  # of what is unpacked

    def items(self) -> Iterator[Item]:
        """Everything of it, parents first."""
        return self.walker.walk(self.place, self.include, self.exclude)


def filter_of(patterns: Sequence[str]) -> Filter | None:
    """The files patterns of `--exclude` mean; None for no pattern."""
    if not patterns:
        return None
    ignore = Ignore.of(patterns)
    return Filter(ignore.matches, ignore.may_hold)


def _only(pattern: str) -> Filter:
    """All but what the pattern, or one of its parents, matches."""
    ignore = Ignore.of([pattern], "--parents")
    return Filter(lambda path: not ignore.matches(path))


@dataclass(frozen=True)
class Wanted:
    """The sources of one instruction, as they are written."""

    sources: tuple[str, ...]
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool = False
    bounds: Bounds = STANDARD_BOUNDS


def parts(walker: Walker, wanted: Wanted) -> list[Part]:
    """What the sources mean in a tree.  Raises Invalid when one that is no pattern is missing."""
    exclude = filter_of(wanted.excludes)
    found: list[Part] = []
    for source in wanted.sources:
        if wanted.parents:
            found += _with_parents(walker, source, exclude)
            continue
        for path in walker.find(source):
            place = _resolved(walker, path, source)
            name = posixpath.basename(path)
            found.append(Part(walker, place, name, None, exclude, wanted.unpack, wanted.bounds))
    return found


def _with_parents(walker: Walker, source: str, exclude: Filter | None) -> Iterator[Part]:
    """`--parents`: the path behind the pivot `/./` is kept."""
    top, pivot, pattern = source.partition("/./")
    if not pivot:
        top, pattern = "/", source
    pattern = posixpath.normpath("/" + pattern).lstrip("/")
    if not has_wildcard(top) and not has_wildcard(pattern):
        _resolved(walker, posixpath.normpath(f"/{top}/{pattern}").lstrip("/"), source)
    for path in walker.find(top):
        include = _only(pattern) if pattern else None
        yield Part(walker, _resolved(walker, path, source), "", include, exclude)


def _resolved(walker: Walker, path: str, source: str) -> str:
    place = walker.resolve(path)
    if place is None:
        raise Invalid(
            f"'{source}' is not there", hint="it may be missing, or left out by .dockerignore"
        )
    return place


def digest(found: Iterable[Part]) -> str:
    """Of everything the parts hold, but for times."""
    whole = hashlib.sha256()
    for part in found:
        name = os.fsencode(part.name)
        whole.update(b"%d:" % len(name) + name + part.walker.digest(part.items()))
    return whole.hexdigest()


# -- the destination ------------------------------------------------------------------------------


def destination(directory: str, text: str) -> str:
    """An absolute destination; what its end says (`/`, `/.`) is kept as a slash."""
    path = posixpath.normpath(posixpath.join("/", directory, text)).lstrip("/")
    is_directory = text in ("", ".", "./") or text.endswith(("/", "/."))
    return f"/{path}/" if is_directory and path else f"/{path}"


def write(target: Target, found: Iterable[Part], where: str, manner: Manner) -> None:
    """Copy the parts to `where`, an absolute path of the target."""
    for part in found:
        if part.unpack and _unpack(target, part, where, manner):
            continue
        _write(target, part, where, manner)


def _write(target: Target, part: Part, where: str, manner: Manner) -> None:
    made_first = where if where.endswith("/") else posixpath.dirname(where)
    target.make_directories(target.real(made_first), manner)
    place = target.real(where)
    source = part.walker.status(part.place)
    if source is None:
        raise Invalid(f"'{part.place}' vanished while it was copied")
    is_directory = stat.S_ISDIR(source.st_mode)
    if not is_directory and target.is_directory(place):
        place = posixpath.join(place, part.name)
    there = target.is_directory(place)
    above = place if is_directory and there is None else posixpath.dirname(place)
    target.make_directories(above, manner)
    target.copy(part.walker, part.items(), place, manner)


def _unpack(target: Target, part: Part, where: str, manner: Manner) -> bool:
    """Unpack the part when it is an archive; whether it was."""
    item = next(iter(part.items()), None)
    if item is None or not stat.S_ISREG(item.status.st_mode):
        return False
    with ExitStack() as opened:
        fd = part.walker.open(item)
        opened.callback(os.close, fd)
        if not archive.is_archive(fd):
            return False
        place = target.real(where)
        target.make_directories(place, Manner(manner.owner, times_ns=manner.times_ns))
        top = walk.open_directory(target.fd, place)
        opened.callback(os.close, top)
        inside = opened.enter_context(Target(top, target.check))
        archive.unpack(fd, inside, manner.owner, part.bounds)
    return True
