"""The command line's way to the engine: connections that are reused, an engine on demand."""

from __future__ import annotations

import time

from proa.client import address
from proa.client.connection import Answer, Connection, instance_path, target
from proa.errors import EngineUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE_SECONDS = 0.5
_idle: list[Connection] = []


def connect() -> Connection:
    """A new connection; starts the engine when none answers."""
    try:
        return Connection(address.socket_path())
    except EngineUnavailable:
        if not address.may_start():
            raise
    from proa.client import spawn

    return spawn.connect()


def call(
    method: str, path: str, query: dict[str, object] | None = None, body: object = None
) -> Any:
    """One exchange over the idle connection; the answer's JSON."""
    connection = _idle.pop() if _idle else connect()
    answer = connection.request(method, target(path, query), body)
    value = answer.json()
    if answer.reusable:
        _idle.append(connection)
    return value


def get(path: str, **query: object) -> Any:
    """GET and its JSON."""
    return call("GET", path, query)


def post(path: str, body: object = None, **query: object) -> Any:
    """POST and its JSON."""
    return call("POST", path, query, body)


def stream(method: str, path: str, query: dict[str, object] | None = None) -> Answer:
    """An exchange whose body is read as it comes, on a connection of its own."""
    return connect().request(method, target(path, query))


def start(instance: str, connection: Connection | None = None) -> None:
    """Start an instance; what the engine has to make first is shown when it takes long."""
    control = connection or connect()
    control.begin("POST", instance_path(instance, "/start"))
    if not control.answers_within(PATIENCE_SECONDS):
        from proa.cli import progress

        progress.show(control, PATIENCE_SECONDS + 0.1)
    control.finish().read()


class Stages:
    """Time stamps of the command line's own doings, for `run --trace`; CLOCK_MONOTONIC.

    The process's start is reckoned from the processor time it has used: the kernel's own record is
    too coarse (10 ms), and starting an interpreter does not wait for anything.
    """

    def __init__(self) -> None:
        now = time.monotonic_ns()
        self.marks: list[tuple[str, int]] = [
            ("command started", now - time.process_time_ns()),
            ("options read", now),
        ]

    def mark(self, name: str) -> None:
        """This happened now."""
        self.marks.append((name, time.monotonic_ns()))
