"""Images that come in as a file: `docker save` archives, OCI layouts, root file systems.

The archive is read once, front to back; its files go to the stage under numbers, never under
their own names.  Then whatever describes the images is looked up among them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proa.errors import Corrupt
from proa.image import config, manifest, oci, platforms, reference
from proa.image.layer.stream import Bounds, Source, compression_of, decompressed
from proa.image.manifest import Descriptor, Manifest
from proa.image.members import Members
from proa.image.reference import Reference
from proa.image.staging import Spooled, Stage


def load(file: Source, stage: Stage, bounds: Bounds) -> None:
    """Put every image of an archive on the stage."""
    with decompressed(file, bounds) as plain:
        members = Members(plain, stage)
    for name, read in _FORMATS:
        if members.find(name) is not None:
            read(members, stage)
            return
    raise Corrupt(
        "the archive holds no image: neither 'index.json' nor 'manifest.json' is in it",
        hint="'import' takes the archive of a root file system",
    )


# -- OCI layout ---------------------------------------------------------------------------------


def _load_oci(members: Members, stage: Stage) -> None:
    oci.load(members, stage, _docker_names(members))


# -- docker save --------------------------------------------------------------------------------


def _docker_entries(members: Members) -> list[dict[str, Any]]:
    document = manifest.decode(
        members.file("manifest.json").document("'manifest.json'"), "'manifest.json'"
    )
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise Corrupt("'manifest.json' is not a list of objects")
    return document


def _docker_names(members: Members) -> dict[str, list[Reference]]:
    """Names by image id, when a layout is a docker archive as well."""
    if members.find("manifest.json") is None:
        return {}
    return {
        members.file(entry.get("Config")).digest: _tags(entry) for entry in _docker_entries(members)
    }


def _tags(entry: dict[str, Any]) -> list[Reference]:
    tags = entry.get("RepoTags") or []
    if not isinstance(tags, list):
        raise Corrupt("the field 'RepoTags' of 'manifest.json' is not a list")
    return [name for name in map(oci.name, tags) if not name.digest]


def _load_docker(members: Members, stage: Stage) -> None:
    for entry in _docker_entries(members):
        configuration = members.file(entry.get("Config"))
        stem = posixpath.basename(str(entry["Config"])).removesuffix(".json")
        if reference.is_digest(f"sha256:{stem}") and configuration.digest[7:] != stem:
            raise Corrupt(
                f"the configuration has digest '{configuration.digest}' "
                f"but 'sha256:{stem}' was promised"
            )
        layers = entry.get("Layers") or []
        if not isinstance(layers, list):
            raise Corrupt("the field 'Layers' of 'manifest.json' is not a list")
        _stage_parts(configuration, [members.file(name) for name in layers], _tags(entry), stage)


def _stage_parts(
    configuration: Spooled, layers: Sequence[Spooled], names: list[Reference], stage: Stage
) -> None:
    """An image without a manifest gets one."""
    document = configuration.document("an image's configuration")
    stage.keep(configuration)
    described = [_layer(item, stage) for item in layers]
    if len(described) > manifest.MAXIMUM_LAYERS:
        raise Corrupt(f"an image of '{len(described)}' layers has too many")
    head = Descriptor(manifest.OCI_CONFIG, configuration.digest, configuration.size)
    data = manifest.build(head, described)
    written = stage.write(data)
    whole = Descriptor(manifest.OCI_MANIFEST, written.digest, written.size)
    stage.image(whole, Manifest(head, tuple(described)), document, names)


def _layer(spooled: Spooled, stage: Stage) -> Descriptor:
    """A layer's descriptor; what OCI has no name for is stored plain."""
    kind = compression_of(spooled.path)
    if kind in ("xz", "bzip2"):
        with spooled.path.open("rb") as file, decompressed(file) as plain:
            spooled, kind = stage.spool(plain), ""
    stage.keep(spooled)
    media_type = manifest.OCI_LAYER + (f"+{kind}" if kind else "")
    return Descriptor(media_type, spooled.digest, spooled.size)


# -- docker save before 1.10 --------------------------------------------------------------------


def _load_legacy(members: Members, stage: Stage) -> None:
    data = members.file("repositories").document("'repositories'")
    for repository, tags in manifest.decode_object(data, "'repositories'").items():
        for tag, top in manifest.strings(tags, f"the tags of '{repository}'").items():
            chain = _legacy_chain(top, members)
            layers = [members.file(f"{identity}/layer.tar") for identity, _ in chain]
            document = _legacy_config([described for _, described in chain], layers)
            configuration = stage.write(manifest.encode(document))
            _stage_parts(configuration, layers, [oci.name(f"{repository}:{tag}")], stage)


def _legacy_chain(top: str, members: Members) -> list[tuple[str, dict[str, Any]]]:
    """The layers' own descriptions, lowest first."""
    chain: dict[str, dict[str, Any]] = {}
    identity: object = top
    while identity:
        if not isinstance(identity, str) or identity in chain or len(chain) > 500:
            raise Corrupt(f"the layers below '{top[:12]}' do not end")
        data = members.file(f"{identity}/json").document("a layer's description")
        chain[identity] = manifest.decode_object(data, "a layer's description")
        identity = chain[identity].get("parent")
    return list(reversed(chain.items()))


def _legacy_config(chain: Sequence[dict[str, Any]], layers: Sequence[Spooled]) -> dict[str, Any]:
    kept = ("architecture", "os", "created", "author", "config")
    document = {key: chain[-1][key] for key in kept if key in chain[-1]}
    document["rootfs"] = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    document["history"] = [{"created": item.get("created") or config.NEVER} for item in chain]
    return document


_FORMATS: tuple[tuple[str, Callable[[Members, Stage], None]], ...] = (
    ("index.json", _load_oci), ("manifest.json", _load_docker), ("repositories", _load_legacy),
)  # fmt: skip


# -- a root file system -------------------------------------------------------------------------


def import_(
    file: Source, stage: Stage, bounds: Bounds, names: list[Reference],
    about: tuple[dict[str, Any], Mapping[str, str]],
) -> None:  # fmt: skip
    """Make an image of one layer; `about` is its configuration, and `message` and `platform`."""
    settings, said = about
    comment = said.get("message") or "imported from an archive"
    wanted = platforms.parse(said.get("platform", ""))
    with decompressed(file, bounds) as plain:
        layer = stage.spool(plain)
    if not layer.size:
        raise Corrupt("the archive is empty")
    created = config.now()
    configuration = stage.write(manifest.encode({
        "architecture": wanted.architecture, "os": wanted.os,
        **({"variant": wanted.variant} if wanted.variant else {}),
        "created": created, "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created": created, "comment": comment}],
    }))  # fmt: skip
    _stage_parts(configuration, [layer], names, stage)
