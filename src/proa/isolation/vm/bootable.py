"""Kernel and first file system of a disk that boots without Proa."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proa.isolation.vm import extras, initramfs, modules

_ESSENTIAL = ("ext4",)


@dataclass(frozen=True)
class Modules:
    """Drivers in the order to load them."""

    loaded: list[tuple[str, bytes]]


def ours(kernel: Path) -> tuple[bytes, Modules]:
    """Proa's guest kernel, from its prepared directory, with its drivers."""
    return extras.image(kernel), Modules(extras.load(kernel, extras.DRIVERS))


def theirs(files: Mapping[str, Path], builtin: frozenset[str]) -> Modules:
    """The drivers of another kernel: modules by file name.  Raises Unsupported without ext4."""
    tree = modules.Tree({modules.name_of(name): path for name, path in files.items()}, builtin)
    if not files and not builtin:
        return Modules([])  # everything is built in, or it will not find its root
    names = modules.order(tree, _ESSENTIAL, modules.DRIVERS)
    return Modules([(name, modules.read(tree.files[name])) for name in names])


def first_files(init: bytes, drivers: Modules, files: Mapping[str, bytes]) -> bytes:
    """The initramfs, compressed; drivers may refuse to load but for the root's file system."""
    archive = initramfs.build(init, drivers.loaded, files.items(), _ESSENTIAL)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(archive) + packer.flush()
