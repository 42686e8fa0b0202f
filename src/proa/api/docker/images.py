"""`/images`: what can be run, where it comes from and where it goes."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Produced, Reply, json_bytes, json_reply
from proa.api.docker import bodies, lookup, registries
from proa.api.docker.times import seconds
from proa.api.request import Request
from proa.errors import ImageNotFound, Invalid, Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine

LIST_FILTERS = frozenset({"reference", "dangling", "label", "before", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "until", "label"})
FORMATS = ("docker-archive", "oci-archive")
TAR = "application/x-tar"
Image = dict[str, Any]  # as Docker lists or inspects it


def listing(engine: Engine, request: Request) -> Answer:
    """GET /images/json."""
    given = bodies.filters(request)
    bodies.known_filters(given, LIST_FILTERS)
    tests = _tests(engine, given)
    found = [image for image in engine.images.list() if all(test(image) for test in tests)]
    if request.flag("shared-size"):
        usage = engine.images.usage().images
        found = [
            image | {"SharedSize": usage[image["Id"]].shared_bytes} for image in found
            if image["Id"] in usage
        ]  # fmt: skip
    return json_reply(found)


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/json."""
    return json_reply(_find(engine, request.parameter))


def history(engine: Engine, request: Request) -> Answer:
    """GET /images/{name}/history: newest first."""
    _find(engine, request.parameter)
    return json_reply(engine.images.history(request.parameter))


def _find(engine: Engine, reference: str) -> Image:
    try:
        image: Image = engine.images.inspect(reference)
    except ImageNotFound:
        raise lookup.missing_image(reference) from None
    return image


def create(engine: Engine, request: Request) -> Answer:
    """POST /images/create: pull, or import from the body."""
    if request.text("fromImage"):
        return registries.pull(engine, request)
    source = request.text("fromSrc")
    if source != "-":
        raise Unsupported(f"importing from '{source}' is not supported", hint="send the tar itself")
    repository, tag = request.text("repo"), request.text("tag")
    name = f"{repository}:{tag}" if repository and tag else repository
    changes = request.query.get("changes", [])
    about = {key: request.text(key) for key in ("message", "platform")}
    image = engine.images.import_(request.file(), name, changes, about)
    return json_reply({"status": image.id})


def load(engine: Engine, request: Request) -> Answer:
    """POST /images/load: says what is there now, in the words the docker client prints."""
    lines: list[str] = []
    for loaded in engine.images.load(request.file()):
        lines += [f"Loaded image: {name}\n" for name in loaded.names]
        if not loaded.names:
            lines.append(f"Loaded image ID: {loaded.image.id}\n")
    return Reply(200, b"".join(json_bytes({"stream": line}) for line in lines))


def save(engine: Engine, request: Request) -> Answer:
    """GET /images/get?names=... and /images/{name}/get; `format` as `proa save` has it."""
    names = [request.parameter] if request.parameter else request.query.get("names", [])
    if not names:
        raise Invalid("no image named")
    for name in names:
        _find(engine, name)
    kind = request.text("format") or "docker-archive"
    if kind not in FORMATS:
        raise Invalid(f"unknown format '{kind}'", hint=f"known are {', '.join(FORMATS)}")
    return Produced(functools.partial(engine.images.save, names, kind=kind), TAR)


def tag(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/tag."""
    image = _find(engine, request.parameter)
    repository, name = request.text("repo"), request.text("tag")
    if not repository:
        raise Invalid("no name given for the image", hint="give 'repo' and 'tag'")
    engine.images.tag(image["Id"], f"{repository}:{name}" if name else repository)
    return Reply(201)


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /images/{name}."""
    _find(engine, request.parameter)
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
    going = [
        image["Id"]
        for image in engine.images.list()
        if not (dangling_only and image["RepoTags"])
        and image["Id"] not in used
        and all(test(image) for test in tests)
    ]
    removed, freed = engine.images.prune(going)
    return json_reply({"ImagesDeleted": _removed(removed) or None, "SpaceReclaimed": freed})


def _tests(engine: Engine, given: dict[str, list[str]]) -> list[Callable[[Image], bool]]:
    """One test per filter; an image is kept when all hold."""
    tests: list[Callable[[Image], bool]] = []
    if patterns := given.get("reference"):
        tests.append(lambda image: any(_named(image, pattern) for pattern in patterns))
    if dangling := given.get("dangling"):
        wanted = _truth("dangling", dangling)
        tests.append(lambda image: (not image["RepoTags"]) == wanted)
    for label in given.get("label", []):
        tests.append(functools.partial(_has_label, label))
    if until := given.get("until"):
        latest = seconds(until[0])
        tests.append(lambda image: image["Created"] < latest)
    for name in given.get("before", []):
        tests.append(functools.partial(_created_before, _created(engine, name)))
    for name in given.get("since", []):
        tests.append(functools.partial(_created_after, _created(engine, name)))
    return tests


def _created(engine: Engine, name: str) -> int:
    return int(seconds(_find(engine, name)["Created"]))


def _created_before(limit: int, image: Image) -> bool:
    created: int = image["Created"]
    return created < limit


def _created_after(limit: int, image: Image) -> bool:
    created: int = image["Created"]
    return created > limit


def _truth(name: str, values: list[str]) -> bool:
    text = values[0].lower() if values else ""
    if text not in ("true", "false", "1", "0"):
        raise Invalid(f"invalid value '{text}' for filter '{name}'")
    return text in ("true", "1")


def _has_label(wanted: str, image: Image) -> bool:
    name, equals, value = wanted.partition("=")
    labels = image["Labels"] or {}
    return name in labels and (not equals or labels[name] == value)


def _named(image: Image, pattern: str) -> bool:
    """A reference with or without its tag, `*` matching within it."""
    for name in image["RepoTags"] or []:
        repository, colon, tag_ = name.rpartition(":")
        bare = repository if colon and "/" not in tag_ else name
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(bare, pattern):
            return True
    return False
