"""One request, as a handler sees it."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from urllib.parse import parse_qs, unquote

from proa.api.answer import API_VERSION
from proa.api.message import Body, Head, Malformed
from proa.errors import Invalid

FILE_BYTES = 64 << 10
_FALSE = frozenset({"", "0", "no", "false", "none"})
HandOver = Callable[["Request", str], socket.socket]


class Request:
    """One request; `parameter` is the templated part of the path, `version` the API's."""

    def __init__(self, head: Head, body: Body, hand_over: HandOver) -> None:
        self.method = head.method
        self.minor = head.minor
        self.fields = head.fields
        self.body = body
        path, _, query = head.target.partition("?")
        self.path = unquote(path, errors="surrogateescape") if "%" in path else path
        if "\0" in self.path:
            raise Malformed("malformed path")
        self.query = _query(query) if query else {}
        self.parameter = ""
        self.version = API_VERSION
        self._hand_over = hand_over

    def text(self, name: str, default: str = "") -> str:
        """A query argument, the first when given more than once."""
        return self.query.get(name, (default,))[0]

    def flag(self, name: str, default: bool = False) -> bool:
        """A query argument read as Docker reads booleans."""
        if name not in self.query:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def whole(self, name: str) -> int | None:
        """A query argument that must be a whole number; None when absent."""
        text = self.text(name)
        if not text:
            return None
        try:
            return int(text[:20])
        except ValueError:
            raise Invalid(f"invalid value '{text}' for '{name}': not a whole number") from None

    def file(self) -> io.BufferedReader:
        """The body as a buffered file, for what is too large to hold."""
        return io.BufferedReader(self.body, FILE_BYTES)

    def upgrade(self, kind: str) -> socket.socket:
        """Answer that the connection changes its protocol and take its socket over."""
        return self._hand_over(self, kind)


def _query(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=256)
    except ValueError:
        raise Malformed("malformed query") from None
