"""App files laid over each other, services over what they extend (compose-spec, 13).  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from proa.advice.compose import values
from proa.advice.compose.document import Node

# What may be written as a list of `KEY=VALUE`, as a list of names, as one text: one form each.
_PAIRS = ("environment", "labels", "annotations", "sysctls", "args", "extra_hosts")
_NAMES = {"networks", "depends_on"}
_LISTS = {"dns", "dns_search", "tmpfs", "env_file", "label_file"}
_REPLACED = {"command", "entrypoint", "test"}  # by the last file that has it
_UNIQUE = {"ports", "volumes", "devices", "secrets", "configs"}  # by what they are in the instance
_SET = {
    "cap_add", "cap_drop", "device_cgroup_rules", "expose", "external_links", "security_opt",
    "group_add", "profiles", "links", "tmpfs",
}  # fmt: skip
_PARTS = ("build", "deploy")  # of a service, which have such keys themselves


def canonical(service: Node) -> Node:
    """A service with one way of writing everything that can be merged."""
    if not isinstance(service.value, Mapping):
        return service
    found: dict[str, Node] = {}
    for key, item in service.items():
        if key == "build" and isinstance(item.value, str):
            item = _mapping(item, {"context": item})
        if key in _PARTS:
            item = canonical(item)
        elif key in _PAIRS:
            item = _from_pairs(item, ":=" if key == "extra_hosts" else "=")
        elif key in _NAMES and isinstance(item.value, tuple):
            item = _mapping(item, {values.text(name): _named(key, name) for name in item.each()})
        elif key in _LISTS and isinstance(item.value, str):
            item = _sequence(item, (Node(item.mark, item.value, item.text),))
        if isinstance(item.value, tuple) and (key in _UNIQUE or key in _SET):
            item = _sequence(item, _joined((), item.value, key))
        found[key] = item
    return _mapping(service, found)


def _named(key: str, name: Node) -> Node:
    """What the name of another service, or of a network, alone says of it."""
    if key != "depends_on":
        return Node(name.mark, None)
    return Node(name.mark, {"condition": Node(name.mark, "service_started", "service_started")})


def _from_pairs(node: Node, separators: str) -> Node:
    if not isinstance(node.value, tuple):
        return node
    found: dict[str, Node] = {}
    for item in node.value:
        written = values.text(item)
        at = min((i for i in map(written.find, separators) if i >= 0), default=-1)
        key = written if at < 0 else written[:at]
        value = None if at < 0 else written[at + 1 :]
        found[key] = Node(item.mark, value, value or "")
    return _mapping(node, found)


def merge(base: Node, over: Node, key: str = "") -> Node:
    """`over` laid over `base`; `key` is where they stand."""
    if over.tag == "override":
        return over
    if isinstance(base.value, Mapping) and isinstance(over.value, Mapping):
        found = dict(base.value)
        for name, item in over.value.items():
            if item.tag == "reset":
                found.pop(name, None)
            else:
                found[name] = merge(found[name], item, name) if name in found else item
        return _mapping(over, found)
    if isinstance(base.value, tuple) and isinstance(over.value, tuple) and key not in _REPLACED:
        return _sequence(over, _joined(base.value, over.value, key))
    return base if over.value is None and isinstance(base.value, Mapping) else over


def _joined(base: tuple[Node, ...], over: tuple[Node, ...], key: str) -> tuple[Node, ...]:
    if key in _SET:
        return tuple({item.text: item for item in (*base, *over)}.values())
    if key not in _UNIQUE:
        return (*base, *over)
    found: dict[str, Node] = {}
    for item in (*base, *over):
        name = values.target(key, item)
        found[name] = merge(found[name], item) if name in found else item
    return tuple(found.values())


def without_resets(node: Node) -> Node:
    """The tree without what a `!reset` was said of."""
    if isinstance(node.value, Mapping):
        kept = {
            key: without_resets(item) for key, item in node.value.items() if item.tag != "reset"
        }
        return _mapping(node, kept)
    if isinstance(node.value, tuple):
        return _sequence(node, tuple(map(without_resets, node.value)))
    return node


def _mapping(like: Node, found: dict[str, Node]) -> Node:
    weight = 1 + sum(item.weight for item in found.values())
    return Node(like.mark, found, "", like.tag, weight)


def _sequence(like: Node, found: tuple[Node, ...]) -> Node:
    return Node(like.mark, found, "", like.tag, 1 + sum(item.weight for item in found))
