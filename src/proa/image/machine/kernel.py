"""The kernel an image brings: where distributions put it, and its modules."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image.machine import tree

_PREFIX = "vmlinuz-"
_MODULE_MAXIMUM_BYTES = 32 << 20
_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_DIRECTORIES = ("usr/lib/modules", "lib/modules")


@dataclass(frozen=True)
class Found:
    """A kernel (a bzImage) and, by file name, its modules; paths are good while it is open.

    No part of those paths is a link, whatever the image has.
    """

    release: str
    image: bytes
    modules: dict[str, Path]
    builtin: frozenset[str]


@contextmanager
def find(root: int, given: bytes = b"") -> Iterator[Found | None]:
    """The image's newest kernel, or the `given` one with the image's modules for its release."""
    release, image = (release_of(given), given) if given else _newest(root)
    if not image:
        yield None
        return
    directory = _open_modules(root, release)
    try:
        modules = _modules(directory) if directory >= 0 else {}
        yield Found(release, image, modules, _builtin(directory) if directory >= 0 else frozenset())
    finally:
        if directory >= 0:
            os.close(directory)


def is_kernel(image: bytes) -> bool:
    """Whether it is a bzImage (x86 boot protocol 2.00)."""
    return len(image) >= 0x400 and image[0x202:0x206] == b"HdrS"


def release_of(image: bytes) -> str:
    """The release a bzImage names.  Raises Corrupt for anything else."""
    if not is_kernel(image):
        raise Corrupt("the kernel is not a bzImage", hint="give a 'vmlinuz'")
    start = struct.unpack_from("<H", image, 0x20E)[0] + 0x200
    text = image[start : start + 128].split(b"\0")[0].decode("ascii", "replace")
    return text.partition(" ")[0]


def _newest(root: int) -> tuple[str, bytes]:
    found = [name for name in tree.names(root, "boot") if name.startswith(_PREFIX)]
    for name in sorted(found, key=_version, reverse=True):
        image = tree.read(root, f"boot/{name}")
        if image and is_kernel(image) and "rescue" not in name:
            return name.removeprefix(_PREFIX), image
    for library in _DIRECTORIES:
        for release in sorted(tree.names(root, library), key=_version, reverse=True):
            image = tree.read(root, f"{library}/{release}/vmlinuz")
            if image and is_kernel(image):
                return release, image
    return "", b""


def _version(name: str) -> tuple[int, ...]:
    numbers = "".join(letter if letter.isdigit() else " " for letter in name).split()
    return tuple(int(number[:9]) for number in numbers)


def _open_modules(root: int, release: str) -> int:
    if not release or "/" in release or release.startswith("."):
        return -1
    for library in _DIRECTORIES:
        try:
            return files.open_in_root(root, f"{library}/{release}", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
    return -1


def _modules(directory: int) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for where, _, plain, fd in os.fwalk(".", dir_fd=directory):
        for name in plain:
            if not name.endswith(_SUFFIXES):
                continue
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISREG(facts.st_mode) and facts.st_size <= _MODULE_MAXIMUM_BYTES:
                found[name] = Path(f"/proc/self/fd/{directory}", where, name)
    return found


def _builtin(directory: int) -> frozenset[str]:
    text = tree.read(directory, "modules.builtin", 1 << 20) or b""
    lines = text.decode("utf-8", "replace").split()
    return frozenset(line.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_") for line in lines)
