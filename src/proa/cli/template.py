"""The part of Go's templates that people use with `--format`.

`{{.A.B}}`, `{{json .}}`, `{{len .A}}`, `{{upper .A}}`, `{{lower .A}}`, `{{join .A ","}}`,
`{{index .A "key"}}`, `{{println .A}}`, `{{range .A}}…{{end}}`, `{{range $k, $v := .A}}`,
`{{if .A}}…{{else}}…{{end}}`.  Anything else is refused, not guessed.
"""

from __future__ import annotations

import shlex

from proa.client import fastjson
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Node = tuple[str, str, list["Node"], list["Node"]]  # kind, words, body, else-body

_ESCAPES = (("\\t", "\t"), ("\\n", "\n"))


class Template:
    """A parsed template.  Raises Invalid for what it does not know."""

    def __init__(self, text: str) -> None:
        for escape, character in _ESCAPES:
            text = text.replace(escape, character)
        self._tokens = list(_tokens(text))
        self._position = 0
        self._nodes, ending = self._parse()
        if ending:
            raise Invalid(f"'{{{{{ending}}}}}' without a beginning in the template")

    def render(self, data: object) -> str:
        """The text for one object."""
        return _render(self._nodes, data, {"$": data})

    def _parse(self) -> tuple[list[Node], str]:
        """Nodes up to `else`, `end` or the end, and which of these it was."""
        nodes: list[Node] = []
        while self._position < len(self._tokens):
            kind, text = self._tokens[self._position]
            self._position += 1
            head = text.split(None, 1)[0] if kind == "action" and text else ""
            if head in ("end", "else"):
                return nodes, head
            if head in ("range", "if"):
                nodes.append(self._block(head, text.split(None, 1)[1:]))
            else:
                nodes.append((kind, text, [], []))
        return nodes, ""

    def _block(self, kind: str, words: list[str]) -> Node:
        body, ending = self._parse()
        other: list[Node] = []
        if ending == "else":
            other, ending = self._parse()
        if ending != "end" or not words:
            raise Invalid(f"'{{{{{kind}}}}}' without an end in the template")
        return kind, words[0], body, other


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    while text:
        plain, opened, rest = text.partition("{{")
        if plain:
            yield "text", plain
        if not opened:
            return
        action, closed, text = rest.partition("}}")
        if not closed:
            raise Invalid("the template has '{{' without '}}'")
        yield "action", action.strip().removeprefix("- ").removesuffix(" -").strip()


def _render(nodes: list[Node], dot: object, scope: dict[str, Any]) -> str:
    return "".join(_render_node(node, dot, scope) for node in nodes)


def _render_node(node: Node, dot: object, scope: dict[str, Any]) -> str:
    kind, words, body, other = node
    if kind == "text":
        return words
    if kind == "if":
        return _render(body if _evaluate(words, dot, scope) else other, dot, scope)
    if kind == "range":
        return _render_range(node, dot, scope)
    return _show(_evaluate(words, dot, scope))


def _render_range(node: Node, dot: object, scope: dict[str, Any]) -> str:
    _, words, body, other = node
    names: list[str] = []
    if ":=" in words:
        left, _, words = words.partition(":=")
        names = [name.strip() for name in left.split(",")]
    items = _evaluate(words.strip(), dot, scope)
    pairs = list(items.items() if isinstance(items, dict) else enumerate(items or ()))
    if not pairs:
        return _render(other, dot, scope)
    parts = []
    for key, value in pairs:
        bound = (
            {names[0]: value} if len(names) == 1 else dict(zip(names, (key, value), strict=False))
        )
        parts.append(_render(body, value, {**scope, **bound}))
    return "".join(parts)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": fastjson.dumps,
    "len": len,
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
    "title": lambda value: str(value).title(),
    "join": lambda values, separator: separator.join(map(str, values or ())),
    "split": lambda value, separator: str(value).split(separator),
    "index": lambda value, *keys: _index(value, keys),
    "println": lambda value: f"{_show(value)}\n",
    "print": lambda value: value,
}


def _index(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else (value or {}).get(str(key), "")
    return value


def _evaluate(words: str, dot: object, scope: dict[str, Any]) -> Any:
    if words.startswith("/*"):
        return ""
    try:
        parts = shlex.split(words, posix=False)
        head, *arguments = parts
    except ValueError:
        raise Invalid(f"the template's '{{{{{words}}}}}' says nothing") from None
    if head not in _FUNCTIONS:
        if arguments:
            raise Invalid(
                f"unknown function '{head}' in the template",
                hint=f"known: {', '.join(sorted(_FUNCTIONS))}",
            )
        return _operand(head, dot, scope)
    try:
        return _FUNCTIONS[head](*(_operand(argument, dot, scope) for argument in arguments))
    except (TypeError, ValueError, IndexError) as error:
        raise Invalid(f"the template's '{{{{{words}}}}}' does not work: {error}") from None


def _operand(word: str, dot: object, scope: dict[str, Any]) -> Any:
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'`":
        return word[1:-1]
    if word.lstrip("-").isdigit():
        return int(word)
    value: Any = dot
    if word.startswith("$"):
        name, _, rest = word.partition(".")
        if name not in scope:
            raise Invalid(f"unknown variable '{name}' in the template")
        value, word = scope[name], f".{rest}"
    if not word.startswith("."):
        raise Invalid(f"unknown word '{word}' in the template")
    for name in word.split("."):
        if name:
            value = _field(value, name, word)
    return value


def _field(value: Any, name: str, word: str) -> Any:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        raise Invalid(
            f"the template's '{word}' has no '{name}'", hint=f"known: {', '.join(sorted(value))}"
        )
    raise Invalid(f"the template's '{word}' asks for '{name}' of something that has no fields")


def _show(value: Any) -> str:
    """As Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(_show, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_show(item)}' for key, item in sorted(value.items()))}]"
    return str(value)
