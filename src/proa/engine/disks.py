"""Images made into disks that boot: the image service's parts and a kernel put together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proa import plan
from proa.engine.core import Core
from proa.errors import Invalid, Unsupported
from proa.image.catalog import Image
from proa.image.machine import disk, extents, kernel, program, tree
from proa.image.machine.command import program as host_program
from proa.image.machine.command import run
from proa.isolation import processors
from proa.isolation.vm import bootable

FORMATS = ("qcow2", "raw")
SIZE_MAXIMUM_BYTES = 16 << 40
KERNEL_MAXIMUM_BYTES = tree.KERNEL_MAXIMUM_BYTES
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62})?")
_OPTIONS = re.compile(r"[A-Za-z0-9 _.,:;=/@%+~^*()\[\]-]{0,1024}")
_OPTIONS_ALWAYS = "quiet console=tty0 console=ttyS0,115200"


@dataclass(frozen=True)
class Wanted:
    """What a disk should be; `kernel` is a bzImage, empty for the image's own or Proa's."""

    format: str = "qcow2"
    size_bytes: int = 0
    hostname: str = ""
    init: str = "auto"
    options: str = ""
    compress: bool = False
    kernel: bytes = b""

    def check(self) -> None:
        """Raises Invalid for what cannot be."""
        if self.format not in FORMATS:
            raise Invalid(f"unknown format '{self.format}'", hint=f"use {' or '.join(FORMATS)}")
        if not 0 <= self.size_bytes <= SIZE_MAXIMUM_BYTES:
            raise Invalid(f"a disk cannot have '{self.size_bytes}' bytes")
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise Invalid(f"'{self.hostname}' is not a host's name")
        if self.kernel:
            kernel.release_of(self.kernel)
        if not _OPTIONS.fullmatch(self.options):
            raise Invalid(f"kernel options '{self.options}' have letters a boot loader changes")


@dataclass(frozen=True)
class Made:
    """A finished disk; `path` is good until the next one is asked for."""

    size_bytes: int
    virtual_bytes: int
    parts: list[tuple[int, int]]
    path: Path

    def pieces(self) -> Iterator[bytes]:
        """The bytes of its parts."""
        return extents.pieces(self.path, self.parts)


def to_disk(core: Core, image: Image, wanted: Wanted) -> Iterator[str | Made]:
    """Make a disk of an image: progress, then the disk, which is gone when the iterator is."""
    wanted.check()
    if processors.is_foreign(image.details.architecture):
        raise Unsupported(
            f"a disk of an image for '{image.details.architecture}' is not made on this host",
            hint="run the image itself: --vm",
        )
    with core.images.workspace() as work:
        empty = work / "empty"
        empty.mkdir()
        yield f"reading image {image.id[7:19]}"
        with core.images.assembly() as assembly:  # holds the layers against the collector
            roots = [layer.root for layer in reversed(assembly.layers_of(image))]
            with tree.merged(tuple(dict.fromkeys(roots)), empty) as root:
                yield from _build(core, image, wanted, (root, work))
        path = work / "disk.raw"
        virtual = path.stat().st_size
        if wanted.format == "qcow2":
            yield "converting to qcow2"
            path = _converted(path, wanted.compress)
        yield Made(path.stat().st_size, virtual, extents.of(path), path)


def _build(core: Core, image: Image, wanted: Wanted, where: tuple[int, Path]) -> Iterator[str]:
    root, work = where
    what = program.of(root, image.defaults, wanted.hostname, wanted.init)
    said, found = _kernel(core, root, wanted.kernel)
    yield f"init: {what.says}"
    yield f"kernel: {said}"
    files = {
        "machine": f"{what.how} {disk.root_name(image.id)}\n".encode(),
        "plan": plan.encode(what.steps),
    }
    first = bootable.first_files(core.config.native.read_bytes(), found[1], files)
    options = [_OPTIONS_ALWAYS, wanted.options]
    if wanted.hostname and what.how == "become":
        options.insert(1, f"systemd.hostname={wanted.hostname}")
    loaded = disk.Kernel(found[0], first, " ".join(filter(None, options)))
    extent = tree.measure(root)
    layout = disk.plan_layout(image.id, loaded, extent, wanted.size_bytes)
    yield f"content: {extent.names} names, {extent.used_bytes >> 20} MiB"
    yield from disk.build(work / "disk.raw", layout, loaded, root, extent)


def _kernel(core: Core, root: int, given: bytes) -> tuple[str, tuple[bytes, bootable.Modules]]:
    """Which kernel, in words, and it with its drivers."""
    with kernel.find(root, given) as found:
        if found is not None:
            try:
                drivers = bootable.theirs(found.modules, found.builtin)
            except Unsupported as error:
                raise Unsupported(
                    f"the image's kernel '{found.release}' cannot boot it: {error.message}",
                    hint="name another one with --kernel",
                ) from error
            whose = "given" if given else "the image's own"
            if not drivers.loaded:
                whose += "; without modules: all drivers must be built in"
            return f"{found.release}, {whose}", (found.image, drivers)
    ours = core.vms.kernel()
    return f"{ours.release}, Proa's ({ours.origin})", bootable.ours(ours.directory)


def _converted(raw: Path, compress: bool) -> Path:
    path = raw.with_suffix(".qcow2")
    options = ["-c"] if compress else []
    tool = host_program("qemu-img", "qemu-utils")
    run([tool, "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)])
    raw.unlink()
    return path
