"""`-f KEY=VALUE` words made into the API's filters."""

from __future__ import annotations

from proa.errors import Invalid


def parse(words: list[str]) -> dict[str, object] | None:
    """`{"status": ["running"]}`; None when there are none, so that no query is sent."""
    result: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Invalid(f"'{word}' is not a filter", hint="KEY=VALUE")
        values = result.setdefault(key.strip().lower(), [])
        assert isinstance(values, list)
        values.append(value.strip())
    return result or None
