"""What clients send: JSON bodies and filters.  Fields are checked where they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from proa.api.request import Request
from proa.errors import Invalid

BODY_BYTES = 4 << 20


def read(request: Request, *, required: bool = True) -> dict[str, Any]:
    """The JSON object a request carries; where not `required`, an empty body is an empty object."""
    raw = request.body.all(BODY_BYTES)
    if not required and raw.strip() in (b"", b"null"):
        return {}
    kind = request.fields.get("content-type", "application/json").partition(";")[0].strip()
    if kind != "application/json":
        raise Invalid(f"unsupported Content-Type header ({kind}): must be 'application/json'")
    value = parse(raw, "request body")
    if not isinstance(value, dict):
        raise Invalid("invalid request body: expected a JSON object")
    return value


def parse(raw: bytes | str, what: str) -> Any:
    """JSON from a client; anything json cannot digest is the client's fault."""
    try:
        return json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Invalid(f"invalid JSON in {what}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def filters(request: Request) -> dict[str, list[str]]:
    """The `filters` argument: `{"key": ["value"]}` or the older `{"key": {"value": true}}`."""
    raw = request.text("filters")
    if not raw:
        return {}
    value = parse(raw, "filters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"invalid filters '{raw[:60]}': expected an object")
    return {key: _values(key, item) for key, item in value.items()}


def _values(key: str, item: Any) -> list[str]:
    values = [name for name, on in item.items() if on] if isinstance(item, dict) else item
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Invalid(f"invalid filter '{key}': expected a list of strings")
    return values


def known_filters(given: dict[str, list[str]], known: frozenset[str]) -> None:
    """Refuse a filter nobody would apply."""
    for key in given:
        if key not in known:
            raise Invalid(f"invalid filter '{key}'")


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `KEY` or `KEY=VALUE` is among labels."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
