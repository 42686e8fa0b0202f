"""The disks of vms as users see them: what they are made of, who holds which bytes, made one file,
put over another base, put back to how they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proa.engine import lifecycle, machines, snapshots
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import Conflict, Invalid, NotFound, ProaError, Unsupported
from proa.host import files
from proa.image.machine import formats
from proa.isolation.vm import chain, layers, view
from proa.isolation.vm.layers import Chain, Layer
from proa.isolation.vm.machine import Machine

ADDED = "added-*.raw"  # empty disks plugged in while it ran
_MACHINE_STATE = ("nvram", "tpm")  # of a whole machine, beside its disks


# -- what there is ---------------------------------------------------------------------------------


@dataclass
class Held:
    """One file: its bytes on the host's disk, counted once whatever the number of its names."""

    path: Path
    format: str
    kind: str  # "disk", "overlay", "base" or "image"
    size_bytes: int
    holders: set[str] = field(default_factory=set)


def listing(core: Core, instance: Instance) -> list[dict[str, Any]]:
    """The disks of an instance, each with its files, top first.  Raises Unsupported."""
    directory = _directory(core, instance)
    state = "in use" if instance.live else ""
    if machines.disk_full(instance):
        state = "full"
    held = usage(core)
    return [
        {
            "Name": name,
            "State": state,
            "VirtualSize": layers.virtual_bytes(found.top),
            "Files": [_file(held[_key(layer.path)], index == 0)
                      for index, layer in enumerate(found.layers)],
        }
        for name, found in layers.load(directory).items()
    ]  # fmt: skip


def _file(held: Held, top: bool) -> dict[str, Any]:
    return {
        "Path": str(held.path), "Format": held.format, "Kind": held.kind, "Writable": top,
        "Size": held.size_bytes, "Holders": sorted(held.holders),
    }  # fmt: skip


def usage(core: Core) -> dict[tuple[int, int], Held]:
    """Every file that is part of a vm's disk, by device and inode."""
    found: dict[tuple[int, int], Held] = {}
    for instance in core.all():
        directory = core.directory(instance.id)
        for holder, place in _places(instance, directory):
            with _gone():
                for known in layers.load(place).values():
                    _add_chain(found, known, holder)
        for path in directory.glob(ADDED):
            with _gone():
                _add(found, Held(path, "raw", "disk", 0), instance.name)
        if core.isolation(instance.isolation).features.machines and instance.image_id:
            with _gone():
                _add(found, _image_disk(core, instance), instance.name)
    return found


def _places(instance: Instance, directory: Path) -> Iterator[tuple[str, Path]]:
    """An instance's directory and its snapshots', by what holds them."""
    yield instance.name, directory
    kept = directory / snapshots.DIRECTORY
    if kept.is_dir():
        for path in sorted(kept.iterdir()):
            yield f"{instance.name}@{path.name}", path
    if (directory / snapshots.SUSPENDED).is_dir():
        yield f"{instance.name}@{snapshots.SUSPENDED}", directory / snapshots.SUSPENDED


def _add_chain(found: dict[tuple[int, int], Held], known: Chain, holder: str) -> None:
    for layer in known.layers:
        kind = "base" if layer.base else "disk" if layer.format == "raw" else "overlay"
        with _gone():
            _add(found, Held(layer.path, layer.format, kind, 0), holder)


def _add(found: dict[tuple[int, int], Held], one: Held, holder: str) -> None:
    facts = one.path.stat()
    one.size_bytes = facts.st_blocks * 512
    found.setdefault((facts.st_dev, facts.st_ino), one).holders.add(holder)


def _image_disk(core: Core, instance: Instance) -> Held:
    return Held(core.images.disk_path(instance.image_id), "erofs", "image", 0)


