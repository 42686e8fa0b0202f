"""YAML as a tree in which every node knows where it stands.  Pure: the parser is handed in.

Plain scalars mean what YAML 1.2's core schema says (`22:22` and `no` are text), as Compose has it.
A file is hostile: its length, depth and number of nodes are bounded, the nodes that aliases stand
for counted as often as they are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proa.errors import Invalid
from proa.printable import clean

TEXT_MAXIMUM = 1 << 20
DEPTH_MAXIMUM = 48
NODES_MAXIMUM = 100_000

Scalar = bool | int | float | str | None
_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Scalar]], ...] = (
    (re.compile(r"(?:~|null|Null|NULL)?"), lambda text: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text[0] in "tT"),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"0o[0-7]{1,20}"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]{1,16}"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?"), float),
)
_TAGS = {  # Compose's own; YAML's for text
    "!reset": "reset", "!override": "override", "tag:yaml.org,2002:str": "str", "!": "str",
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A place in a file, counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def error(self, message: str, hint: str = "") -> Invalid:
        """An error there, with its column."""
        return Invalid(f"{self.file}:{self.line}:{self.column}: {message}", hint=hint)


@dataclass(frozen=True)
class Node:
    """A scalar, a sequence or a mapping; in a mapping a value's mark is its key's.

    `text` is a scalar as it was written; `tag` is `reset` or `override` (Compose's merging).
    """

    mark: Mark
    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    text: str = ""
    tag: str = ""
    weight: int = field(default=1, compare=False)

    def items(self) -> Iterator[tuple[str, Node]]:
        """The pairs of a mapping; of anything else none."""
        return iter(self.value.items() if isinstance(self.value, Mapping) else ())

    def each(self) -> tuple[Node, ...]:
        """The elements of a sequence; of anything else none."""
        return self.value if isinstance(self.value, tuple) else ()

    def get(self, key: str) -> Node | None:
        """A mapping's value."""
        return self.value.get(key) if isinstance(self.value, Mapping) else None

    @property
    def kind(self) -> str:
        """What it is, for people."""
        if isinstance(self.value, Mapping):
            return "a mapping"
        return "a list" if isinstance(self.value, tuple) else "a value"

    def plain(self) -> Any:
        """The same as Python's own values."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        return (
            [node.plain() for node in self.value] if isinstance(self.value, tuple) else self.value
        )


def read(text: str, name: str, yaml: Any) -> Node:
    """The one document of a text; `yaml` is PyYAML's module.  Raises Invalid with line and column.

    Only its parser is used: no object is ever made of a tag.
    """
    if len(text) > TEXT_MAXIMUM:
        raise Invalid(f"'{name}' has more than '{TEXT_MAXIMUM}' characters")
    try:
        return _Builder(
            name, yaml, yaml.parse(text, Loader=getattr(yaml, "CLoader", yaml.Loader))
        ).document()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(name, place.line + 1, place.column + 1) if place else Mark(name, 1, 1)
        raise mark.error(clean(str(error.problem or error.context))) from None
    except yaml.YAMLError as error:  # of letters that YAML does not allow
        raise Mark(name, 1, 1).error(clean(str(error))) from None


class _Builder:
    """Events made into nodes."""

    def __init__(self, name: str, yaml: Any, events: Iterator[Any]) -> None:
        self._name = name
        self._yaml = yaml
        self._events = events
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def document(self) -> Node:
        event = next(self._events)
        while not isinstance(event, self._yaml.DocumentStartEvent):
            if isinstance(event, self._yaml.StreamEndEvent):
                raise Mark(self._name, 1, 1).error("the file is empty")
            event = next(self._events)
        found = self._node(next(self._events), 0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, self._yaml.StreamEndEvent):
            raise self._mark(after).error("a second document in one file")
        return found

    def _mark(self, event: Any) -> Mark:
        return Mark(self._name, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        mark = self._mark(event)
        if depth > DEPTH_MAXIMUM:
            raise mark.error(f"more than '{DEPTH_MAXIMUM}' levels")
        if isinstance(event, self._yaml.AliasEvent):
            return self._alias(event.anchor, mark)
        self._count(mark, 1)
        if event.anchor:
            self._anchors[event.anchor] = None
        node = self._make(event, mark, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str, mark: Mark) -> Node:
        if anchor not in self._anchors:
            raise mark.error(f"no anchor '{clean(anchor)}' before its alias")
        node = self._anchors[anchor]
        if node is None:
            raise mark.error(f"the anchor '{clean(anchor)}' contains itself")
        self._count(mark, node.weight)
        return node

    def _count(self, mark: Mark, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAXIMUM:
            raise mark.error(f"more than '{NODES_MAXIMUM}' nodes, aliases counted")

    def _make(self, event: Any, mark: Mark, depth: int) -> Node:
        tag = self._tag(event, mark)
        if isinstance(event, self._yaml.ScalarEvent):
            value = _scalar(event.value) if event.implicit[0] and tag != "str" else event.value
            return Node(mark, value, event.value, "" if tag == "str" else tag)
        if isinstance(event, self._yaml.SequenceStartEvent):
            items = tuple(self._until(self._yaml.SequenceEndEvent, depth))
            return Node(mark, items, "", tag, 1 + sum(item.weight for item in items))
        pairs = self._pairs(depth)
        return Node(mark, pairs, "", tag, 1 + sum(item.weight for item in pairs.values()))

    def _tag(self, event: Any, mark: Mark) -> str:
        if not event.tag or event.tag in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            return ""
        if event.tag not in _TAGS:
            raise mark.error(f"unknown tag '{clean(event.tag)}'")
        return _TAGS[event.tag]

    def _until(self, end: Any, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> dict[str, Node]:
        pairs: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        nodes = self._until(self._yaml.MappingEndEvent, depth)
        for key in nodes:
            value = next(nodes)
            if key.kind != "a value":
                raise key.mark.error(f"{key.kind} as a key")
            if key.text == "<<":
                merged |= {k: v for k, v in _merged(value).items() if k not in merged}
            elif key.text in pairs:
                raise key.mark.error(f"the key '{clean(key.text)}' is there twice")
            else:
                pairs[key.text] = Node(key.mark, value.value, value.text, value.tag, value.weight)
        return {**merged, **pairs}


def _merged(value: Node) -> dict[str, Node]:
    """What `<<` brings: of one mapping, or of several, earlier ones first."""
    found: dict[str, Node] = {}
    for source in value.each() or (value,):
        if not isinstance(source.value, Mapping):
            raise source.mark.error(f"'<<' merges mappings, this is {source.kind}")
        found |= {key: node for key, node in source.items() if key not in found}
    return found


def _scalar(text: str) -> Scalar:
    for pattern, convert in _PLAIN:
        if pattern.fullmatch(text):
            return convert(text)
    return text
