"""Typed reading of JSON bodies: a wrong type is an `Invalid` that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proa.errors import Invalid


class Fields:
    """A JSON object; missing and null fields read as the type's zero."""

    def __init__(self, value: Any, path: str = "") -> None:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise Invalid(f"field '{path or 'body'}' must be an object")
        self._value, self._path = value, path

    def _get(self, name: str, kinds: type | tuple[type, ...], word: str) -> Any:
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in _all(kinds)):
            raise Invalid(f"field '{self.path(name)}' must be {word}")
        return value

    def path(self, name: str) -> str:
        """The full name of a field, for messages."""
        return f"{self._path}.{name}" if self._path else name

    def text(self, name: str) -> str:
        """A string."""
        value = str(self._get(name, str, "a string") or "")
        if "\0" in value:
            raise Invalid(f"field '{self.path(name)}' holds a NUL byte")
        return value

    def integer(self, name: str) -> int:
        """A whole number within 64 bits."""
        value = int(self._get(name, int, "a whole number") or 0)
        if not -(1 << 63) <= value < 1 << 63:
            raise Invalid(f"field '{self.path(name)}' is out of range")
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        return bool(self._get(name, bool, "true or false"))

    def strings(self, name: str) -> tuple[str, ...]:
        """A list of strings; a lone string counts as a list of one, as Docker reads commands."""
        value = self._get(name, (list, str), "a list of strings")
        if isinstance(value, str):
            value = [value]
        for item in value or ():
            if not isinstance(item, str) or "\0" in item:
                raise Invalid(f"field '{self.path(name)}' must be a list of strings without NUL")
        return tuple(value or ())

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects."""
        value = self._get(name, list, "a list of objects") or []
        return tuple(Fields(item, f"{self.path(name)}[{n}]") for n, item in enumerate(value))

    def fields(self, name: str) -> Fields:
        """An object."""
        return Fields(self._value.get(name), self.path(name))

    def texts(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        inner = self.fields(name)
        return {key: inner.text(key) for key in inner.names()}

    def names(self) -> tuple[str, ...]:
        """The object's keys."""
        for key in self._value:
            if not isinstance(key, str) or "\0" in key:
                raise Invalid(f"field '{self._path}' has a key that is no plain string")
        return tuple(self._value)

    def raw(self, name: str) -> Any:
        """Whatever is there."""
        return self._value.get(name)

    def has(self, name: str) -> bool:
        """Present and not null."""
        return self._value.get(name) is not None


def _all(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)
