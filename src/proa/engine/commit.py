"""What an instance changed about its image: told (`diff`), made an image (`commit`), or all of its
files as one tar (`export`).

In a container that is the overlay's upper directory, read where it is; a guest sends its own, which
is then read in the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.agent import Agent
from proa.engine import changes, machine_commit, machine_diff
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.options import CommitOptions
from proa.engine.steps import STUBS
from proa.errors import Conflict, ProaError, Unsupported
from proa.image import changes as edits
from proa.image import config as configuration
from proa.image.assembly import Assembly, Layer
from proa.image.catalog import Image
from proa.image.layer import differences, pack, stubs, tree
from proa.image.layer.stream import write_all
from proa.image.layer.writer import Sink
from proa.resources import Launch

KINDS = {differences.CHANGED: 0, differences.ADDED: 1, differences.DELETED: 2}
_TAKEN = ("User", "WorkingDir", "StopSignal", "Healthcheck", "Shell", "OnBuild")
_MERGED = ("ExposedPorts", "Volumes")
_NOT_KEPT = ("container", "container_config", "docker_version", "id", "parent", "throwaway")


@dataclass(frozen=True)
class _Changes:
    """An upper directory at rest or in use, what of it is ours, and what it lies over."""

    upper: Path
    layers: tuple[Path, ...]
    ours: frozenset[bytes]


def changed(core: Core, instance: Instance) -> list[tuple[int, str]]:
    """(Docker's kind, absolute path) of each change, sorted by path."""
    if instance.spec.hardware.disk:
        return machine_diff.changed(core, instance)
    _refuse_machines(instance)
    with (
        _changes(core, instance, names_only=True) as found,
        tree.reporting("compare an instance with its image"),
    ):
        told = [
            (path.decode(errors="replace"), KINDS[kind])
            for kind, path in differences.changes(found.upper, found.layers)
            if path[1:] not in found.ours
        ]
    return [(kind, path) for path, kind in sorted(told)]


def export(core: Core, instance: Instance, sink: Sink) -> None:
    """Write all files of an instance as one tar; what is mounted in it is not in it."""
    _refuse_machines(instance)
    with _changes(core, instance) as found, tree.reporting("export an instance"):
        pack.pack_merged((found.upper, *found.layers), sink, omit=found.ours)


def _refuse_machines(instance: Instance) -> None:
    if instance.spec.hardware.disk:
        raise Unsupported(
            f"instance '{instance.name}' is a machine, whose files are its own system's",
            hint="proa commit makes an image of its disk",
        )


def commit(core: Core, instance: Instance, wanted: CommitOptions) -> Image:
    """An image of the instance's image and its changes.  Raises Invalid for a wrong edit."""
    if instance.spec.hardware.disk:
        return machine_commit.commit(core, instance, wanted)
    image = core.images.get(instance.record.image_id)
    document = _document(instance, image, wanted)
    with core.images.assembly() as assembly:
        with _still(instance, pause=wanted.pause), _changes(core, instance) as found:
            layer = layer_of(assembly, found.upper, found.ours)
        layers = (*assembly.layers_of(image), layer)
        made = assembly.image(document, layers, (wanted.name,) if wanted.name else ())
    core.emit(instance, "commit", comment=wanted.message, imageID=made.id, imageRef=wanted.name)
    return made


# -- the files ----------------------------------------------------------------------------------


@contextmanager
def _changes(core: Core, instance: Instance, *, names_only: bool = False) -> Iterator[_Changes]:
    layers = core.images.layers(core.images.get(instance.record.image_id))
    with core.images.workspace() as work:
        upper = core.directory(instance.id) / "upper"
        device = core.isolation(instance.isolation).features.changes
        if device or not upper.is_dir():
            upper = work / "upper"
            upper.mkdir(mode=0o755)
            root = os.stat(layers[0])
            os.chown(upper, root.st_uid, root.st_gid)
            upper.chmod(root.st_mode & 0o7777)
        if device:
            with _answering(core, instance) as agent:
                changes.bring(agent, device, upper, names_only=names_only)
        made = stubs.missing(layers, STUBS)
        yield _Changes(upper, layers, frozenset(stubs.left(upper, layers, made)))


@contextmanager
def _answering(core: Core, instance: Instance) -> Iterator[Agent]:
    """The init of a running instance, or of a place made of the stopped one's disk."""
    if instance.state == states.PAUSED:
        raise Conflict(
            f"Container {instance.name} is paused, and a paused vm does not answer",
            hint="unpause it first",
        )
    running = instance.running
    if running is not None:
        yield running.agent()
        return
    with instance.lock:
        if instance.record.removing or instance.live:
            raise Conflict(f"instance '{instance.name}' is changing its state; try again")
        directory = core.directory(instance.id)
        rootfs = core.images.writable(core.images.get(instance.record.image_id), directory)
        launch = Launch(instance.id, directory, rootfs, idle=True, once=True)
        idle = core.isolation(instance.isolation).start(launch)
        try:
            yield idle.agent()
        finally:
            idle.kill()


@contextmanager
def _still(instance: Instance, *, pause: bool) -> Iterator[None]:
    """Its processes stopped meanwhile, so that files are of one moment."""
    running = instance.running
    if running is None or not pause or instance.state == states.PAUSED:
        yield
        return
    running.hold()
    try:
        yield
    finally:
        running.let_go()


def layer_of(assembly: Assembly, upper: Path, ours: frozenset[bytes] = frozenset()) -> Layer:
    """A directory but for what is `ours` as a layer: it stays, so this is a copy."""
    problems: list[BaseException] = []
    ends = os.pipe2(os.O_CLOEXEC)

    def write() -> None:
        try:
            with open(ends[1], "wb", buffering=0) as pipe:
                pack.pack(upper, _All(pipe.fileno()), omit=ours)
        except BaseException as error:  # told by whoever reads
            problems.append(error)

    writer = threading.Thread(target=write, name="commit")
    with ExitStack() as opened:
        reader = opened.enter_context(open(ends[0], "rb", buffering=0))
        writer.start()
        try:
            layer = assembly.layer_from_tar(reader)
        except ProaError:
            reader.close()
            writer.join()
            if problems and not isinstance(problems[0], BrokenPipeError):
                raise problems[0] from None
            raise
    writer.join()
    if problems:
        raise problems[0]
    return layer


class _All:
    """A sink that writes everything: a pipe takes what fits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview, /) -> None:
        write_all(self._descriptor, data)


# -- the configuration ---------------------------------------------------------------------------


def _document(instance: Instance, image: Image, wanted: CommitOptions) -> dict[str, Any]:
    now = configuration.now()
    step = {
        "created": now, "created_by": " ".join(instance.spec.process.arguments),
        "author": wanted.author, "comment": wanted.message,
    }  # fmt: skip
    kept = {key: value for key, value in image.config.items() if key not in _NOT_KEPT}
    config = edits.apply(_config(instance, image), wanted.edits)
    config.update({key: value for key, value in wanted.config if value})
    return {
        **kept, "created": now, "author": wanted.author or kept.get("author", ""),
        "config": config,
        "history": [*image.details.history, {key: text for key, text in step.items() if text}],
    }  # fmt: skip


def _config(instance: Instance, image: Image) -> dict[str, Any]:
    """The image's configuration with what the instance was created with over it."""
    config, body, process = dict(image.defaults), instance.record.body, instance.spec.process
    config.update({key: body[key] for key in _TAKEN if body.get(key)})
    for key in _MERGED:
        if body.get(key):
            config[key] = {**(config.get(key) or {}), **body[key]}
    if body.get("Entrypoint") is not None:
        config["Entrypoint"], config["Cmd"] = body["Entrypoint"], body.get("Cmd")
    elif body.get("Cmd"):
        config["Cmd"] = body["Cmd"]
    config["Env"], config["Labels"] = list(process.environment), instance.spec.labels
    return {key: value for key, value in config.items() if value}
