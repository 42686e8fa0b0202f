"""Images of an OCI layout: found through indexes of platforms, with the artifacts about them.

Only what is for this machine is kept.  Of the others nothing but the index that lists them, byte
for byte: its digest is what the image is known by elsewhere (`name@sha256:...`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from proa.errors import Corrupt, Invalid, Unsupported
from proa.image import manifest, platforms, reference, referrers
from proa.image.layout import INDEX
from proa.image.manifest import Descriptor
from proa.image.members import BLOBS, Members
from proa.image.reference import Reference
from proa.image.staging import Stage

NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAXIMUM_DEPTH = 4
_CONFIGS = (manifest.OCI_CONFIG, "application/vnd.docker.container.image.v1+json")


@dataclass
class _Found:
    """An image of the layout: the names it has there, and the indexes that led to it."""

    chosen: Descriptor
    names: list[Reference] = field(default_factory=list)
    indexes: list[Descriptor] = field(default_factory=list)


def load(members: Members, stage: Stage, by_id: dict[str, list[Reference]]) -> None:
    """Put every image of a layout on the stage, and what is about them.

    `by_id` are names that the archive has elsewhere, by the digest of the configuration.
    """
    listed = manifest.parse_index(members.file("index.json").document("the index"))
    found: dict[str, _Found] = {}
    artifacts: list[Descriptor] = []
    for item in filter(_is_image, listed):
        if _is_artifact(item, members):
            artifacts.append(item)
            continue
        path: list[Descriptor] = []
        chosen = _choose(item, members, path)
        image = found.setdefault(chosen.digest, _Found(chosen))
        image.names += _names(item)
        image.indexes += path + _noted_index(item, chosen, members)
    for image in found.values():
        _stage_image(image, by_id, members, stage)
    subjects = {item.digest for image in found.values() for item in (image.chosen, *image.indexes)}
    _stage_artifacts(artifacts, subjects, members, stage)


def _stage_image(
    image: _Found, by_id: dict[str, list[Reference]], members: Members, stage: Stage
) -> None:
    spooled = members.blob(image.chosen)
    parts = manifest.parse_manifest(spooled.document("a manifest"))
    configuration = members.blob(parts.config)
    indexes = [members.blob(item) for item in image.indexes]
    for item in (spooled, configuration, *indexes, *map(members.blob, parts.layers)):
        stage.keep(item)
    document = configuration.document("an image's configuration")
    names = list(dict.fromkeys([*image.names, *by_id.get(parts.config.digest, [])]))
    tops = [replace(name, tag="", digest=item.digest) for item in indexes[:1] for name in names]
    stage.image(image.chosen, parts, document, list(dict.fromkeys([*names, *tops])))


# -- platforms ----------------------------------------------------------------------------------


def _is_image(item: Descriptor) -> bool:
    """Not a build's attestation, which lies among the images."""
    is_note = "vnd.docker.reference.type" in item.annotations
    return not is_note and item.platform.get("os") != "unknown"


def _choose(item: Descriptor, members: Members, path: list[Descriptor]) -> Descriptor:
    """The manifest for this machine, through indexes of platforms, which are added to `path`."""
    if item.media_type not in manifest.INDEX_TYPES:
        plain = item.media_type or manifest.OCI_MANIFEST
        return Descriptor(plain, item.digest, item.size, platform=item.platform)
    if len(path) >= _MAXIMUM_DEPTH:
        raise Corrupt("indexes are nested too deeply")
    path.append(item)
    inner = manifest.parse_index(members.blob(item).document("an index"))
    images = [image for image in inner if _is_image(image) and _is_here(image, members)]
    return _choose(images[0] if len(images) == 1 else _fitting(images), members, path)


def _fitting(images: Sequence[Descriptor]) -> Descriptor:
    here = platforms.here()
    ranked = [(platforms.rank(here, platforms.of(image.platform)), image) for image in images]
    fitting = [(rank, image) for rank, image in ranked if rank is not None]
    if not fitting:
        raise Unsupported(f"the archive has no image for '{here}'")
    return min(fitting, key=lambda pair: pair[0])[1]


def _noted_index(item: Descriptor, chosen: Descriptor, members: Members) -> list[Descriptor]:
    """The index an image once came from, when it is there and really lists the image."""
    digest = item.annotations.get(INDEX, "")
    spooled = members.find(BLOBS + digest[7:]) if reference.is_digest(digest) else None
    if spooled is None:
        return []
    listed = manifest.parse_index(spooled.document("an index"))
    if chosen.digest not in {inner.digest for inner in listed}:
        return []
    return [Descriptor("", spooled.digest, spooled.size)]


def _is_here(item: Descriptor, members: Members) -> bool:
    return members.find(BLOBS + item.digest[7:]) is not None


# -- names --------------------------------------------------------------------------------------


def _names(item: Descriptor) -> list[Reference]:
    """Names in annotations; a bare tag is no name."""
    for key in NAME_KEYS:
        text = item.annotations.get(key, "")
        if ":" in text or "/" in text:
            return [found for found in [name(text)] if not found.digest]
    return []


def name(text: object) -> Reference:
    """A name that an archive gives an image."""
    if not isinstance(text, str):
        raise Corrupt(f"the archive names an image '{str(text)[:100]}'")
    try:
        return reference.parse(text)
    except Invalid as error:
        raise Corrupt(f"the archive names an image '{text[:100]}'", hint=error.hint) from error


# -- artifacts ----------------------------------------------------------------------------------


def _is_artifact(item: Descriptor, members: Members) -> bool:
    if item.media_type in manifest.INDEX_TYPES:
        return False
    data = members.blob(item).document("a manifest")
    document = manifest.decode_object(data, "a manifest")
    config = document.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else None
    return "subject" in document and kind not in _CONFIGS


def _stage_artifacts(
    artifacts: Sequence[Descriptor], subjects: set[str], members: Members, stage: Stage
) -> None:
    """Those about the images, and those about them in turn; of others nobody would know."""
    waiting = list(artifacts)
    while waiting:
        left = [item for item in waiting if not _stage_artifact(item, subjects, members, stage)]
        if len(left) == len(waiting):
            return
        waiting = left


def _stage_artifact(item: Descriptor, subjects: set[str], members: Members, stage: Stage) -> bool:
    spooled = members.blob(item)
    data = spooled.document("a manifest")
    document = manifest.decode_object(data, "a manifest")
    subject = referrers.subject_of(document)
    if subject is None or subject.digest not in subjects:
        return False
    parts = manifest.parse_manifest(data)
    for blob in (spooled, *map(members.blob, (parts.config, *parts.layers))):
        stage.keep(blob)
    stage.artifact(referrers.line(spooled.digest, spooled.size, document, subject))
    subjects.add(item.digest)
    return True
