"""Tables of options and the parser that reads them: no argparse, which costs more than a `run`.

An option is a row, a command is a row that points at its options; help is made from the same rows.
Docker's habits: `-it`, `-p80:80`, `-e K`, `--name=x`, `--rm=false`, `--` ends options, and a
command that starts something in an instance stops reading options at the first argument.
"""

from __future__ import annotations

from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Option:
    """One row: `names` like "-e, --env"; `kind` one of `KINDS`; `default` for flags and texts."""

    __slots__ = ("default", "help", "key", "kind", "metavar", "names")

    def __init__(
        self, names: str, kind: str, metavar: str, help: str, default: object = None
    ) -> None:
        self.names = tuple(names.split(", "))
        self.kind = kind
        self.metavar = metavar
        self.help = help
        self.default = default
        self.key = self.names[-1].lstrip("-").replace("-", "_")


class Values:
    """What was given, one attribute per option: `values.cap_add`, and which were `given`."""

    def __init__(self, options: tuple[Option, ...]) -> None:
        self.given: set[str] = set()
        for option in options:
            empty: object = [] if option.kind == "list" else option.default
            setattr(self, option.key, False if option.kind == "flag" and empty is None else empty)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Command:
    """One row of a noun module's table.

    `run(values, arguments)` returns the exit code.  `arguments` is the least and the most of them,
    None for any number.
    """

    __slots__ = ("least", "most", "options", "run", "summary", "usage")

    stops = False

    def __init__(
        self,
        usage: str,
        summary: str,
        run: Callable[[Values, list[str]], int],
        options: tuple[Option, ...] = (),
        *,
        arguments: tuple[int, int | None] = (0, 0),
    ) -> None:
        self.usage = usage
        self.summary = summary
        self.run = run
        self.options = options
        self.least, self.most = arguments


class OptionsFirst(Command):
    """A command whose arguments are a command line themselves: the first one ends the options."""

    __slots__ = ()

    stops = True


class HelpAsked(Exception):
    """`--help` was among the options."""


_TRUE = ("true", "t", "1")
_FALSE = ("false", "f", "0")


def truth(text: str) -> bool:
    """The value of `--flag=text`.  Raises ValueError."""
    lowered = text.lower()
    if lowered not in _TRUE + _FALSE:
        raise ValueError("neither true nor false")
    return lowered in _TRUE


def byte_size(text: str) -> int:
    """Bytes from `512m`, `1.5GiB`, `1024`; -1 means no limit.  Raises ValueError."""
    if text == "-1":
        return -1
    number = text.lower().removesuffix("ib").removesuffix("b")
    factor = 1
    if number and number[-1] in "kmgtp":
        factor = 1 << (10 * ("kmgtp".index(number[-1]) + 1))
        number = number[:-1]
    size = float(number) * factor
    if not 0 <= size < 1 << 63:
        raise ValueError("out of range")
    return int(size)


_UNITS_NS = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


def duration_ns(text: str) -> int:
    """Nanoseconds of `1m30s`, `500ms`, `0`.  Raises ValueError."""
    total, rest = 0.0, text if text != "0" else "0s"
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("numhs"))]
        unit = next(name for name in (unit[:2], unit[:1], "") if name in _UNITS_NS or not name)
        total += float(number) * _UNITS_NS.get(unit, 0)
        if not unit:
            raise ValueError("no unit")
        rest = rest[len(unit) :]
    if not text or total >= 1 << 63:
        raise ValueError("no duration")
    return int(total)


KINDS: dict[str, Callable[[str], Any]] = {
    "flag": truth,
    "text": str,
    "list": str,
    "integer": int,
    "number": float,
    "bytes": byte_size,
    "duration": duration_ns,
}


class _Parser:
    """One pass over a command's words."""

    def __init__(self, name: str, command: Command) -> None:
        self.name = name
        self.command = command
        self.rows = {name: option for option in command.options for name in option.names}
        self.values = Values(command.options)
        self.arguments: list[str] = []

    def parse(self, words: list[str]) -> None:
        position = 0
        while position < len(words):
            word = words[position]
            position += 1
            if word == "--":
                self.arguments += words[position:]
                return
            if word == "-" or not word.startswith("-"):
                self.arguments.append(word)
                if self.command.stops:
                    self.arguments += words[position:]
                    return
            elif word.startswith("--"):
                position += self._long(word, words[position:])
            else:
                position += self._short(word, words[position:])

    def _long(self, word: str, rest: list[str]) -> int:
        """Take `--name`, `--name=value` or `--name value`; the number of words used of `rest`."""
        name, equals, value = word.partition("=")
        option = self._find(name, word)
        if equals:
            self._set(option, name, value)
            return 0
        return self._set_or_take(option, name, rest)

    def _short(self, word: str, rest: list[str]) -> int:
        """Take `-i`, `-it`, `-eK`, `-e=K` or `-e K`."""
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._find(name, word)
            if letters.startswith("="):
                self._set(option, name, letters[1:])
                return 0
            if option.kind != "flag":
                if letters:
                    self._set(option, name, letters)
                    return 0
                return self._set_or_take(option, name, rest)
            self._set(option, name, "true")
        return 0

    def _find(self, name: str, word: str) -> Option:
        option = self.rows.get(name)
        if option is not None:
            return option
        if name in ("--help", "-h"):
            raise HelpAsked
        where = "" if name == word else f" in '{word}'"
        raise Invalid(f"unknown option '{name}'{where}", hint=f"see `proa {self.name} --help`")

    def _set_or_take(self, option: Option, name: str, rest: list[str]) -> int:
        if option.kind == "flag":
            self._set(option, name, "true")
            return 0
        if not rest:
            raise Invalid(
                f"option '{name}' needs a value: {option.metavar}",
                hint=f"see `proa {self.name} --help`",
            )
        self._set(option, name, rest[0])
        return 1

    def _set(self, option: Option, name: str, text: str) -> None:
        try:
            value = KINDS[option.kind](text)
        except ValueError:
            raise Invalid(
                f"'{text}' is not a value for '{name}': {option.metavar or 'true or false'}",
                hint=f"see `proa {self.name} --help`",
            ) from None
        self.values.given.add(option.key)
        if option.kind == "list":
            getattr(self.values, option.key).append(value)
        else:
            setattr(self.values, option.key, value)


def parse(name: str, command: Command, words: list[str]) -> tuple[Values, list[str]]:
    """Options and arguments of a command.  Raises Invalid, or HelpAsked."""
    parser = _Parser(name, command)
    parser.parse(words)
    count = len(parser.arguments)
    if count < command.least or (command.most is not None and count > command.most):
        wanted = "at least" if command.most is None or command.most > command.least else "exactly"
        number = command.least
        if command.most is not None and count > command.most:
            wanted, number = "at most", command.most
        raise Invalid(
            f"'{name}' needs {wanted} {number} argument{'' if number == 1 else 's'}, got {count}",
            hint=f"usage: proa {name} {command.usage}",
        )
    return parser.values, parser.arguments
