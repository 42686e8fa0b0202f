"""From bytes to logical lines: parser directives, comments, continuations, heredocs' bodies.

BuildKit's frontend/dockerfile/parser is what this follows; unlike it, every character of a
logical line knows the line and column it was written at.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from proa.errors import BuildError
from proa.image.build.instructions import Directives, Heredoc, Location, Place
from proa.image.build.text import SPACES

MAXIMUM_BYTES = 4 << 20
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_BLANKS = " \t"
_FORBIDDEN = re.compile("[\0\udc80-\udcff]")


@dataclass(frozen=True)
class Line:
    """A logical line; `origins` say, for offsets in `text`, where its physical lines begin."""

    text: str
    location: Location
    origins: tuple[tuple[int, int, int], ...]  # offset, line, column

    def place(self, offset: int) -> Place:
        """Line and column of the character at `offset`."""
        begin, line, column = self.origins[
            max(0, bisect_right(self.origins, (offset, 1 << 62, 0)) - 1)
        ]
        return line, column + offset - begin

    def error(self, message: str, offset: int = 0, *, hint: str = "") -> BuildError:
        """An error that points at the character at `offset`."""
        return self.location.error(message, hint=hint, at=self.place(offset))


class Reader:
    """Hands out logical lines; between two of them, heredocs' bodies."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        if len(data) > MAXIMUM_BYTES:
            raise BuildError(
                f"'{name}' has {len(data)} bytes", hint=f"{MAXIMUM_BYTES} are allowed", file=name
            )
        # bytes that are no UTF-8 are refused where they count; a comment may have some
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self._number = 0  # of lines read
        self.directives = self._read_directives()

    @property
    def number(self) -> int:
        """How many physical lines have been read."""
        return self._number

    def location(self, line: int, column: int = 1) -> Location:
        """Of the physical lines from `line` to the last one read."""
        end = max(line, self._number)
        source = "\n".join(one.rstrip("\r") for one in self._lines[line - 1 : end])
        return Location(self.name, line, end, column, source)

    def line(self) -> Line | None:
        """The next logical line that is neither blank nor a comment; None at the end."""
        while self._number < len(self._lines):
            raw = self._lines[self._number].rstrip("\r")
            self._number += 1
            text = raw.lstrip(SPACES)
            if text and not text.startswith("#"):
                return self._logical(text, len(raw) - len(text) + 1)
        return None

    def _logical(self, text: str, column: int) -> Line:
        start = self._number
        text, goes_on = self._continued(text)
        pieces, origins, length = [text], [(0, start, column)], len(text)
        while goes_on and self._number < len(self._lines):
            text = self._lines[self._number].rstrip("\r")
            self._number += 1
            stripped = text.lstrip(SPACES)
            if not stripped or stripped.startswith("#"):
                continue
            text, goes_on = self._continued(text)
            pieces.append(text)
            origins.append((length, self._number, 1))
            length += len(text)
        line = Line("".join(pieces), self.location(start, column), tuple(origins))
        _check_characters(line)
        return line

    def _continued(self, text: str) -> tuple[str, bool]:
        """The text without an escape character that ends it, and whether there was one."""
        escape = self.directives.escape
        shorter = text.rstrip(_BLANKS)
        if not shorter.endswith(escape) or shorter[:-1].endswith(escape):
            return text, False
        return shorter[:-1], True

    def heredoc(self, start: Heredoc, line: Line) -> Heredoc:
        """The body of a heredoc that `line` begins.  Raises BuildError when it has no end."""
        first = self._number
        while self._number < len(self._lines):
            text = self._lines[self._number].rstrip("\r")
            self._number += 1
            if (text.lstrip("\t") if start.chomp else text) == start.name:
                body = "".join(one + "\n" for one in self._lines[first : self._number - 1])
                _check_body(body, first + 1, self)
                return Heredoc(start.name, body, start.expand, start.chomp, start.descriptor)
        raise line.error(
            f"heredoc '{start.name}' has no end",
            max(0, line.text.find("<<")),
            hint=f"a line with nothing but '{start.name}' ends it",
        )

    def _read_directives(self) -> Directives:
        found: dict[str, str] = {}
        first = 1 if self._lines[:1] and self._lines[0].startswith("#!") else 0
        for number, raw in enumerate(self._lines[first:], first + 1):
            text = raw.rstrip("\r").lstrip(SPACES)
            match = _DIRECTIVE.fullmatch(text)
            name = match[1].lower() if match else ""
            if not match or name not in _DIRECTIVES:
                break
            self._number = number
            if name in found:
                raise self.location(number).error(f"only one directive '{name}' can be used")
            if name == "escape" and match[2] not in ("\\", "`"):
                raise self.location(number, raw.find(match[2]) + 1).error(
                    f"bad escape character '{match[2]}'", hint="it is a backslash or a backtick"
                )
            found[name] = match[2]
        if first:  # behind `#!` only a frontend is looked for
            return Directives(syntax=found.get("syntax", ""))
        return Directives(**found)


def _check_characters(line: Line) -> None:
    if bad := _FORBIDDEN.search(line.text):
        raise line.error(f"{_what(bad[0])} in an instruction", bad.start())


def _check_body(body: str, first: int, reader: Reader) -> None:
    if bad := _FORBIDDEN.search(body):
        before = body[: bad.start()].split("\n")
        place = (first + len(before) - 1, len(before[-1]) + 1)
        raise reader.location(place[0]).error(f"{_what(bad[0])} in a heredoc", at=place)


def _what(char: str) -> str:
    return "a NUL" if char == "\0" else "a byte that is not UTF-8"
