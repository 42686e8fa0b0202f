"""One pattern of an ignore file as a function: `**`, `*`, `?`, classes, as moby/patternmatcher.

Patterns of few wildcards become regular expressions; of many, a simulation of all ways at once,
because what comes with a context must not be able to make the matching take for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Matcher = Callable[[str], bool]

_FEW = 2  # wildcards of any length in a regular expression: its worst case is quadratic
_STAR, _ANY, _ENTER, _DEEP, _REST = "*", "?", "enter", "deep", "rest"
_LENGTHY = (_STAR, _DEEP, _REST)
_EXPRESSIONS = {_STAR: "[^/]*", _ANY: "[^/]", _ENTER: "(?:.*", _DEEP: "/)?", _REST: ".*"}


def compiled(pattern: str) -> Matcher | None:
    """Whether a path matches, as a function; None when the pattern is malformed.

    `pattern` is clean: no trailing slash, no `.` or empty names.
    """
    tokens = _tokens(pattern)
    if tokens is None:
        return None
    wild = [token for token in tokens if not token.startswith("=")]
    if not wild:
        return "".join(token[1:] for token in tokens).__eq__
    if wild == [_ENTER, _DEEP] and pattern.rfind("*") == 1 and "\\" not in pattern:
        return _ending(pattern[2:])
    if wild == [_REST] and "\\" not in pattern:
        return lambda path: path.startswith(pattern[:-2])
    if sum(token in _LENGTHY for token in wild) > _FEW:
        return _Machine(tokens).matches
    expression = re.compile("".join(map(_expression, tokens)))
    return lambda path: expression.fullmatch(path) is not None


def _ending(text: str) -> Matcher:
    """`**/name`, or the odd `**name`, which any path with that end matches."""
    if text.startswith("/"):
        return lambda path: path.endswith(text) or path == text[1:]
    return lambda path: path.endswith(text)


def _tokens(pattern: str) -> list[str] | None:
    """`=c` for a character, `[...]` for a class, else a wildcard's name."""
    found: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern.startswith("*", position):
            position += 1
            position += pattern.startswith("/", position)
            if position == len(pattern):
                found.append(_REST)
            elif found[-1:] != [_DEEP]:  # one behind another says nothing new
                found += (_ENTER, _DEEP)
        elif char == "*":
            found.append(_STAR)
        elif char == "?":
            found.append(_ANY)
        elif char == "[":
            end = _class_end(pattern, position)
            if end < 0:
                return None
            found.append(pattern[position - 1 : end])
            position = end
        elif char == "\\":
            if position == len(pattern):
                return None
            found.append("=" + pattern[position])
            position += 1
        else:
            found.append("=" + char)
    return found


def _class_end(pattern: str, position: int) -> int:
    """Where the class ends whose bracket stands before `position`; -1 when it is malformed."""
    position += pattern.startswith("^", position)
    first = position
    while True:
        if pattern.startswith("]", position) and position > first:
            return position + 1
        low, position = _member(pattern, position)
        high = low
        if low and pattern.startswith("-", position):
            high, position = _member(pattern, position + 1)
        if not low or not high or low > high:
            return -1


def _member(pattern: str, position: int) -> tuple[str, int]:
    """A character of a class, and the position behind it; empty when there is none."""
    char = pattern[position : position + 1]
    if char in ("", "-", "]"):
        return "", position
    if char == "\\":
        position += 1
        char = pattern[position : position + 1]
    return char, position + 1


def _expression(token: str) -> str:
    if token.startswith("="):
        return re.escape(token[1:])
    if token.startswith("["):
        inner = re.sub(r"\\(.)|([^-^\w])", lambda one: re.escape(one[1] or one[2]), token[1:-1])
        return f"[{inner}]"
    return _EXPRESSIONS[token]


class _Machine:
    """All ways to match at once: bit i of a state means that the first i tokens have matched."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._final = 1 << len(tokens)
        self._passed = sum(1 << at for at, one in enumerate(tokens) if one in (_STAR, _REST))
        self._enter = sum(1 << at for at, one in enumerate(tokens) if one == _ENTER)
        self._known: dict[str, tuple[int, int]] = {}

    def matches(self, path: str) -> bool:
        states = self._closed(1)
        for char in path:
            advances, stays = self._known.get(char) or self._learned(char)
            states = self._closed((states & advances) << 1 | states & stays)
            if not states:
                return False
        return bool(states & self._final)

    def _closed(self, states: int) -> int:
        while True:
            entered = states & self._enter
            further = states | (states & self._passed) << 1 | entered << 1 | entered << 2
            if further == states:
                return states
            states = further

    def _learned(self, char: str) -> tuple[int, int]:
        advances = stays = 0
        for at, token in enumerate(self._tokens):
            if token in _LENGTHY:
                if char != ("/" if token == _STAR else "\n"):
                    stays |= 1 << at
                if token == _DEEP and char == "/":
                    advances |= 1 << at
            elif token != _ENTER and re.fullmatch(_expression(token), char):
                advances |= 1 << at
        self._known[char] = advances, stays
        return advances, stays
