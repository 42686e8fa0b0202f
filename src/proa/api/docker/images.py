"""`/images`: what can be run, where it comes from and where it goes."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from proa.api.answer import Answer, Produced, Reply, json_bytes, json_reply
from proa.api.docker import bodies, lookup
from proa.api.docker.times import NEVER, seconds
from proa.api.http import Request
from proa.errors import Conflict, ImageNotFound, Invalid, Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine

LIST_FILTERS = frozenset({"reference", "dangling", "label", "before", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "until", "label"})
PULLING = "pulling images from a registry is not supported yet"
TAR = "application/x-tar"


class Details(Protocol):
    """The OCI image configuration: the whole document, and its history, oldest first."""

    @property
    def document(self) -> Mapping[str, Any]:
        """As stored."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """How it was made."""


class Image(Protocol):
    """What is read of the image store's images; `config` is what Docker calls `Config`."""

    @property
    def id(self) -> str:
        """Digest of the configuration."""

    @property
    def names(self) -> Sequence[str]:
        """`name:tag`, as Docker shows them."""

    @property
    def digests(self) -> Sequence[str]:
        """`name@sha256:...`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Cmd, Env, ..."""

    @property
    def details(self) -> Details:
        """Everything else."""

    @property
    def created(self) -> str:
        """RFC 3339, or empty."""

    @property
    def size_bytes(self) -> int:
        """Of all layers."""

    @property
    def diff_ids(self) -> Sequence[str]:
        """Digests of the plain layers, lowest first."""


def find(engine: Engine, reference: str) -> Image:
    """The image of that name or id."""
    try:
        image: Image = engine.images.get(reference)
    except ImageNotFound:
        raise lookup.missing_image(reference) from None
    return image


def listing(engine: Engine, request: Request) -> Answer:
    """GET /images/json."""
    given = bodies.filters(request)
    bodies.known_filters(given, LIST_FILTERS)
    tests = _tests(engine, given)
    images = [image for image in engine.images.all() if all(test(image) for test in tests)]
    images.sort(key=lambda image: seconds(image.created), reverse=True)
    return json_reply([summary(image, -1) for image in images])


def summary(image: Image, containers: int) -> dict[str, Any]:
    """One entry of a list of images."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.names),
        "RepoDigests": list(image.digests),
        "Created": int(seconds(image.created)),
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": _labels(image),
        "Containers": containers,
    }


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/json."""
    image = find(engine, request.parameter)
    document = image.details.document
    return json_reply(
        {
            "Id": image.id,
            "RepoTags": list(image.names),
            "RepoDigests": list(image.digests),
            "Parent": "",
            "Comment": document.get("comment", ""),
            "Created": image.created or NEVER,
            "Container": "",
            "ContainerConfig": None,
            "DockerVersion": "",
            "Author": document.get("author", ""),
            "Config": image.config,
            "Architecture": document.get("architecture", ""),
            "Variant": document.get("variant", ""),
            "Os": document.get("os", "linux"),
            "Size": image.size_bytes,
            "VirtualSize": image.size_bytes,
            "GraphDriver": {"Name": "proa", "Data": None},
            "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
            "Metadata": {"LastTagTime": NEVER},
        }
    )


