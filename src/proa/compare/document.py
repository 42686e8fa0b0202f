"""A report as JSON, out and in again, and the schema that says what it looks like.

Everything follows from the types of `record`; docs/schemas/compare.json is `schema()`'s result,
which a test compares.  A report that is read is somebody else's file: bounded, checked, typed.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from proa.compare.record import SCHEMA, Report
from proa.errors import Corrupt, Invalid, NotFound

MAXIMUM_BYTES = 64 * 1024 * 1024
_PLAIN = {
    str: "string", float: "number", int: "integer", bool: "boolean", types.NoneType: "null",
}  # fmt: skip


def write(report: Report) -> str:
    """The report as JSON text, with every sample."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> Report:
    """The report of a file.  Raises NotFound, Corrupt, and Invalid for another schema."""
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no report '{path}'", hint="proa compare --json FILE") from None
    except OSError as error:
        raise Corrupt(f"cannot read '{path}': {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAXIMUM_BYTES:
        raise Corrupt(f"'{path}' is larger than any report, {MAXIMUM_BYTES >> 20} MiB")
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Report:
    """The report of JSON text; `name` is for errors.  Raises Corrupt and Invalid."""
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"'{name}' is no JSON: {str(error).lower()}") from None
    if not isinstance(value, dict) or "schema" not in value:
        raise Corrupt(f"'{name}' is no report of a comparison")
    if value["schema"] != SCHEMA:
        raise Invalid(
            f"'{name}' has the schema '{str(value['schema'])[:40]}'", hint=f"this reads '{SCHEMA}'"
        )
    try:
        found = _value(Report, value, "report")
    except (RecursionError, OverflowError):
        raise Corrupt(f"'{name}' holds values no report has") from None
    except Corrupt as error:
        raise Corrupt(f"'{name}': {error.message}") from None
    assert isinstance(found, Report)
    return found


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of reports."""
    definitions: dict[str, Any] = {}
    top = _schema(Report, definitions)
    definitions["Report"]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "What `proa compare` found",
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if is_dataclass(kind):
        assert isinstance(kind, type)
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # known before its fields refer to it
            hints = typing.get_type_hints(kind)
            needed = [f.name for f in fields(kind)]
            definitions[kind.__name__] = {
                "description": " ".join((kind.__doc__ or "").split()),
                "type": "object",
                "properties": {f.name: _schema(hints[f.name], definitions) for f in fields(kind)},
                "required": needed,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(inner[1], definitions)}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": _schema(inner[0], definitions)}
    if origin is tuple:
        items = [_schema(each, definitions) for each in inner]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin is types.UnionType:
        return {"type": [_PLAIN[each] for each in inner]}
    return {"type": _PLAIN[kind]}


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type says.  Raises Corrupt, naming where."""
    if is_dataclass(kind):
        return _record(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Mapping and isinstance(value, dict):
        return {key: _value(inner[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is tuple and isinstance(value, list):
        wanted = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(wanted) == len(value):
            return tuple(
                _value(each, item, f"{where}[{n}]")
                for n, (each, item) in enumerate(zip(wanted, value, strict=True))
            )
    if origin is types.UnionType:
        if value is None and types.NoneType in inner:
            return None
        return _value(inner[0], value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in _PLAIN and type(value) is kind:
        return value
    raise Corrupt(f"'{where[:80]}' is not what a report has there")


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Corrupt(f"'{where[:80]}' is no object")
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise Corrupt(f"'{where[:80]}' has no '{name}'")
    present = [name for name in known if name in value]  # a later version may know more
    return kind(**{name: _value(hints[name], value[name], f"{where}.{name}") for name in present})


def _refuse(name: str) -> object:
    raise ValueError(f"'{name}' is no number")
