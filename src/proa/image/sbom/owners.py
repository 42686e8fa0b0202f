"""Which package a file is of, by the package managers' own lists: dpkg, apk, rpm."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from proa.errors import Corrupt, HostError, NotFound, Unsupported
from proa.image.sbom import databases, reading
from proa.image.sbom.component import short

_LIST_MAXIMUM = 16 << 20
_PAIRS_MAXIMUM = 4_000_000
_DPKG = "var/lib/dpkg"
_LIST = ".list"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM_FORMAT = "[%{=NAME}\\t%{FILENAMES}\\n]"

Pair = tuple[bytes, str]


def of(root: int, work: Path) -> dict[bytes, str]:
    """Packages by path (no slash in front) below a root; nothing where no database is known.

    What cannot be read leaves its files without a package.
    """
    for read in (_dpkg, _apk, lambda top: _rpm(top, work)):
        found = dict(itertools.islice(_readable(read, root), _PAIRS_MAXIMUM))
        if found:
            return found
    return {}


def _readable(read: Callable[[int], Iterator[Pair]], root: int) -> Iterator[Pair]:
    try:
        yield from read(root)
    except (Corrupt, HostError, NotFound, Unsupported, OSError):
        return


def _dpkg(root: int) -> Iterator[Pair]:
    """dpkg's lists of files, and distroless's sums beside its status."""
    for name in reading.names(root, f"{_DPKG}/info"):
        if name.endswith(_LIST):
            package = short(name.removesuffix(_LIST).partition(":")[0])
            text = reading.read(root, f"{_DPKG}/info/{name}", _LIST_MAXIMUM) or b""
            for line in text.split(b"\n"):
                yield line[1:], package
    for name in reading.names(root, f"{_DPKG}/status.d"):
        if name.endswith(".md5sums"):
            text = reading.read(root, f"{_DPKG}/status.d/{name}", _LIST_MAXIMUM) or b""
            for line in text.split(b"\n"):
                yield line.partition(b"  ")[2], short(name.removesuffix(".md5sums"))


def _apk(root: int) -> Iterator[Pair]:
    """Alpine's database: `P:` a package, `F:` a directory, `R:` a file in it."""
    for path in _APK:
        package, directory = "", b""
        text = reading.read(root, path, databases.MAXIMUM_DATABASE) or b""
        for line in text.split(b"\n"):
            key, value = line[:2], line[2:]
            if key == b"P:":
                package = short(value.decode(errors="replace"))
            elif key == b"F:":
                directory = value + b"/" if value else b""
            elif key == b"R:":
                yield directory + value, package


def _rpm(root: int, work: Path) -> Iterator[Pair]:
    """What the host's rpm says of a copy of the database."""
    for line in databases.ask_rpm(root, work, _RPM_FORMAT).splitlines():
        package, tab, path = line.partition("\t")
        if tab:
            yield os.fsencode(path[1:]), short(package)
