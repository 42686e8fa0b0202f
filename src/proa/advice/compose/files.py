"""App files read, filled in and laid over each other, with what they extend and include.  Pure.

Files are read by a function that is handed in; their paths are the app's author's words.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proa.advice.compose import document, keys, merging, values
from proa.advice.compose.document import Mark, Node
from proa.advice.compose.variables import Variables, read_env
from proa.errors import Invalid

FILES_MAXIMUM = 64
SERVICES_MAXIMUM = 1000
_EXTENDS_MAXIMUM = 16
_WEIGHT_MAXIMUM = 2 * document.NODES_MAXIMUM


@dataclass
class Reading:
    """What reading needs: `load` gives a file's text (raises ProaError), `yaml` is PyYAML.

    `environment` are variables that win over those of `.env` files.
    """

    load: Callable[[str], str]
    yaml: Any
    environment: Mapping[str, str] = field(default_factory=dict)
    unset: dict[str, Mark] = field(default_factory=dict)
    read: int = 0
    weight: int = 0

    def count(self, node: Node) -> Node:
        """Account for a service that was made.  Raises Invalid when all are too much."""
        self.weight += node.weight
        if self.weight > _WEIGHT_MAXIMUM:
            raise node.mark.error("the services are too large")
        return node


@dataclass(frozen=True)
class Place:
    """Where a file's relative paths begin, and its variables."""

    directory: str
    variables: Variables


def place(reading: Reading, directory: str, env_files: Sequence[str] = ()) -> Place:
    """A project's directory with the variables of its env files."""
    found: dict[str, str] = {}
    for path in env_files:
        known = {**found, **reading.environment}
        found |= read_env(reading.load(path), path, known)
    return Place(directory, Variables({**found, **reading.environment}, reading.unset))


def read(reading: Reading, paths: Sequence[str], where: Place) -> Node:
    """The files of an app as one tree, later ones over earlier ones; nothing left to extend."""
    result: Node | None = None
    for path in paths:
        tree = _included(reading, _one(reading, path, where), where)
        result = merging.merge(result, tree) if result else tree
    if result is None:
        raise Invalid("no app file")
    return merging.without_resets(result)


def _one(reading: Reading, path: str, where: Place) -> Node:
    """One file: checked, filled in, its services whole."""
    tree = _parsed(reading, path, where)
    services = tree.get("services")
    if services is None or services.value is None:
        return tree
    if not isinstance(services.value, Mapping):
        raise services.mark.error(f"'services' is a mapping of services, this is {services.kind}")
    if len(services.value) > SERVICES_MAXIMUM:
        raise services.mark.error(f"more than '{SERVICES_MAXIMUM}' services")
    whole = {
        name: reading.count(_whole(reading, (name, path, tree), where, ()))
        for name in services.value
    }
    done = Node(services.mark, whole, "", services.tag, 1 + sum(s.weight for s in whole.values()))
    return Node(tree.mark, {**dict(tree.items()), "services": done}, "", "", tree.weight)


def _parsed(reading: Reading, path: str, where: Place) -> Node:
    reading.read += 1
    if reading.read > FILES_MAXIMUM:
        raise Invalid(f"the app has more than '{FILES_MAXIMUM}' files")
    tree = where.variables.fill(document.read(reading.load(path), path, reading.yaml))
    if not isinstance(tree.value, Mapping):
        raise tree.mark.error(f"an app file is a mapping, this is {tree.kind}")
    keys.check(tree, keys.FILE, "an app file")
    return tree


_Which = tuple[str, str, Node]  # service, path of its file, the file


def _whole(reading: Reading, which: _Which, where: Place, seen: tuple[str, ...]) -> Node:
    """A service over the one it extends."""
    name, path, tree = which
    services = tree.get("services")
    service = services.get(name) if services else None
    if service is None:
        raise tree.mark.error(f"no service '{name[:80]}' to extend")
    if not isinstance(service.value, Mapping):
        raise service.mark.error(f"a service is a mapping, this is {service.kind}")
    keys.check(service, keys.SERVICE, f"the service '{name[:80]}'")
    service = merging.canonical(service)
    extends = service.get("extends")
    if extends is None:
        return service
    identity = f"{path}\n{name}"
    if identity in seen or len(seen) >= _EXTENDS_MAXIMUM:
        raise extends.mark.error(f"the service '{name[:80]}' extends itself, or too many")
    base = _base(reading, (extends, path, tree), where, (*seen, identity))
    own = {key: item for key, item in service.items() if key != "extends"}
    return reading.count(merging.merge(base, Node(service.mark, own, "", service.tag)))


def _base(reading: Reading, which: tuple[Node, str, Node], where: Place, seen: Any) -> Node:
    extends, path, tree = which
    if isinstance(extends.value, str):
        return _whole(reading, (extends.value, path, tree), where, seen)
    service, file = extends.get("service"), extends.get("file")
    if service is None:
        raise extends.mark.error("'extends' without a service")
    if file is not None:
        path = posixpath.join(where.directory, values.text(file))
        tree = _parsed(reading, path, where)
        found = _whole(reading, (values.text(service), path, tree), where, seen)
        return _moved(
            found, posixpath.relpath(posixpath.dirname(path) or ".", where.directory or ".")
        )
    return _whole(reading, (values.text(service), path, tree), where, seen)


def _moved(service: Node, by: str) -> Node:
    """A service of another directory's file: its host's paths, as they are from here."""
    mounts = service.get("volumes")
    if by == "." or mounts is None:
        return service
    moved = tuple(_moved_mount(item, by) for item in mounts.each())
    pairs = {**dict(service.items()), "volumes": Node(mounts.mark, moved, "", "", mounts.weight)}
    return Node(service.mark, pairs, "", service.tag, service.weight)


def _moved_mount(item: Node, by: str) -> Node:
    if isinstance(item.value, str) and item.value.startswith("."):
        source, _, rest = item.value.partition(":")
        path = posixpath.normpath(posixpath.join(by, source))
        moved = f"{path if path.startswith('.') else './' + path}:{rest}"
        return Node(item.mark, moved, moved)
    return item


def _included(reading: Reading, tree: Node, where: Place) -> Node:
    """A file over those it includes."""
    include = tree.get("include")
    if include is None:
        return tree
    result: Node | None = None
    for item in values.sequence(include):
        found = _include(reading, item, where)
        result = merging.merge(result, found) if result else found
    own = {key: node for key, node in tree.items() if key != "include"}
    rest = Node(tree.mark, own, "", "", tree.weight)
    return merging.merge(result, rest) if result else rest


def _include(reading: Reading, item: Node, where: Place) -> Node:
    said = dict(item.items()) if isinstance(item.value, Mapping) else {"path": item}
    if "path" not in said:
        raise item.mark.error("'include' without a path")
    paths = [posixpath.join(where.directory, path) for path in values.texts(said["path"])]
    if not paths:
        raise item.mark.error("'include' without a path")
    directory = posixpath.dirname(paths[0])
    if "project_directory" in said:
        directory = posixpath.join(where.directory, values.text(said["project_directory"]))
    env = values.texts(said["env_file"]) if "env_file" in said else ()
    inner = place(
        Reading(reading.load, reading.yaml, where.variables.values, reading.unset),
        directory, [posixpath.join(where.directory, path) for path in env],
    )  # fmt: skip
    return read(reading, paths, inner)
