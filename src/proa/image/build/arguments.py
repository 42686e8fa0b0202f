"""One logical line taken apart: keyword, flags, and arguments in the form that the keyword has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from proa.image.build.instructions import Flag, Instruction
from proa.image.build.lines import Line
from proa.image.build.text import SPACES, did_you_mean

_WORD = re.compile(r"[^\t\v\f\r ]+")
_BLANKS = re.compile(r"[\t\v\f\r ]+")


@dataclass(frozen=True)
class _Rest:
    """What stands behind keyword and flags: `line.text[begin:end]`."""

    keyword: str
    flags: tuple[Flag, ...]
    line: Line
    begin: int
    end: int
    escape: str

    @property
    def text(self) -> str:
        return self.line.text[self.begin : self.end]

    def made(
        self,
        form: str,
        found: list[tuple[str, int]],
        pairs: tuple[tuple[str, str | None], ...] = (),
    ) -> Instruction:
        """The instruction; `found` are its arguments (of pairs: their words) with offsets."""
        return Instruction(
            self.keyword,
            form,
            self.line.location,
            text=self.line.text.strip(SPACES),
            arguments=() if form == "pairs" else tuple(text for text, _ in found),
            pairs=pairs,
            flags=self.flags,
            places=tuple(self.line.place(self.begin + offset) for _, offset in found),
        )


def read(line: Line, begin: int, escape: str) -> Instruction:
    """The instruction that begins at `begin` of the line.  Raises BuildError."""
    text = line.text
    begin = _skip(text, begin)
    end = len(text.rstrip(SPACES))
    match = _WORD.match(text, begin, max(begin, end))
    keyword = match[0].upper() if match else ""
    shape = _FORMS.get(keyword)
    if shape is None:
        known = did_you_mean(keyword, _FORMS)
        raise line.error(
            f"unknown instruction '{match[0] if match else ''}'",
            begin,
            hint=known or "the instructions are " + ", ".join(sorted(_FORMS)),
        )
    flags, begin = _flags(line, match.end() if match else begin, end, escape)
    return shape(_Rest(keyword, flags, line, min(begin, end), end, escape))


def _skip(text: str, begin: int) -> int:
    while begin < len(text) and text[begin] in SPACES:
        begin += 1
    return begin


def _flags(line: Line, begin: int, end: int, escape: str) -> tuple[tuple[Flag, ...], int]:
    """Leading `--words`, and where the rest begins; `--` alone ends them."""
    found: list[Flag] = []
    text = line.text
    while True:
        begin = _skip(text, begin)
        if not text.startswith("--", begin, end):
            return tuple(found), begin
        word, after = _unquoted(text, begin, end, escape)
        if word == "--":
            return tuple(found), _skip(text, after)
        name, equals, value = word[2:].partition("=")
        found.append(Flag(name, value if equals else None, line.place(begin)))
        begin = after


def _unquoted(text: str, begin: int, end: int, escape: str) -> tuple[str, int]:
    """The word at `begin` without quotes and escapes, and where it ends."""
    word: list[str] = []
    quote = ""
    position = begin
    while position < end:
        char = text[position]
        if char == escape and position + 1 < end:
            position += 1
            word.append(text[position])
        elif char == escape:
            pass  # at the end it says nothing
        elif quote:
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char in SPACES:
            break
        elif char in "\"'":
            quote = char
        else:
            word.append(char)
        position += 1
    return "".join(word), position


def _split(text: str, escape: str) -> list[tuple[str, int]]:
    """Words with their offsets: blanks in quotes and escaped ones are part of them, as written."""
    found: list[tuple[str, int]] = []
    begin, quote = -1, ""
    position = 0
    while position < len(text):
        char = text[position]
        if begin < 0 and char not in SPACES:
            begin = position
        if char == escape and quote != "'":
            if position + 1 == len(text):
                text = text[:-1]
                break
            position += 1
        elif quote:
            if char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char in SPACES and begin >= 0:
            found.append((text[begin:position], begin))
            begin = -1
        position += 1
    if 0 <= begin < len(text):
        found.append((text[begin:], begin))
    return found


def _strings(rest: _Rest) -> list[str] | None:
    """A JSON array of strings; None when it is something else, which is then for the shell."""
    text = rest.text.lstrip(SPACES)
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    for one in found:
        if not isinstance(one, str):
            raise rest.line.error(
                f"{json.dumps(one)[:40]} in an array that takes only strings", rest.begin
            )
        if "\0" in one:
            raise rest.line.error("a NUL in an instruction", rest.begin)
    # a half of a surrogate pair has no UTF-8
    return [one.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for one in found]


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's


def _shell(rest: _Rest, skip: int = 0) -> Instruction:
    strings = _strings(rest)
    if strings is not None:
        return rest.made("exec", [(one, skip) for one in strings])
    return rest.made("shell", [(rest.text, skip)] if rest.text else [])


def _words(rest: _Rest) -> Instruction:
    return rest.made("words", [(match[0], match.start()) for match in _WORD.finditer(rest.text)])


def _words_or_json(rest: _Rest) -> Instruction:
    strings = _strings(rest)
    return _words(rest) if strings is None else rest.made("exec", [(one, 0) for one in strings])


def _text(rest: _Rest) -> Instruction:
    return rest.made("text", [(rest.text, 0)] if rest.text else [])


def _pairs(rest: _Rest) -> Instruction:
    """`name=value ...`, or the old `name value`, where the value is the rest of the line."""
    found = _split(rest.text, rest.escape)
    if found and "=" not in found[0][0]:
        halves = _BLANKS.split(rest.text, maxsplit=1)
        if len(halves) < 2:
            raise rest.line.error(
                f"{rest.keyword} must have two arguments, '{halves[0]}' has no value",
                rest.begin,
                hint=f"{rest.keyword} name=value",
            )
        return rest.made("pairs", [(halves[0], 0)], ((halves[0], halves[1]),))
    for word, offset in found:
        if "=" not in word:
            raise rest.line.error(
                f"no '=' in '{word}'",
                rest.begin + offset,
                hint="write name=value, and quotes around a value with blanks",
            )
    return _named(rest, found)


def _optional_pairs(rest: _Rest) -> Instruction:
    return _named(rest, _split(rest.text, rest.escape))


def _named(rest: _Rest, found: list[tuple[str, int]]) -> Instruction:
    pairs: list[tuple[str, str | None]] = []
    for word, offset in found:
        name, equals, value = word.partition("=")
        if not name:
            raise rest.line.error(f"no name before '=' in '{word}'", rest.begin + offset)
        pairs.append((name, value if equals else None))
    return rest.made("pairs", found, tuple(pairs))


def _health(rest: _Rest) -> Instruction:
    """`CMD` and a command, or `NONE`; other words are left for check.py to refuse."""
    match = re.match(f"[^{SPACES}]+", rest.text)
    kind = match[0].upper() if match else ""
    if not match or kind != "CMD":
        found = [(one[0], one.start()) for one in _WORD.finditer(rest.text)]
        return rest.made("none", found)
    begin = min(_skip(rest.line.text, rest.begin + match.end()), rest.end)
    command = _Rest(rest.keyword, rest.flags, rest.line, begin, rest.end, rest.escape)
    return _shell(command)


_FORMS: dict[str, Callable[[_Rest], Instruction]] = {
    "ADD": _words_or_json,
    "ARG": _optional_pairs,
    "CMD": _shell,
    "COPY": _words_or_json,
    "ENTRYPOINT": _shell,
    "ENV": _pairs,
    "EXPOSE": _words,
    "FROM": _words,
    "HEALTHCHECK": _health,
    "LABEL": _pairs,
    "MAINTAINER": _text,
    "ONBUILD": lambda rest: rest.made("trigger", [(rest.text, 0)] if rest.text else []),
    "RUN": _shell,
    "SHELL": _shell,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _words_or_json,
    "WORKDIR": _text,
}
