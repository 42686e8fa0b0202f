"""Snapshots with memory as OCI artefacts: pushed to a registry, gone on with at another engine.

A manifest of our own type: the configuration says what it is of and what it needs, and is looked at
before anything large is fetched; the layers are the files of the snapshot (image/sparse.py).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from proa.engine import duplicate, lifecycle, snapshots
from proa.engine.core import Core
from proa.engine.instance import PINNED, Instance, load_spec
from proa.engine.snapshots import MEMORY, Snapshot
from proa.errors import Corrupt, ImageNotFound, Invalid, ProaError, Unsupported
from proa.host import files, libraries
from proa.image import manifest, sparse
from proa.image.layer.stream import STANDARD_BOUNDS
from proa.image.manifest import Descriptor
from proa.image.reference import Reference
from proa.image.registry import blobs, uploads
from proa.image.registry.blobs import Blob
from proa.image.registry.client import Document, Registry
from proa.image.registry.sending import Parcel, Target, deliver
from proa.isolation.vm import disks, layers, qcow2, saved
from proa.spec import Hardware, Port, Spec

ARTIFACT = "application/vnd.proa.snapshot.v1"
CONFIG = "application/vnd.proa.snapshot.config.v1+json"
LAYER = "application/vnd.proa.snapshot.sparse.v1"
TITLE = "org.opencontainers.image.title"
FORMAT = 1
FILE = re.compile(r"memory/(?:memory|state)|image\.erofs|disk|disks/[0-9]{1,9}")
Reach = Callable[[str, str], tuple[Registry, Reference]]


# -- sending --------------------------------------------------------------------------------------


def push(core: Core, instance: Instance, name: str, to: tuple[Registry, Reference]) -> str:
    """Send a snapshot with memory; the manifest's digest."""
    registry, wanted = to
    with instance.lock:
        path = snapshots.path_of(core, instance, name)
        found = snapshots.read(path)
        if not found.memory:
            raise Unsupported(
                f"the snapshot '{name}' has no memory", hint="proa commit, and push the image"
            )
        config = _config(instance, path, found)
        target = Target(registry, wanted.path)
        with tempfile.TemporaryDirectory(
            prefix=".export-", dir=core.directory(instance.id)
        ) as work:
            sent = [_send(target, path, title, Path(work)) for title in _titles(path)]
            document = _manifest(target, config, sent, Path(work))
    uploads.put_manifest(registry, wanted.path, wanted.tag or document.digest, document)
    return document.digest


def _titles(path: Path) -> list[str]:
    chained = {
        str(layer.path.relative_to(path))
        for chain in layers.load(path).values()
        for layer in chain.layers
    }
    return sorted({f"{MEMORY}/memory", f"{MEMORY}/state", PINNED, *chained})


def _config(instance: Instance, path: Path, found: Snapshot) -> dict[str, Any]:
    disks_of = {
        name: [[str(layer.path.relative_to(path)), layer.format] for layer in chain.layers]
        for name, chain in layers.load(path).items()
    }
    return {
        "format": FORMAT, "snapshot": asdict(found), "machine": saved.read(path / MEMORY),
        "spec": asdict(instance.spec), "body": instance.record.body, "disks": disks_of,
    }  # fmt: skip


