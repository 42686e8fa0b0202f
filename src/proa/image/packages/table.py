"""A TOML table read key by key: typed, and whatever nobody asked for is an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from proa.errors import Invalid

_NAMES = {
    str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a table",
}  # fmt: skip


class Table:
    """One table; `where` is what errors call it: the file, then the way to the table."""

    def __init__(self, where: str, data: Mapping[str, Any], path: str = "") -> None:
        self._where = where
        self._path = path
        self._data = data
        self._asked: list[str] = []

    def fault(self, key: str, message: str, hint: str = "") -> Invalid:
        """An error about a key of this table."""
        return Invalid(f"{self._where}: '{self._path}{key}' {message}", hint=hint)

    def _get(self, key: str, kind: type) -> Any:
        self._asked.append(key)
        value = self._data.get(key)
        if value is not None and type(value) is not kind:
            raise self.fault(key, f"must be {_NAMES[kind]}, not '{_short(value)}'")
        if isinstance(value, str) and "\0" in value:
            raise self.fault(key, "contains a zero byte")
        return value

    def any(self, key: str) -> Any:
        """A value of any kind; None when it is not there."""
        self._asked.append(key)
        return self._data.get(key)

    def text(self, key: str, default: str = "", *, line: bool = True) -> str:
        """A text, of one line unless `line` is false."""
        value = self._get(key, str)
        if value is None:
            return default
        if line and not value.isprintable():
            raise self.fault(key, "must be one line of printable text")
        return str(value)

    def needed(self, key: str) -> str:
        """A text that must be there and not be empty."""
        if not (value := self.text(key)):
            raise self.missing(key)
        return value

    def missing(self, key: str, hint: str = "") -> Invalid:
        """An error about a key that is not there, though perhaps one much like it."""
        others = [name for name in self._data if name not in self._asked]
        close = difflib.get_close_matches(key, others, 1)
        return self.fault(key, "is missing", f"there is '{close[0]}'" if close else hint)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, bool)
        return default if value is None else bool(value)

    def number(self, key: str, default: int, maximum: int) -> int:
        """A whole number from 0 to `maximum`."""
        value = self._get(key, int)
        if value is None:
            return default
        if not 0 <= value <= maximum:
            raise self.fault(key, f"must be from 0 to {maximum}, not '{value}'")
        return int(value)

    def mode(self, key: str, default: int) -> int:
        """A file's mode: "0644", or 0o644."""
        value = self.any(key)
        if value is None:
            return default
        try:
            mode = int(value, 8) if isinstance(value, str) else int(value)
        except (ValueError, TypeError):
            mode = -1
        if isinstance(value, bool) or not 0 <= mode <= 0o7777:
            raise self.fault(key, f"is not a file's mode: '{_short(value)}'", 'write "0644"')
        return mode

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """A list of texts."""
        value = self._get(key, list)
        if value is None:
            return tuple(default)
        for item in value:
            if not isinstance(item, str) or "\0" in item:
                raise self.fault(key, f"must be a list of texts, not of '{_short(item)}'")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, str]:
        """A table of texts."""
        value = self._get(key, dict) or {}
        for name, item in value.items():
            if not isinstance(item, str) or "\0" in item + name:
                raise self.fault(f"{key}.{name}", f"must be a text, not '{_short(item)}'")
        return dict(value)

    def table(self, key: str) -> Table:
        """A table in this one; an empty one when it is not there."""
        return Table(self._where, self._get(key, dict) or {}, f"{self._path}{key}.")

    def tables(self, key: str) -> tuple[Table, ...]:
        """An array of tables (`[[key]]`)."""
        found = []
        for number, item in enumerate(self._get(key, list) or (), 1):
            path = f"{self._path}{key}[{number}]"
            if not isinstance(item, dict):
                raise Invalid(f"{self._where}: '{path}' must be a table, not '{_short(item)}'")
            found.append(Table(self._where, item, f"{path}."))
        return tuple(found)

    def close(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._data:
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, 1)
                hint = f"did you mean '{close[0]}'?" if close else ""
                known = ", ".join(sorted(self._asked))
                raise self.fault(key, "is not known", hint or f"known are: {known}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
