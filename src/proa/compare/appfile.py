"""App files on this machine: found, read, and turned into facts by service."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proa.advice.compose import app, facts, files
from proa.advice.compose.document import TEXT_MAXIMUM
from proa.advice.facts import Facts
from proa.errors import Invalid, NotFound
from proa.host import libraries

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Subject:
    """One service: its facts, and the image that more is known of when it is in the store.

    `image` is empty for a service that is built; join with `advice.compose.facts.combine`.
    `entrypoint` and `command` are None where the image's own are meant.
    """

    name: str
    image: str
    facts: Facts
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None


def is_app_file(path: str) -> bool:
    """Whether a subject is meant as an app file: by its name, or a directory that has one."""
    if os.path.isdir(path):
        return any(os.path.isfile(os.path.join(path, name)) for name in NAMES)
    return path.endswith(SUFFIXES)


def subjects(
    paths: Sequence[str],
    profiles: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Subject]:
    """The services of an app (without those of other profiles), in the order of the file.

    `paths` are its files, later ones over earlier ones, or its directory; `environment` is the
    caller's by default.  Raises NotFound, Invalid (file, line, column), Unsupported without PyYAML.
    """
    found = read(paths, environment)
    for service in found.active(profiles):
        image = "" if service.build else service.image
        own = facts.facts_of(found, service)
        yield Subject(service.name, image, own, service.entrypoint, service.command)


def read(paths: Sequence[str], environment: Mapping[str, str] | None = None) -> app.App:
    """The app of these files, or of a directory's."""
    chosen = _chosen(paths)
    yaml = libraries.need("yaml", "an app file", "pyyaml (Debian: apt install python3-yaml)")
    known = os.environ if environment is None else environment
    reading = files.Reading(load, yaml, dict(known))
    directory = os.path.dirname(chosen[0])
    beside = os.path.join(directory, ".env")
    where = files.place(reading, directory, [beside] if os.path.isfile(beside) else [])
    return app.read(reading, chosen, where)


def _chosen(paths: Sequence[str]) -> list[str]:
    if len(paths) != 1 or not os.path.isdir(paths[0]):
        return list(paths)
    there = [os.path.join(paths[0], name) for name in NAMES]
    first = next((path for path in there if os.path.isfile(path)), "")
    if not first:
        raise NotFound(f"no app file in '{paths[0]}'", hint=f"looked for {', '.join(NAMES)}")
    base, suffix = os.path.splitext(first)
    override = f"{base}.override{suffix}"
    return [first, override] if os.path.isfile(override) else [first]


def load(path: str) -> str:
    """A file's text.  Raises NotFound, Invalid."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise NotFound(f"cannot open '{path}': {reason}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid(f"'{path}' is no regular file")
    with open(descriptor, "rb") as file:
        data = file.read(4 * TEXT_MAXIMUM + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"'{path}' is no text: byte {error.start} is not UTF-8") from None
    if len(data) > 4 * TEXT_MAXIMUM:
        raise Invalid(f"'{path}' is too large")
    return text