def _send(target: Target, path: Path, title: str, work: Path) -> dict[str, Any]:
    kind = "zstd" if libraries.find("zstandard") is not None else "gzip"
    file = os.open(path / title, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        packed = sparse.pack(file, disks.data_ranges(file), work / title.replace("/", "-"), kind)
    finally:
        os.close(file)
    deliver(target, Parcel(packed.digest, packed.size, packed.path), (), lambda sent: None)
    packed.path.unlink()
    described = Descriptor(f"{LAYER}+{kind}", packed.digest, packed.size)
    return {**described.document(), "annotations": {TITLE: title}}


def _manifest(
    target: Target, config: dict[str, Any], sent: list[dict[str, Any]], work: Path
) -> Document:
    data = manifest.encode(config)
    described = manifest.describe(CONFIG, data)
    (work / "config").write_bytes(data)
    parcel = Parcel(described.digest, described.size, work / "config")
    deliver(target, parcel, (), lambda sent: None)
    machine = config["machine"]
    whole = manifest.encode({
        "schemaVersion": 2, "mediaType": manifest.OCI_MANIFEST, "artifactType": ARTIFACT,
        "config": described.document(), "layers": sent,
        "annotations": {
            "dev.proa.snapshot.qemu": str(machine["qemu"]),
            "dev.proa.snapshot.machine": " ".join(machine["board"])[:256],
            "dev.proa.snapshot.processor": str(machine["processor"]),
            "dev.proa.snapshot.image": str(config["snapshot"]["image_id"]),
        },
    })  # fmt: skip
    return Document(manifest.OCI_MANIFEST, manifest.digest_of(whole), whole)


# -- taking ---------------------------------------------------------------------------------------


def pull(core: Core, source: tuple[Registry, Reference], name: str) -> Instance:
    """A new instance that goes on from a pushed snapshot.

    Raises Unsupported when it does not fit here, ImageNotFound, Corrupt.
    """
    registry, wanted = source
    document = registry.manifest(wanted.path, wanted.tag or wanted.digest)
    fields = manifest.decode_object(document.data, "a manifest")
    if fields.get("artifactType") != ARTIFACT:
        raise Invalid(f"'{wanted.familiar}' is no snapshot of a machine", hint="proa pull it")
    parts = manifest.parse_manifest(document.data)
    config = manifest.decode_object(
        blobs.document(registry, wanted.path, parts.config, "a snapshot's configuration"),
        "a snapshot's configuration",
    )
    try:
        found, spec, titles = _understood(core, config, fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"the snapshot's configuration is not understood: {error!r}") from error
    made = duplicate.make(core, found.image_id, spec, dict(config["body"]), name)
    try:
        path = core.directory(made.id) / snapshots.DIRECTORY / "pulled"
        (path / MEMORY).mkdir(mode=0o700, parents=True)
        (path / layers.DIRECTORY).mkdir(mode=0o700)
        for title, blob in zip(titles, parts.layers, strict=True):
            _fetch(Blob(registry, wanted.path, blob), path / title, saved.check(config["machine"]))
        _finish(path, config, found)
        snapshots.put_back(core, made, path, found)
    except BaseException:
        lifecycle.remove(core, made, force=True, volumes=True)
        raise
    return made


def _understood(
    core: Core, config: dict[str, Any], fields: dict[str, Any]
) -> tuple[Snapshot, Spec, list[str]]:
    if config["format"] != FORMAT:
        raise Unsupported("the snapshot is of another version of Proa")
    saved.check(config["machine"])
    found, spec = Snapshot(**config["snapshot"]), load_spec(config["spec"])
    if spec.isolation != core.vms.name or spec.mounts or spec.hardware != Hardware():
        raise Corrupt("no such instance can have been saved with its memory")
    try:
        core.images.get(found.image_id)
    except ImageNotFound:
        raise ImageNotFound(
            f"the snapshot is of the image '{found.image_id}', which is not here",
            hint=f"pull '{spec.image}' first",
        ) from None
    titles = [str(layer["annotations"][TITLE]) for layer in fields["layers"]]
    wanted = {str(file) for items in config["disks"].values() for file, _ in items}
    wanted |= {f"{MEMORY}/memory", f"{MEMORY}/state", PINNED}
    if set(titles) != wanted or len(titles) != len(wanted):
        raise Corrupt("the snapshot lacks parts, or has some twice")
    if not all(FILE.fullmatch(title) for title in titles):
        raise Corrupt("the snapshot has files no snapshot has")
    ports = tuple(Port(p.port, p.protocol, p.host_address, 0) for p in spec.ports)
    plain = replace(spec, ports=ports, network="bridge" if spec.network != "none" else "none")
    return found, replace(plain, endpoints=()), titles


def _fetch(blob: Blob, target: Path, shape: Any) -> None:
    limits = {"memory": shape.ram_bytes, "state": saved.STATE_MAXIMUM_BYTES}
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        most = limits.get(target.name, qcow2.SIZE_MAXIMUM_BYTES)
        sparse.unpack(blob, STANDARD_BOUNDS, file, most)
    except OSError as error:
        raise qcow2.failure(target, error) from error
    finally:
        os.close(file)
        with suppress(ProaError):
            blob.close()


def _finish(path: Path, config: dict[str, Any], found: Snapshot) -> None:
    """Say what the files are, as a snapshot made here has it."""
    files.atomic_write(path / MEMORY / saved.FACTS, json.dumps(config["machine"]).encode())
    chains = {
        str(name): layers.Chain(
            tuple(layers.Layer(path / str(file), str(format)) for file, format in items)
        )
        for name, items in config["disks"].items()
    }
    layers.save(path, chains)
    facts = replace(found, name="pulled", address="")
    files.atomic_write(path / snapshots.FACTS, json.dumps(asdict(facts)).encode(), durable=True)
