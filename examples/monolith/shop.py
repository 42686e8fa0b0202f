"""A guest book: GET / counts and lists, POST / adds a line.  State is in PostgreSQL alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import psycopg2

DATABASE = "dbname=shop"  # by the local socket, as the user of the same name
LINE_MAXIMUM = 1000


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    with psycopg2.connect(DATABASE) as connection, connection.cursor() as cursor:
        if environ["REQUEST_METHOD"] == "POST":
            length = min(int(environ.get("CONTENT_LENGTH") or 0), LINE_MAXIMUM)
            line = environ["wsgi.input"].read(length).decode("utf-8", "replace")
            cursor.execute("INSERT INTO lines (line) VALUES (%s)", (line,))
        cursor.execute("SELECT line FROM lines ORDER BY id")
        lines = [line for (line,) in cursor]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"count": len(lines), "lines": lines}).encode() + b"\n"]
