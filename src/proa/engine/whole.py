"""Whole machines as the engine knows them: which disk is meant, and where it is.

A disk is a file of the host's, named by its path; or the one file below `/disk/` of an image
without a command (KubeVirt's containerDisk); or a new one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proa.engine import hardware, request
from proa.engine.core import Core
from proa.engine.fields import Fields
from proa.engine.instance import Instance
from proa.errors import Corrupt, Invalid, NotFound
from proa.host import files
from proa.image.catalog import Image
from proa.image.machine import formats
from proa.image.store import Images
from proa.isolation.vm import layers
from proa.resources import Rootfs
from proa.spec import EMPTY, Hardware

DISK_DIRECTORY = "disk"  # of an image that holds one
FILES_MAXIMUM = 16  # of that directory that are looked at
_REAL_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Subject:
    """What an instance is made of: an image (or none), and the machine, its disk found."""

    image_id: str
    config: dict[str, Any]
    hardware: Hardware


@dataclass(frozen=True)
class Base:
    """`resources.Rootfs` of a whole machine: all there is of it is a disk."""

    image_id: str
    upper: Path
    path: Path
    layers: tuple[Path, ...] = ()

    def disk(self) -> Path:
        """The disk that everything lies over."""
        return self.path


def subject(core: Core, body: Any) -> Subject:
    """What a create request is about.  Raises ImageNotFound, NotFound, Invalid, Unsupported."""
    wanted = hardware.parse(body)
    fields, images = Fields(body), core.images
    name, isolation = fields.text("Image"), fields.fields("HostConfig").text("Isolation")
    machine = core.isolation(request.isolation_name(isolation)).features.machines
    if wanted.disk or (wanted.cdroms and not name) or (wanted.disk_bytes and not name):
        if name:
            raise Invalid(f"'Image' and 'Proa.Disk' are both given: '{name}', '{wanted.disk}'")
        if not machine:
            raise Invalid("a disk is run as a vm only", hint="add --vm")
        return Subject("", {}, _checked(wanted))
    image = images.get(name)
    config = image.config.get("config") or {}
    if machine and not config.get("Cmd") and not config.get("Entrypoint"):
        found = held(images, image)
        if found is not None:
            format = _format(found, wanted.format)
            hardware.check_whole(wanted)
            return Subject(image.id, config, replace(wanted, disk=image.id, format=format))
    hardware.check_image(wanted, machine=machine)
    if wanted.kernel:
        _regular(wanted.kernel, "kernel")
    return Subject(image.id, config, wanted)


def rootfs(images: Images, instance: Instance, directory: Path) -> Rootfs:
    """What an instance begins with: its image's files, or a machine's disk."""
    wanted, image_id = instance.spec.hardware, instance.record.image_id
    if not wanted.disk:
        return images.writable(images.get(image_id), directory)
    if wanted.disk == EMPTY:
        return Base("", directory, directory)
    if layers.load(directory):  # it has its disk, and that knows what it needs
        return Base(image_id, directory, Path(wanted.disk))
    path = held(images, images.get(image_id)) if image_id else Path(wanted.disk)
    if path is None:
        raise Corrupt(f"the image '{image_id}' holds no disk any more")
    _regular(str(path))
    _format(path, wanted.format)
    return Base(image_id, directory, path)


def held(images: Images, image: Image) -> Path | None:
    """The one file below `/disk/` of an image; None where there is not exactly one."""
    found: dict[str, Path] = {}
    for layer in reversed(images.layers(image)):
        for name, regular in _entries(layer):
            found.pop(name, None)
            if regular:
                found[name] = layer / DISK_DIRECTORY / name
    return next(iter(found.values())) if len(found) == 1 else None


def _entries(layer: Path) -> list[tuple[str, bool]]:
    """What is in a layer's `/disk`, where that is a real directory; and what is a regular file."""
    root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory = files.open_in_root(root, DISK_DIRECTORY, _REAL_DIRECTORY)
    except OSError:
        return []
    finally:
        os.close(root)
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry, _ in zip(entries, range(FILES_MAXIMUM), strict=False)]
        facts = (os.stat(name, dir_fd=directory, follow_symlinks=False) for name in names)
        return [(name, stat.S_ISREG(fact.st_mode)) for name, fact in zip(names, facts, strict=True)]
    finally:
        os.close(directory)


def _checked(wanted: Hardware) -> Hardware:
    """The same with its disk looked at: there, a file, of a known format that names no other."""
    hardware.check_whole(wanted)
    for path in wanted.cdroms:
        _regular(path)
    if wanted.disk in ("", EMPTY):
        return replace(wanted, disk=EMPTY, format="raw")
    _regular(wanted.disk)
    return replace(wanted, format=_format(Path(wanted.disk), wanted.format))


def _regular(path: str, what: str = "disk") -> None:
    try:
        facts = os.stat(path)
    except OSError as error:
        said = (error.strerror or "").lower()
        raise NotFound(f"cannot open the {what} '{path}': {said}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise Invalid(f"the {what} '{path}' is no regular file")


def _format(path: Path, wanted: str) -> str:
    """What a disk is; one may be called raw, but nothing else that it is not."""
    with path.open("rb") as file:
        found = formats.detect(file.read(formats.HEAD_BYTES)) if wanted != "raw" else wanted
    if wanted and wanted != found:
        raise Invalid(f"the disk '{path}' is no {wanted}, it looks like {found}")
    return found