def _key(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


@contextmanager
def _gone() -> Iterator[None]:
    """What is removed meanwhile is not told."""
    try:
        yield
    except (OSError, ProaError):
        return


def table(core: Core, instance: Instance | None = None) -> dict[str, Any]:
    """Who holds which bytes; `Total` is the sum of the files, each counted once."""
    held = sorted(usage(core).values(), key=lambda item: -item.size_bytes)
    if instance is not None:
        names = {name for name, _ in _places(instance, _directory(core, instance))}
        held = [item for item in held if item.holders & names]
    return {
        "Files": [_file(item, False) for item in held],
        "Total": sum(item.size_bytes for item in held),
        "Shared": sum(item.size_bytes for item in held if len(item.holders) > 1),
    }


def own_bytes(core: Core) -> dict[str, int]:
    """By instance's name, what would come free without it and its snapshots."""
    found: dict[str, int] = {}
    for item in usage(core).values():
        owners = {name.partition("@")[0] for name in item.holders}
        if len(owners) == 1 and item.kind in ("disk", "overlay"):
            owner = owners.pop()
            found[owner] = found.get(owner, 0) + item.size_bytes
    return found


# -- changes ---------------------------------------------------------------------------------------


def flatten(core: Core, instance: Instance) -> None:
    """Make each disk one file that needs no other; a running guest goes on."""
    directory = _directory(core, instance)
    with instance.lock:
        if instance.live:
            chain.flatten(machines.machine(instance, "disk chains"), directory)
            return
        for name, found in layers.load(directory).items():
            if len(found.layers) > 1:
                _rewrite(directory, name, found)


def _rewrite(directory: Path, name: str, found: Chain) -> None:
    layers.substitute(
        directory, name, (), lambda descriptor: view.flatten(found, view.RawWriter(descriptor))
    )


def rebase(core: Core, instance: Instance, path: str, *, moved: bool = False) -> None:
    """Put a stopped machine's disk over another base; the guest sees the same disk.

    With `moved` the base is the same disk in another place, and nothing is compared.
    """
    directory = _directory(core, instance)
    with _stopped(instance, "rebased"):
        known = layers.load(directory)
        name = layers.FIRST
        if not instance.spec.hardware.disk or name not in known:
            raise Unsupported(
                f"instance '{instance.name}' has no base",
                hint="only machines with a disk of their own have one",
            )
        below, found = _base(path), known[name]
        if moved:
            _moved(directory, known, below)
        else:
            layers.substitute(
                directory, name, (below,),
                lambda descriptor: view.rebase(found, Chain((below,)), descriptor),
            )  # fmt: skip
        hardware = replace(instance.spec.hardware, disk=path, format=below.format)
        instance.record.spec = replace(instance.spec, hardware=hardware)
        core.save(instance)


def _moved(directory: Path, known: layers.Chains, below: Layer) -> None:
    found = known[layers.FIRST]
    old = found.layers[-1]
    if not old.base or (old.format, old.size_bytes) != (below.format, below.size_bytes):
        raise Invalid(
            f"'{below.path}' is not the base that was: another size or format",
            hint="without --moved what differs is copied",
        )
    layers.save(directory, {**known, layers.FIRST: Chain((*found.layers[:-1], below))})


def _base(path: str) -> Layer:
    file = Path(path)
    if not file.is_absolute():
        raise Invalid(f"the base '{path}' is no absolute path")
    try:
        with file.open("rb") as opened:
            return layers.base(file, formats.detect(opened.read(formats.HEAD_BYTES)))
    except OSError as error:
        raise NotFound(f"no base '{path}': {(error.strerror or '').lower()}") from error


def rollback(core: Core, instance: Instance, snapshot: str = "", *, force: bool = False) -> None:
    """Put a stopped instance back to its image's files, or to a snapshot of it.

    With `force` one that runs is killed first.  Raises Conflict, NotFound.
    """
    if snapshot:
        snapshots.path_of(core, instance, snapshot)
    if instance.live and force:
        lifecycle.kill(core, instance, "KILL")
    with _stopped(instance, "rolled back"):
        if snapshot:
            snapshots.restore(core, instance, snapshot)
        else:
            _to_image(core.directory(instance.id))
    core.emit(instance, "rollback", snapshot=snapshot)


def _to_image(directory: Path) -> None:
    if layers.load(directory):
        layers.forget(directory)
        for name in _MACHINE_STATE:
            files.remove_tree(directory / name)
    else:
        for name in ("upper", "work"):
            files.remove_tree(directory / name)


@contextmanager
def _stopped(instance: Instance, what: str) -> Iterator[None]:
    with instance.lock:
        if instance.record.removing:
            raise Conflict(f"instance '{instance.name}' is being removed")
        if instance.live:
            raise Conflict(
                f"instance '{instance.name}' is {instance.state} and cannot be {what}",
                hint="stop it first" + (", or use --force" if what == "rolled back" else ""),
            )
        yield


def _directory(core: Core, instance: Instance) -> Path:
    if not core.isolation(instance.isolation).features.machines:
        raise Unsupported(
            f"instance '{instance.name}' is a container and has no disks", hint="run it with --vm"
        )
    return core.directory(instance.id)


def resumed(core: Core, instance: Instance) -> None:
    """Take over the disks of a vm that outlived its engine, before it goes on."""
    running = instance.running
    if isinstance(running, Machine):
        chain.recovered(running, core.directory(instance.id))


def recover(directory: Path) -> None:
    """Remove what an interrupted change of an instance's disks left behind."""
    with _gone():
        layers.sweep(directory)
    files.empty_trash(directory)
