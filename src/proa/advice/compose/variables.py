"""`${VARIABLE}` in app files, and the `.env` files beside them (compose-spec, 12).  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from proa.advice.compose.document import Mark, Node
from proa.printable import clean

VALUE_MAXIMUM = 1 << 16
_DEPTH_MAXIMUM = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_.][A-Za-z0-9_.-]*)\s*(?:[=:](.*))?$", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


@dataclass
class Variables:
    """What is known, and the names that were asked for and are not."""

    values: Mapping[str, str]
    unset: dict[str, Mark] = field(default_factory=dict)

    def fill(self, node: Node) -> Node:
        """The same tree with all its texts filled in; keys stay."""
        if isinstance(node.value, Mapping):
            pairs = {key: self.fill(item) for key, item in node.value.items()}
            return Node(node.mark, pairs, "", node.tag, node.weight)
        if isinstance(node.value, tuple):
            items = tuple(self.fill(item) for item in node.value)
            return Node(node.mark, items, "", node.tag, node.weight)
        if isinstance(node.value, str) and "$" in node.value:
            text = self.text(node.value, node.mark)
            return Node(node.mark, text, text, node.tag)
        return node

    def text(self, text: str, mark: Mark, depth: int = 0) -> str:
        """A text with its variables replaced.  Raises Invalid at `mark`."""
        if depth > _DEPTH_MAXIMUM:
            raise mark.error("variables within variables, too deep")
        parts: list[str] = []
        at = size = 0
        while at < len(text):
            dollar = text.find("$", at)
            if dollar < 0:
                dollar = len(text)
            parts.append(text[at:dollar])
            at = dollar
            if dollar < len(text):
                part, at = self._one(text, dollar + 1, (mark, depth))
                parts.append(part)
            size += sum(map(len, parts[-2:]))
            if size > VALUE_MAXIMUM:
                raise mark.error(f"a value of more than '{VALUE_MAXIMUM}' characters")
        return "".join(parts)

    def _one(self, text: str, at: int, place: tuple[Mark, int]) -> tuple[str, int]:
        """What stands after a dollar, and where the text goes on."""
        if text[at : at + 1] == "$":
            return "$", at + 1
        braced = text[at : at + 1] == "{"
        found = _NAME.match(text, at + braced)
        if found is None:
            raise place[0].error(
                f"'{clean(text)}' has a '$' without a variable", hint="write $$ for a dollar"
            )
        if not braced:
            return self._value(found[0], place[0]), found.end()
        end = _closing(text, found.end())
        if end < 0:
            raise place[0].error(f"'{clean(text)}' has an open '${{'")
        return self._braced(found[0], text[found.end() : end], place), end + 1

    def _braced(self, name: str, rest: str, place: tuple[Mark, int]) -> str:
        mark, depth = place
        if not rest:
            return self._value(name, mark)
        operator = _OPERATOR.match(rest)
        if operator is None:
            raise mark.error(f"'${{{clean(name + rest)}}}' is no variable")
        value, sign = self.values.get(name), operator[0][-1]
        there = bool(value) if operator[0][0] == ":" else value is not None
        if sign == "+":
            return self.text(rest[operator.end() :], mark, depth + 1) if there else ""
        if there:
            return value or ""
        word = self.text(rest[operator.end() :], mark, depth + 1)
        if sign == "?":
            raise mark.error(f"the variable '{name}' is needed: {clean(word) or 'it is not set'}")
        return word

    def _value(self, name: str, mark: Mark) -> str:
        if name not in self.values:
            self.unset.setdefault(name, mark)
        return self.values.get(name, "")


def _closing(text: str, at: int) -> int:
    depth = 1
    while at < len(text):
        if text.startswith("$$", at):
            at += 2
            continue
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    return -1


def read_env(text: str, name: str, known: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file; `known` ones win, and may be used in it.  Raises Invalid."""
    found: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        mark = Mark(name, number, 1)
        match = _LINE.fullmatch(line)
        if match is None:
            raise mark.error(f"'{clean(line)}' is no NAME=VALUE")
        if match[2] is None:  # taken from the environment
            found |= {match[1]: known[match[1]]} if match[1] in known else {}
            continue
        raw = match[2].strip()
        while raw[:1] in ("'", '"') and _end_of_quoted(raw) < 0:
            further = next(lines, None)
            if further is None:
                raise mark.error(f"the quote of '{match[1]}' does not end")
            raw += "\n" + further[1]
        found[match[1]] = _env_value(raw, mark, {**found, **known})
    return found


def _end_of_quoted(raw: str) -> int:
    at = 1
    while at < len(raw):
        if raw[at] == "\\" and raw[0] == '"':
            at += 1
        elif raw[at] == raw[0]:
            return at
        at += 1
    return -1


def _env_value(raw: str, mark: Mark, known: Mapping[str, str]) -> str:
    if raw[:1] == "'":
        return raw[1 : _end_of_quoted(raw)]
    if raw[:1] == '"':
        inner = raw[1 : _end_of_quoted(raw)]
        raw = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), inner)
    else:
        raw = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].rstrip()
    return Variables(known).text(raw, mark)
