"""From a name in a registry to the images it means: through indexes, checked on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from proa.errors import Corrupt, ImageNotFound, Unsupported
from proa.image import config, manifest, platforms, staging
from proa.image.config import ImageConfig
from proa.image.manifest import Descriptor, Manifest
from proa.image.platforms import Platform
from proa.image.reference import Reference
from proa.image.registry import blobs, client
from proa.image.registry.client import Document, Registry
from proa.printable import clean

_DEPTH = 3  # of indexes in indexes
_MAXIMUM_IMAGES = 100  # of one index that are taken together
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_CONFIGS = frozenset({manifest.OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""})
_LAYERS = frozenset(
    f"{kind}{ending}"
    for kind, endings in {
        manifest.OCI_LAYER: ("", "+gzip", "+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar": ("", ".gzip", ".zstd"),
    }.items()
    for ending in endings
)
_ELSEWHERE = ("nondistributable", "foreign")
_OLD = "application/vnd.docker.distribution.manifest.v1"


@dataclass(frozen=True)
class Remote:
    """One image in a registry: its manifest as it is there, and what it and its config say."""

    document: Document
    manifest: Manifest
    config: ImageConfig
    config_data: bytes

    @property
    def platform(self) -> Platform:
        """What it is made for."""
        return platforms.of(self.config.document)


@dataclass(frozen=True)
class Resolved:
    """What a name means: the document it stands for, all indexes on the way, and the images.

    `chosen` is the place among the images of the one that gets the name.
    """

    top: Document
    indexes: tuple[Document, ...]
    images: tuple[Remote, ...]
    chosen: int = 0


@dataclass(frozen=True)
class Search:
    """What is looked for, and where.

    `known` gives a document the store has, or None; `again` says that the name was pulled before.
    """

    registry: Registry
    wanted: Reference
    known: Callable[[Descriptor], bytes | None] = lambda item: None
    again: bool = False


def resolve(search: Search, platform: str = "", everything: bool = False) -> Resolved:
    """The image of a name for a platform (this machine's by default), or every image of it."""
    wanted = search.wanted
    top = _top(search)
    indexes: list[Document] = []
    if not top.is_index:
        found = [read(search, top)]
        if platform:
            _check_platform(found[0], platforms.parse(platform), wanted)
    elif everything:
        found = list(_every(search, top, indexes))
        return Resolved(top, tuple(indexes), tuple(found), _fitting(found, platform))
    else:
        found = [read(search, _choose(search, top, platforms.parse(platform), indexes))]
    return Resolved(top, tuple(indexes), tuple(found))


def _top(search: Search) -> Document:
    """What the name stands for; of a known one the digest first, which no registry counts."""
    name = search.wanted.digest or search.wanted.tag
    if search.again:
        found = search.registry.head(search.wanted.path, name)
        data = search.known(found) if found else None
        if found and data is not None:
            return client.document(data, found.media_type, found.digest)
    return search.registry.manifest(search.wanted.path, name)


def _fitting(found: Sequence[Remote], platform: str) -> int:
    """The image that fits best, else the first."""
    ranks = [platforms.rank(platforms.parse(platform), image.platform) for image in found]
    fitting = [(rank, number) for number, rank in enumerate(ranks) if rank is not None]
    return min(fitting)[1] if fitting else 0


def _choose(search: Search, top: Document, platform: Platform, indexes: list[Document]) -> Document:
    while top.is_index:
        _descend(top, indexes)
        listed = manifest.parse_index(top.data)
        top = child(search, platforms.choose(listed, platform, search.wanted.familiar))
    return top


def _every(search: Search, top: Document, indexes: list[Document]) -> Iterator[Remote]:
    _descend(top, indexes)
    name = search.wanted.familiar
    listed = list(filter(platforms.is_image, manifest.parse_index(top.data)))
    if not listed:
        raise ImageNotFound(f"'{name}' lists no image")
    if len(listed) > _MAXIMUM_IMAGES:
        raise Unsupported(f"'{name}' lists '{len(listed)}' images, too many at once")
    for item in listed:
        document = child(search, item)
        if document.is_index:
            raise Unsupported(f"'{name}' has an index within an index")
        yield read(search, document)


def _descend(top: Document, indexes: list[Document]) -> None:
    if len(indexes) >= _DEPTH:
        raise Corrupt("indexes are nested too deeply")
    indexes.append(top)


def child(search: Search, item: Descriptor) -> Document:
    """A manifest that an index lists."""
    if item.size > manifest.MAXIMUM_DOCUMENT:
        raise Corrupt(f"a manifest of '{item.size}' bytes is too large")
    data = search.known(item)
    if data is not None:
        found = client.document(data, item.media_type, item.digest)
    else:
        found = search.registry.manifest(search.wanted.path, item.digest)
    if len(found.data) != item.size:
        raise Corrupt(
            f"manifest '{item.digest}' has '{len(found.data)}' bytes "
            f"but '{item.size}' were promised"
        )
    return found


def read(search: Search, document: Document) -> Remote:
    """An image's manifest and configuration.  Raises Unsupported for what is no image."""
    wanted = search.wanted
    _check_version(document, wanted)
    parts = manifest.parse_manifest(document.data)
    if parts.config.media_type not in _CONFIGS:
        raise Unsupported(
            f"'{wanted.familiar}' is not a container image: "
            f"its configuration is '{clean(parts.config.media_type)}'"
        )
    for layer in parts.layers:
        _check_layer(layer)
    what = "an image's configuration"
    data = search.known(parts.config)
    if data is None:
        data = blobs.document(search.registry, wanted.path, parts.config, what)
    parsed = config.parse(data)
    staging.check_layers(parsed, parts)
    return Remote(document, parts, parsed, data)


def _check_version(document: Document, wanted: Reference) -> None:
    version = manifest.decode_object(document.data, "a manifest").get("schemaVersion")
    if document.media_type.startswith(_OLD) or version == 1:
        raise Unsupported(
            f"'{wanted.familiar}' is in docker's schema 1, which nothing verifies",
            hint="push it again with a tool of this decade",
        )


def _check_layer(layer: Descriptor) -> None:
    kind = layer.media_type
    if kind in _LAYERS:
        return
    short = f"layer '{layer.digest[7:19]}'"
    if any(word in kind for word in _ELSEWHERE):
        raise Unsupported(f"{short} is not kept in registries: its type is '{clean(kind)}'")
    if kind.endswith("+encrypted"):
        raise Unsupported(f"{short} is encrypted")
    raise Unsupported(f"{short} has the unknown type '{clean(kind)}'")


def _check_platform(image: Remote, wanted: Platform, name: Reference) -> None:
    if platforms.rank(wanted, image.platform) is None:
        raise ImageNotFound(
            f"'{name.familiar}' has no image for '{wanted}'", hint=f"there is: {image.platform}"
        )
