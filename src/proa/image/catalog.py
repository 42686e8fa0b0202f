"""What images there are: the layout's index, parsed once per change and kept in memory."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from typing import Any

from proa.errors import ImageNotFound, Invalid, ProaError
from proa.image import config, manifest, reference, staging
from proa.image.config import ImageConfig
from proa.image.layer import tree
from proa.image.layout import Layout, Named
from proa.image.manifest import Descriptor, Manifest

_ID = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")


@dataclass(frozen=True)
class Image:
    """One image of the store; `names` are as Docker shows them, `digests` are `name@sha256:...`.

    `config` is the OCI configuration document; `defaults` its part on what to run.
    """

    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    details: ImageConfig
    manifest_digest: str
    manifest: Manifest
    size_bytes: int

    @property
    def config(self) -> dict[str, Any]:
        """The whole document: architecture, os, config, rootfs, history, ..."""
        return self.details.document

    @property
    def defaults(self) -> dict[str, Any]:
        """Cmd, Entrypoint, Env, WorkingDir, User, ExposedPorts, Labels, Volumes, StopSignal."""
        return self.details.config

    @property
    def created(self) -> str:
        """When it was built, RFC 3339."""
        return self.details.created

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the plain layers, lowest first."""
        return self.details.diff_ids

    @property
    def known_by(self) -> tuple[str, ...]:
        """Every digest others may know it by: its manifest's, and those of its indexes."""
        own = [digest.partition("@")[2] for digest in self.digests]
        return tuple(dict.fromkeys([self.manifest_digest, *own]))

    @property
    def references(self) -> tuple[str, ...]:
        """Every name of it, normalised."""
        return tuple(str(reference.parse(name)) for name in self.names + self.digests)


@dataclass(frozen=True)
class Snapshot:
    """What the index said at one moment; names are normalised."""

    stamp: tuple[int, int, int]
    by_id: dict[str, Image]
    by_name: dict[str, Image]
    broken: dict[str, ProaError]


class Catalog:
    """Finds images; safe for many threads, notices other processes' changes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._parsed: dict[str, tuple[Manifest, ImageConfig]] = {}
        self._guard = threading.Lock()
        self._current: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """All images now: one stat(2) when nothing changed."""
        with tree.reporting("read the image index"):
            current = self._current
            if current is None or current.stamp != self._layout.stamp():
                with self._guard:
                    current = self._current = self._read()
            return current

    def forget(self) -> None:
        """The index was changed by this process: do not trust its stamp."""
        self._current = None

    def get(self, name: str) -> Image:
        """The image of this name, id, digest or unique prefix of an id."""
        snapshot = self.snapshot()
        wanted = normalised(name)
        if wanted in snapshot.by_name:
            return snapshot.by_name[wanted]
        if wanted in snapshot.broken:
            raise snapshot.broken[wanted]
        image = _by_id(snapshot, name) or _by_digest(snapshot, name)
        if image is None:
            raise ImageNotFound(f"no such image '{name}'", hint="'proa images' lists what there is")
        return image

    def parse(self, manifest_digest: str) -> tuple[Manifest, ImageConfig]:
        """A stored image's two documents, checked."""
        known = self._parsed.get(manifest_digest)
        if known is None:
            parts = manifest.parse_manifest(self._layout.document(manifest_digest))
            details = config.parse(self._layout.document(parts.config.digest))
            staging.check_layers(details, parts)
            known = self._parsed[manifest_digest] = (parts, details)
        return known

    def blobs_of(self, diff_id: str) -> list[Descriptor]:
        """The blobs that images have for this layer."""
        pairs = [
            (own, blob)
            for image in self.snapshot().by_id.values()
            for own, blob in zip(image.diff_ids, image.manifest.layers, strict=True)
        ]
        return [blob for own, blob in pairs if own == diff_id]

    def _read(self) -> Snapshot:
        """All images now; what broke because it was removed meanwhile is looked at again."""
        while True:
            snapshot = self._read_once()
            if not snapshot.broken or snapshot.stamp == self._layout.stamp():
                return snapshot

    def _read_once(self) -> Snapshot:
        stamp = self._layout.stamp()
        lines = self._layout.read_index()
        snapshot = Snapshot(stamp, {}, {}, {})
        for line in lines:
            if line.subject:
                continue
            try:
                self._include(snapshot, line)
            except ProaError as error:
                snapshot.broken[line.name] = error
        for name, image in snapshot.by_name.items():
            known = snapshot.by_id[image.id]
            snapshot.by_name[name] = replace(image, names=known.names, digests=known.digests)
        live = {line.manifest.digest for line in lines}
        self._parsed = {key: value for key, value in self._parsed.items() if key in live}
        return snapshot

    def _include(self, snapshot: Snapshot, line: Named) -> None:
        digest = line.manifest.digest
        parts, details = self.parse(digest)
        image = Image(parts.config.digest, (), (), details, digest, parts, line.size_bytes)
        known = snapshot.by_id.setdefault(image.id, image)
        if not line.name:
            return
        name = reference.parse(line.name)
        names, digests = set(known.names), set(known.digests)
        (digests if name.digest else names).add(name.familiar)
        snapshot.by_id[image.id] = replace(
            known, names=tuple(sorted(names)), digests=tuple(sorted(digests))
        )
        snapshot.by_name[line.name] = image


def normalised(name: str) -> str:
    """The normalised form of a name; empty when it cannot be a name."""
    try:
        return str(reference.parse(name))
    except Invalid:
        return ""


def _by_id(snapshot: Snapshot, name: str) -> Image | None:
    match = _ID.fullmatch(name)
    if match is None:
        return None
    prefix = f"sha256:{match[1]}"
    if prefix in snapshot.by_id:
        return snapshot.by_id[prefix]
    found = [image for key, image in snapshot.by_id.items() if key.startswith(prefix)]
    if len(found) > 1:
        raise Invalid(f"image id '{name}' is ambiguous", hint="give more digits of it")
    return found[0] if found else None


def _by_digest(snapshot: Snapshot, name: str) -> Image | None:
    """By the digest of the manifest, alone or behind a repository that has it."""
    repository, at, digest = name.rpartition("@")
    for image in snapshot.by_id.values():
        if image.manifest_digest == digest and (not at or _is_of(image, repository)):
            return image
    return None


def _is_of(image: Image, repository: str) -> bool:
    wanted = normalised(repository)
    return any(
        reference.parse(name).repository == reference.parse(wanted).repository
        for name in image.names
        if wanted
    )
