"""Quotes, escapes and variables in the words of an instruction, as BuildKit's shell/lex.go.

Which parts of which instruction expand is the table EXPANDED; everything else is taken as it is
written (RUN, CMD and ENTRYPOINT leave variables to the shell).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from proa.errors import BuildError
from proa.image.build import patterns
from proa.image.build.instructions import Flag, Heredoc, Instruction, Place
from proa.image.build.text import SPACES

MAXIMUM_CHARACTERS = 1 << 20  # of one expanded text: variables made of variables grow fast
_MAXIMUM_DEPTH = 64
_SPECIAL = "@*#?-$!"

# keyword: the flags that expand; its arguments and pairs do as well
EXPANDED: dict[str, tuple[str, ...]] = {
    "ENV": (),
    "LABEL": (),
    "COPY": ("chown", "chmod"),
    "ADD": ("chown", "chmod", "checksum"),
    "WORKDIR": (),
    "USER": (),
    "VOLUME": (),
    "STOPSIGNAL": (),
    "EXPOSE": (),
}


@dataclass(frozen=True)
class Rules:
    """How a text is read; the defaults are those of an instruction's words."""

    escape: str = "\\"
    quotes: bool = True  # quotes mean something
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False  # an unset variable stays as it is written


def word(text: str, environment: Mapping[str, str], escape: str = "\\") -> str:
    """`text` expanded to one word.  Raises BuildError, without a place."""
    return _Lexer(text, environment, Rules(escape)).whole()


def split(text: str, environment: Mapping[str, str], rules: Rules | None = None) -> list[str]:
    """`text` expanded, then split at blanks outside of quotes.  Raises BuildError."""
    lexer = _Lexer(text, environment, rules or Rules())
    lexer.whole()
    return lexer.words()


def document(text: str, environment: Mapping[str, str]) -> str:
    """The content of a heredoc expanded: quotes mean nothing in it.  Raises BuildError."""
    return _Lexer(text, environment, Rules(quotes=False)).whole()


def expand(
    instruction: Instruction, environment: Mapping[str, str], escape: str = "\\"
) -> Instruction:
    """The instruction with its variables replaced.  Raises BuildError that points at it."""
    if instruction.keyword not in EXPANDED:
        return instruction

    def one(text: str, place: Place) -> str:
        with pointing(instruction, place):
            return word(text, environment, escape)

    def flag(flag: Flag) -> Flag:
        if flag.name not in EXPANDED[instruction.keyword] or flag.value is None:
            return flag
        return replace(flag, value=one(flag.value, flag.place))

    def heredoc(heredoc: Heredoc) -> Heredoc:
        with pointing(instruction, instruction.places[0]):
            content = document(heredoc.content, environment) if heredoc.expand else heredoc.content
        return replace(heredoc, content=content)

    pairs = (
        (one(name, place), None if value is None else one(value, place))
        for (name, value), place in zip(instruction.pairs, instruction.places, strict=False)
    )
    arguments: list[tuple[str, Place]] = []
    for text, place in zip(instruction.arguments, instruction.places, strict=False):
        if instruction.keyword == "EXPOSE":
            with pointing(instruction, place):
                ports = split(text, environment, Rules(escape))
            arguments += ((port, place) for port in ports)
        else:
            arguments.append((one(text, place), place))
    return replace(
        instruction,
        arguments=tuple(text for text, _ in arguments),
        places=instruction.places if instruction.pairs else tuple(at for _, at in arguments),
        pairs=tuple(pairs),
        flags=tuple(map(flag, instruction.flags)),
        heredocs=tuple(map(heredoc, instruction.heredocs)),
    )


@contextmanager
def pointing(instruction: Instruction, place: Place | None = None) -> Iterator[None]:
    """BuildErrors that know no place get one: within `instruction`."""
    try:
        yield
    except BuildError as error:
        if error.line:
            raise
        raise instruction.error(error.message, hint=error.hint, at=place) from error