def history(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/history: newest first."""
    image = find(engine, request.parameter)
    entries = [
        {
            "Id": "<missing>",
            "Created": int(seconds(entry.get("created", ""))),
            "CreatedBy": entry.get("created_by", ""),
            "Tags": None,
            "Size": 0,
            "Comment": entry.get("comment", ""),
        }
        for entry in reversed(image.details.history)
    ]
    if entries:
        entries[0] |= {"Id": image.id, "Tags": list(image.names) or None}
    return json_reply(entries)


def create(engine: Engine, request: Request) -> Answer:
    """POST /images/create: import from the body; pulling is not there yet."""
    if request.text("fromImage"):
        raise Unsupported(PULLING, hint="use 'load' or 'import'")
    source = request.text("fromSrc")
    if source != "-":
        raise Unsupported(f"importing from '{source}' is not supported", hint="send the tar itself")
    repository, tag = request.text("repo"), request.text("tag")
    reference = f"{repository}:{tag}" if repository and tag else repository
    changes = request.query.get("changes", [])
    image = engine.images.import_(
        request.file(), reference or None, changes, request.text("message")
    )
    return json_reply({"status": image.id})


def load(engine: Engine, request: Request) -> Answer:
    """POST /images/load: says what is there now, in the words the docker client prints."""
    loaded = engine.images.load(request.file())
    lines = []
    for image, names in loaded:
        said = [f"Loaded image: {name}\n" for name in names] or [f"Loaded image ID: {image.id}\n"]
        lines += [json_bytes({"stream": text}) for text in said]
    return Reply(200, b"".join(lines))


def save(engine: Engine, request: Request) -> Answer:
    """GET /images/get?names=... and /images/{name}/get."""
    names = [request.parameter] if request.parameter else request.query.get("names", [])
    if not names:
        raise Invalid("no image named")
    for name in names:
        find(engine, name)
    return Produced(functools.partial(engine.images.save, names), TAR)


def tag(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/tag."""
    image = find(engine, request.parameter)
    repository, name = request.text("repo"), request.text("tag")
    if not repository:
        raise Invalid("no name given for the image", hint="give 'repo' and 'tag'")
    engine.images.tag(image.id, f"{repository}:{name}" if name else repository)
    return Reply(201)


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /images/{name}."""
    find(engine, request.parameter)
    return json_reply(_removed(engine.images.remove(request.parameter, request.flag("force"))))


def _removed(steps: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{kind.capitalize(): name} for kind, name in steps]


def prune(engine: Engine, request: Request) -> Answer:
    """POST /images/prune: images without a name, or with dangling=false all that are unused."""
    given = bodies.filters(request)
    bodies.known_filters(given, PRUNE_FILTERS)
    dangling_only = _truth("dangling", given.pop("dangling", ["true"]))
    tests = _tests(engine, given)
    used = {item.image_id for item in engine.list(True, {})}
    deleted: list[dict[str, str]] = []
    freed = 0
    for image in engine.images.all():
        named = dangling_only and image.names
        if named or image.id in used or not all(test(image) for test in tests):
            continue
        try:
            deleted += _removed(engine.images.remove(image.id, True))
        except (Conflict, ImageNotFound):
            continue  # used or removed by somebody meanwhile
        freed += image.size_bytes
    return json_reply({"ImagesDeleted": deleted or None, "SpaceReclaimed": freed})


def _labels(image: Image) -> dict[str, str] | None:
    return image.config.get("Labels")


def _tests(engine: Engine, given: dict[str, list[str]]) -> list[Callable[[Image], bool]]:
    """One test per filter; an image is kept when all hold."""
    tests: list[Callable[[Image], bool]] = []
    if patterns := given.get("reference"):
        tests.append(lambda image: any(_named(image, pattern) for pattern in patterns))
    if dangling := given.get("dangling"):
        wanted = _truth("dangling", dangling)
        tests.append(lambda image: (not image.names) == wanted)
    for label in given.get("label", []):
        tests.append(functools.partial(_has_label, label))
    if until := given.get("until"):
        latest = seconds(until[0])
        tests.append(lambda image: seconds(image.created) < latest)
    for name in given.get("before", []):
        tests.append(functools.partial(_created_before, find(engine, name)))
    for name in given.get("since", []):
        tests.append(functools.partial(_created_after, find(engine, name)))
    return tests


def _created_before(other: Image, image: Image) -> bool:
    return seconds(image.created) < seconds(other.created)


def _created_after(other: Image, image: Image) -> bool:
    return seconds(image.created) > seconds(other.created)


def _truth(name: str, values: list[str]) -> bool:
    text = values[0].lower() if values else ""
    if text not in ("true", "false", "1", "0"):
        raise Invalid(f"invalid value '{text}' for filter '{name}'")
    return text in ("true", "1")


def _has_label(wanted: str, image: Image) -> bool:
    name, equals, value = wanted.partition("=")
    labels = _labels(image) or {}
    return name in labels and (not equals or labels[name] == value)


def _named(image: Image, pattern: str) -> bool:
    """A reference with or without its tag, `*` matching within it."""
    for name in image.names:
        repository, colon, tag_ = name.rpartition(":")
        bare = repository if colon and "/" not in tag_ else name
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(bare, pattern):
            return True
    return False
