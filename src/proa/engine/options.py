"""What a client may ask of attach and logs: plain data between the API and the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttachOptions:
    """Which streams to join, and how.

    `logs` replays what was written so far, `stream` follows what comes.  `detach_keys` are the
    bytes that end the attachment without ending the process (empty: none).
    """

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = False
    detach_keys: bytes = b""


@dataclass(frozen=True)
class LogOptions:
    """Which part of the log to read; times are seconds since the epoch, 0 means no bound."""

    follow: bool = False
    stdout: bool = True
    stderr: bool = True
    since: float = 0.0
    until: float = 0.0
    tail: int | None = None
    timestamps: bool = False


@dataclass(frozen=True)
class CommitOptions:
    """What to make of an instance: `edits` are Dockerfile lines, `config` fields to set as is."""

    name: str = ""
    author: str = ""
    message: str = ""
    pause: bool = True
    edits: tuple[str, ...] = ()
    config: tuple[tuple[str, Any], ...] = ()
