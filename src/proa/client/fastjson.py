"""JSON by the interpreter's own C scanner and encoder, without importing `json`.

`import json` costs more than all the rest of a command (it pulls in `re` and `enum`); the C parts
below it cost nothing.  They are private to CPython, so any surprise falls back to `json`.
"""

from __future__ import annotations

from proa.errors import Corrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Context:
    """The attributes that `_json.make_scanner` reads."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012  (the C code wants this very attribute)


def _unencodable(value: object) -> Any:
    raise TypeError(f"no JSON for '{type(value).__name__}'")


def _make_scan() -> Callable[[str], Any]:
    try:
        from _json import make_scanner

        scan_once = make_scanner(_Context())  # type: ignore[arg-type]
    except (ImportError, TypeError, AttributeError):  # pragma: no cover - not CPython
        import json

        return json.loads

    def scan(text: str) -> Any:
        try:
            value, end = scan_once(text, 0)
        except StopIteration:
            raise ValueError("no value") from None
        if end != len(text):
            raise ValueError("text after the value")
        return value

    return scan


def _make_encode() -> Callable[[object], str]:
    try:
        from _json import encode_basestring, make_encoder

        encoder = make_encoder(
            {}, _unencodable, encode_basestring, None, ":", ",", False, False, True
        )
        "".join(encoder({}, 0))
    except (ImportError, TypeError):  # pragma: no cover - not CPython
        import json

        return json.dumps
    return lambda value: "".join(encoder(value, 0))


_scan: Callable[[str], Any] = _make_scan()
_encode: Callable[[object], str] = _make_encode()


def loads(data: bytes | str) -> Any:
    """The value of a JSON text.  Raises Corrupt."""
    try:
        text = data if isinstance(data, str) else data.decode()
        return _scan(text.strip())
    except ValueError as error:
        start = data[:60]
        raise Corrupt(f"not valid JSON: {start!r}") from error


def dumps(value: object) -> str:
    """The value as one line of JSON."""
    return _encode(value)


def pretty(value: object, indent: int = 4) -> str:
    """The value over many lines, for people."""
    import json

    return json.dumps(value, indent=indent, ensure_ascii=False)
