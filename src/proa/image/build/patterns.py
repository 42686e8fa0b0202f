"""The patterns of `${x#pattern}`, `${x%pattern}` and `${x/pattern/word}`.

`*` and `?` match anything but a newline, a backslash makes them and itself ordinary, and there
are no brackets: BuildKit's rules (shell/lex.go).  All ways to match are followed at once, a bit
each, so time is linear whatever the pattern: with Python's regular expressions it would not be.
"""

from __future__ import annotations

STAR, ANY = "*", "?"


class BadPattern(ValueError):
    """The text is no pattern."""


class Pattern:
    """A compiled pattern; `tokens` are STAR, ANY, or `=` and a literal character."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self._final = 1 << len(tokens)
        self._stars = self._any = 0
        self._literals: dict[str, int] = {}
        for index, token in enumerate(tokens):
            if token == STAR:
                self._stars |= 1 << index
            elif token == ANY:
                self._any |= 1 << index
            else:
                self._literals[token[1]] = self._literals.get(token[1], 0) | 1 << index

    def reversed(self) -> Pattern:
        return Pattern(self.tokens[::-1])

    def end(self, text: str, start: int = 0, *, longest: bool) -> int:
        """Where the match that begins at `start` ends; -1 when there is none."""
        states, found = self._closed(1), -1
        for position in range(start, len(text) + 1):
            if states & self._final:
                found = position
                if not longest:
                    break
            if position == len(text) or not states:
                break
            states = self._step(states, text[position])
        return found

    def starts(self, text: str) -> list[bool]:
        """For each position, the end included: whether some match begins there."""
        backwards = self.reversed()
        states, found = 0, []
        for position in range(len(text), -1, -1):
            states |= backwards._closed(1)
            found.append(bool(states & backwards._final))
            if position:
                states = backwards._step(states, text[position - 1])
        return found[::-1]

    def _closed(self, states: int) -> int:
        return states | (states & self._stars) << 1  # parse() leaves no star after a star

    def _step(self, states: int, char: str) -> int:
        moved = (states & self._literals.get(char, 0)) << 1
        if char != "\n":
            moved |= (states & self._any) << 1 | states & self._stars
        return self._closed(moved)


def parse(text: str) -> Pattern:
    """The pattern that `text` means.  Raises BadPattern."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char in (STAR, ANY):
            if char == ANY or tokens[-1:] != [STAR]:
                tokens.append(char)
            continue
        if char == "\\":
            char = text[position : position + 1]
            position += 1
            if not char or char not in "*?\\}/":
                raise BadPattern(f"invalid escape '\\{char}'")
        tokens.append("=" + char)
    return Pattern(tokens)


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without what the pattern matches at its beginning."""
    return value[max(0, parse(pattern).end(value, longest=longest)) :]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without what the pattern matches at its end."""
    end = parse(pattern).reversed().end(value[::-1], longest=longest)
    return value[: len(value) - max(0, end)]


def matches(value: str, pattern: str, *, every: bool) -> list[tuple[int, int]]:
    """Where the pattern matches, leftmost and longest: the first place or every one.

    An empty match right behind another does not count (as in Go's ReplaceAll).
    """
    compiled = parse(pattern)
    found: list[tuple[int, int]] = []
    position = 0
    for start, possible in enumerate(compiled.starts(value)):
        if not possible or start < position:
            continue
        end = compiled.end(value, start, longest=True)
        if end == start and found and found[-1][1] == start:
            continue
        found.append((start, end))
        position = end
        if not every:
            break
    return found