class _Lexer:
    """Reads one text from left to right; `pieces` are (text, whether blanks split it)."""

    def __init__(self, text: str, environment: Mapping[str, str], rules: Rules) -> None:
        self.text = text
        self.environment = environment
        self.rules = rules
        self.keep_escapes = rules.keep_escapes
        self.position = 0
        self.depth = 0
        self.ordinary = re.compile(rf"[^$<\"'}}/\{rules.escape}]+")
        self.pieces: list[tuple[str, bool]] = []

    def whole(self) -> str:
        """All of the text, expanded."""
        try:
            self.pieces = self._until("", self.keep_escapes)
        except _Syntax as error:
            shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
            raise BuildError(f"{error} in {shown!r}") from error
        return "".join(text for text, _ in self.pieces)

    def words(self) -> list[str]:
        """What `whole` gave, split at blanks; empty words do not count, quoted or not."""
        found, current = [], ""
        for text, splits in self.pieces:
            for char in text if splits else (text,):
                if splits and char in SPACES:
                    found.append(current)
                    current = ""
                else:
                    current += char
        return [one for one in (*found, current) if one]

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _next(self) -> str:
        char = self._peek()
        self.position += 1
        return char

    def _until(self, stop: str, keep_escapes: bool) -> list[tuple[str, bool]]:
        """Pieces up to `stop`, which is consumed; to the end when `stop` is empty."""
        before, self.keep_escapes = self.keep_escapes, keep_escapes
        self.depth += 1
        if self.depth > _MAXIMUM_DEPTH:
            raise _Syntax("substitutions nested too deeply")
        pieces: list[tuple[str, bool]] = []
        written = 0
        while char := self._peek():
            if char == stop:
                self.position += 1
                break
            piece = self._piece(char)
            pieces.append(piece)
            written += len(piece[0])
            if written > MAXIMUM_CHARACTERS:
                raise _Syntax(f"more than {MAXIMUM_CHARACTERS} characters after expansion")
        else:
            if stop:
                raise _Syntax(f"syntax error: missing '{stop}'")
        self.keep_escapes = before
        self.depth -= 1
        return pieces

    def _piece(self, char: str) -> tuple[str, bool]:
        if char == "$":
            return self._dollar(), True
        if char in "\"'" and self.rules.quotes:
            return (self._single() if char == "'" else self._double()), False
        if ordinary := self.ordinary.match(self.text, self.position):
            self.position = ordinary.end()
            return ordinary[0], True
        self.position += 1
        if char == "<" and self._peek() == "<":
            return self._heredoc_start(), False
        if char != self.rules.escape:
            return char, True
        return (char if self.keep_escapes else "") + self._next(), False

    def _heredoc_start(self) -> str:
        """`<<` and the blanks behind it stay together with the name that follows."""
        start = self.position - 1
        self.position += 1
        while self._peek() and self._peek() in "\t\r ":
            self.position += 1
        return self.text[start : self.position]

    def _single(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise _Syntax("unexpected end of statement while looking for matching single-quote")
        found = self.text[self.position + 1 : end]
        self.position = end + 1
        return f"'{found}'" if self.rules.keep_quotes else found

    def _double(self) -> str:
        self.position += 1
        found: list[str] = []
        while (char := self._peek()) != '"':
            if not char:
                raise _Syntax("unexpected end of statement while looking for matching double-quote")
            if char == "$":
                found.append(self._dollar())
                continue
            self.position += 1
            if char == self.rules.escape:
                follower = self._peek()
                if follower and follower in ('"', "$", self.rules.escape):
                    self.position += 1
                    char = (char if self.keep_escapes else "") + follower
                elif self.keep_escapes:
                    char += char
            found.append(char)
        self.position += 1
        text = "".join(found)
        return f'"{text}"' if self.rules.keep_quotes else text

    def _dollar(self) -> str:
        start = self.position
        self.position += 1
        if self._peek() != "{":
            name = self._name()
            value = self.environment.get(name)
            if not name or (value is None and self.rules.keep_unset):
                return self.text[start : self.position]
            return value or ""
        self.position += 1
        if self._peek() and self._peek() in "{}:":
            raise _Syntax("syntax error: bad substitution")
        name = self._name()
        modifier = self._next()
        if modifier == ":":
            modifier += self._next()
        make = _MODIFIERS.get(modifier)
        if make is None:
            missing = "syntax error: missing '}'"
            unknown = f"unsupported modifier ({modifier}) in substitution"
            raise _Syntax(unknown if modifier and self.position <= len(self.text) else missing)
        return make(self, name, modifier)

    def _name(self) -> str:
        """A variable's name: letters, digits, `_`; or digits alone; or one special character."""
        start = self.position
        first = self._peek()
        if first and first in _SPECIAL:
            self.position += 1
        elif first.isdecimal():
            while self._peek().isdecimal():
                self.position += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self.position += 1
        return self.text[start : self.position]

    def _inner(self, stop: str, keep_escapes: bool) -> str:
        return "".join(text for text, _ in self._until(stop, keep_escapes))

    def _unset(self, name: str, rest: str) -> str | None:
        """What an unset variable leaves when such stay as they are written."""
        if self.rules.keep_unset and name not in self.environment:
            return "${" + name + rest + "}"
        return None

    def _plain(self, name: str, modifier: str) -> str:
        kept = self._unset(name, "")
        return self.environment.get(name, "") if kept is None else kept

    def _default(self, name: str, modifier: str) -> str:
        """`-`, `+` and `?`; with a colon an empty value counts as unset."""
        word = self._inner("}", False)
        kept = self._unset(name, modifier + word)
        if kept is not None:
            return kept
        value = self.environment.get(name)
        there = bool(value) if modifier[0] == ":" else value is not None
        if modifier[-1] == "+":
            return word if there else ""
        if there:
            return value or ""
        if modifier[-1] == "-":
            return word
        what = "unset" if value is None else "empty"
        raise _Syntax(f"{name}: {word or 'is not allowed to be ' + what}")

    def _trim(self, name: str, modifier: str) -> str:
        word = self._inner("}", True)
        kept = self._unset(name, modifier + word)
        if kept is not None:
            return kept
        trim = patterns.trim_prefix if modifier == "#" else patterns.trim_suffix
        value = self.environment.get(name, "")
        longest = word.startswith(modifier)
        try:
            return trim(value, word[longest:], longest=longest)
        except patterns.BadPattern as error:
            raise _Syntax(f"invalid pattern ({word}) in substitution: {error}") from error

    def _replace(self, name: str, modifier: str) -> str:
        every = self._peek() == "/"
        self.position += every
        pattern = self._inner("/", True)
        word = self._inner("}", True)
        kept = self._unset(name, f"/{pattern}/{word}")
        if kept is not None:
            return kept
        value = self.environment.get(name, "")
        try:
            found = patterns.matches(value, pattern, every=every)
        except patterns.BadPattern as error:
            raise _Syntax(f"invalid pattern ({pattern}) in substitution: {error}") from error
        if len(found) * len(word) > MAXIMUM_CHARACTERS:
            raise _Syntax(f"more than {MAXIMUM_CHARACTERS} characters after expansion")
        pieces: list[str] = []
        position = 0
        for start, end in found:
            pieces += (value[position:start], word)
            position = end
        return "".join((*pieces, value[position:]))


class _Syntax(Exception):
    """Becomes a BuildError that quotes the whole text."""


_MODIFIERS: dict[str, Callable[[_Lexer, str, str], str]] = {
    "}": _Lexer._plain,
    "-": _Lexer._default,
    ":-": _Lexer._default,
    "+": _Lexer._default,
    ":+": _Lexer._default,
    "?": _Lexer._default,
    ":?": _Lexer._default,
    "#": _Lexer._trim,
    "%": _Lexer._trim,
    "/": _Lexer._replace,
}
