"""A whole machine's disk made an image that holds a disk, or told apart from its base's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from proa.engine import duplicate
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.options import CommitOptions
from proa.engine.whole import DISK_DIRECTORY
from proa.errors import Conflict
from proa.image import changes as edits
from proa.image import config as configuration
from proa.image import platforms
from proa.image.assembly import Assembly, Layer
from proa.image.catalog import Image
from proa.isolation.vm import chain, layers, qcow2, view
from proa.isolation.vm.layers import Chain
from proa.isolation.vm.machine import Machine

FILE = "disk.qcow2"
OWNER = 107  # KubeVirt's convention for images that hold a disk: QEMU's user
_MODE = 0o440


def commit(core: Core, instance: Instance, wanted: CommitOptions) -> Image:
    """An image with the machine's disk as it is now, all in one file below `/disk/`.

    Of one that runs the disk is frozen, and is as after a loss of power; it goes on meanwhile.
    """
    with at_rest(core, instance) as found, core.images.assembly() as assembly:
        layer = _layer(core, assembly, found)
        made = assembly.image(_document(instance, wanted), (layer,), _names(wanted))
    core.emit(instance, "commit", comment=wanted.message, imageID=made.id, imageRef=wanted.name)
    return made


def _names(wanted: CommitOptions) -> tuple[str, ...]:
    return (wanted.name,) if wanted.name else ()


@contextmanager
def at_rest(core: Core, instance: Instance) -> Iterator[Chain]:
    """The machine's disk, which nobody writes meanwhile."""
    directory, name = core.directory(instance.id), layers.FIRST
    with instance.lock:
        running = instance.running
        if isinstance(running, Machine):
            prepared = chain.prepare(running.qmp, directory)
            try:
                with duplicate.written_out(running):
                    chain.commit(prepared)
            except BaseException:
                chain.cancel(prepared)
                raise
            chains = prepared.before
        else:
            chains = layers.load(directory)
        if name not in chains:
            raise Conflict(
                f"instance '{instance.name}' has no disk yet", hint="start it once: proa start"
            )
        yield chains[name]


def _layer(core: Core, assembly: Assembly, found: Chain) -> Layer:
    from proa.engine import commit  # which imports this module

    with core.images.workspace() as work:
        place = work / "root" / DISK_DIRECTORY
        place.mkdir(mode=0o755, parents=True)
        path = place / FILE
        descriptor = qcow2.create(path, layers.virtual_bytes(found.top))
        try:
            view.flatten(found, qcow2.Writer(descriptor))
        except OSError as error:
            raise qcow2.failure(path, error) from error
        finally:
            os.close(descriptor)
        for item, mode in ((place, 0o555), (path, _MODE)):
            os.chown(item, OWNER, OWNER)
            item.chmod(mode)
        return commit.layer_of(assembly, work / "root")


def _document(instance: Instance, wanted: CommitOptions) -> dict[str, object]:
    now = configuration.now()
    config = edits.apply({"Labels": instance.spec.labels}, wanted.edits)
    config.update({key: value for key, value in wanted.config if value})
    step = {
        "created": now, "created_by": "a machine's disk",
        "author": wanted.author, "comment": wanted.message,
    }  # fmt: skip
    platform = platforms.parse(instance.spec.hardware.platform)
    return {
        "architecture": platform.architecture, "os": "linux",
        "created": now, "author": wanted.author,
        "config": {key: value for key, value in config.items() if value},
        "history": [{key: text for key, text in step.items() if text}],
    }  # fmt: skip
