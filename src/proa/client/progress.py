"""Streams of Docker's progress messages: passed on until one says that the work failed."""

from __future__ import annotations

from proa.client import fastjson, faults
from proa.errors import ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def checked(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The messages; raises the ProaError that an `error` among them stands for."""
    for message in messages:
        if message.get("error"):
            raise failure(message)
        yield message


def failure(message: dict[str, Any]) -> ProaError:
    """The error that a message with `error` stands for."""
    details = {"message": str(message["error"]), **(message.get("errorDetail") or {})}
    if message.get("code"):
        details["code"] = message["code"]
    return faults.from_answer(500, fastjson.dumps(details).encode())
